package arm

import (
	"encoding/json"
	"strings"

	"tandem"
	"tandem/catalog"
	"tandem/pairlog"
)

// A hubInput is the body of PUT and PATCH: what may be set, and what is looked at to refuse it.
type hubInput struct {
	Location   string             `json:"location"`
	Tags       *map[string]string `json:"tags"`
	SKU        *skuBody           `json:"sku"`
	Identity   *struct{ Type string }
	Properties struct {
		AuthorizationPolicies *[]policyBody `json:"authorizationPolicies"`
		EventHubEndpoints     map[string]struct {
			RetentionTimeInDays int `json:"retentionTimeInDays"`
			PartitionCount      int `json:"partitionCount"`
		} `json:"eventHubEndpoints"`
		Routing *struct {
			Endpoints     map[string][]json.RawMessage `json:"endpoints"`
			Routes        []json.RawMessage            `json:"routes"`
			Enrichments   []json.RawMessage            `json:"enrichments"`
			FallbackRoute *fallbackBody                `json:"fallbackRoute"`
		} `json:"routing"`
		StorageEndpoints              map[string]storageBody     `json:"storageEndpoints"`
		MessagingEndpoints            map[string]json.RawMessage `json:"messagingEndpoints"`
		EnableFileUploadNotifications bool                       `json:"enableFileUploadNotifications"`
		CloudToDevice                 json.RawMessage            `json:"cloudToDevice"`
		IPFilterRules                 []json.RawMessage          `json:"ipFilterRules"`
		NetworkRuleSets               *struct {
			IPRules []json.RawMessage `json:"ipRules"`
		} `json:"networkRuleSets"`
		PublicNetworkAccess string `json:"publicNetworkAccess"`
		DisableLocalAuth    bool   `json:"disableLocalAuth"`
		DisableDeviceSAS    bool   `json:"disableDeviceSAS"`
		DisableModuleSAS    bool   `json:"disableModuleSAS"`
		MinTLSVersion       string `json:"minTlsVersion"`
		EnableDataResidency bool   `json:"enableDataResidency"`
		Tandem              struct {
			Replication      pairlog.Mode `json:"replication"`
			PlatformFailover string       `json:"platformFailover"`
		} `json:"tandem"`
	} `json:"properties"`
}

// check refuses settings that nothing would obey: better an error than a promise that is not kept.
func (in *hubInput) check() error {
	p := &in.Properties
	for _, s := range []struct {
		name string
		set  bool
	}{
		{"identity", in.Identity != nil && in.Identity.Type != "" && !strings.EqualFold(in.Identity.Type, "None")},
		{"properties.routing", !in.routingIsDefault()},
		{"properties.storageEndpoints", p.StorageEndpoints["$default"].ConnectionString != "" || len(p.StorageEndpoints) > 1},
		{"properties.enableFileUploadNotifications", p.EnableFileUploadNotifications},
		{"properties.messagingEndpoints", !same(p.MessagingEndpoints["fileNotifications"], defaultDelivery)},
		{"properties.cloudToDevice", !same(p.CloudToDevice, defaultCloudToDevice)},
		{"properties.ipFilterRules", len(p.IPFilterRules) > 0},
		{"properties.networkRuleSets", p.NetworkRuleSets != nil && len(p.NetworkRuleSets.IPRules) > 0},
		{"properties.publicNetworkAccess", p.PublicNetworkAccess != "" && !strings.EqualFold(p.PublicNetworkAccess, "Enabled")},
		{"properties.disableLocalAuth", p.DisableLocalAuth},
		{"properties.disableDeviceSAS", p.DisableDeviceSAS},
		{"properties.disableModuleSAS", p.DisableModuleSAS},
		{"properties.enableDataResidency", p.EnableDataResidency},
		{"properties.minTlsVersion", p.MinTLSVersion != "" && p.MinTLSVersion != "1.2"}, // less than 1.2 is never accepted
	} {
		if s.set {
			return &tandem.Error{Op: "set " + s.name, Kind: tandem.Unsupported,
				Hint: "leave it out or at its default: this version of Tandem does not have it yet"}
		}
	}
	return nil
}

func (in *hubInput) events() (days, partitions int) {
	e := in.Properties.EventHubEndpoints["events"]
	return e.RetentionTimeInDays, e.PartitionCount
}

// routingIsDefault reports whether everything goes to the built-in endpoint.
func (in *hubInput) routingIsDefault() bool {
	r := in.Properties.Routing
	if r == nil {
		return true
	}
	for _, endpoints := range r.Endpoints {
		if len(endpoints) > 0 {
			return false
		}
	}
	f := r.FallbackRoute
	return len(r.Routes) == 0 && len(r.Enrichments) == 0 &&
		(f == nil || f.IsEnabled && (f.Condition == "" || strings.EqualFold(f.Condition, "true")))
}

// same reports whether raw, laid over the default, changes nothing; what is left out is the default.
func same[T comparable](raw json.RawMessage, standard T) bool {
	now := standard
	return len(raw) == 0 || json.Unmarshal(raw, &now) == nil && now == standard
}

// apply sets on h what the body names; the rest stays (specs/wire-facts.md §13).
func (in *hubInput) apply(h *catalog.Hub) {
	if in.Tags != nil {
		h.Tags = *in.Tags
	}
	if in.SKU != nil {
		h.SKU = catalog.SKU{Name: strings.ToUpper(in.SKU.Name), Capacity: in.SKU.Capacity}
	}
	if days, _ := in.events(); days != 0 {
		h.RetentionDays = days
	}
	if mode := in.Properties.Tandem.Replication; mode != "" {
		h.Replication = mode
	}
	if policy := in.Properties.Tandem.PlatformFailover; policy != "" {
		h.PlatformFailover = policy
	}
	if in.Properties.AuthorizationPolicies == nil {
		return
	}
	policies := make([]catalog.Policy, 0, len(*in.Properties.AuthorizationPolicies))
	for _, p := range *in.Properties.AuthorizationPolicies {
		old, _ := h.Policy(p.KeyName)
		policy := catalog.Policy{Name: p.KeyName, Primary: p.PrimaryKey, Secondary: p.SecondaryKey, Rights: p.Rights}
		if policy.Primary == "" {
			policy.Primary = old.Primary
		}
		if policy.Secondary == "" {
			policy.Secondary = old.Secondary
		}
		policies = append(policies, policy)
	}
	h.Policies = policies
}
