package arm

import (
	"fmt"
	"strings"

	"tandem"
	"tandem/catalog"
	"tandem/operation"
	"tandem/pairlog"
)

// The hub's body, named as in specs/arm-iothub-2023-06-30.json (IotHubDescription), with the two fields at its top that
// az needs although no specification has them (specs/wire-facts.md §13).
type (
	hubBody struct {
		ID             string            `json:"id"`
		Name           tandem.HubName    `json:"name"`
		Type           string            `json:"type"`
		Location       tandem.RegionName `json:"location"`
		Tags           map[string]string `json:"tags"`
		ResourceGroup  string            `json:"resourcegroup"`
		SubscriptionID string            `json:"subscriptionid"`
		Etag           string            `json:"etag"`
		Properties     hubProperties     `json:"properties"`
		SKU            skuBody           `json:"sku"`
	}
	hubProperties struct {
		Locations                     []locationBody             `json:"locations"`
		State                         string                     `json:"state"`
		ProvisioningState             string                     `json:"provisioningState"`
		IPFilterRules                 []struct{}                 `json:"ipFilterRules"`
		HostName                      string                     `json:"hostName"`
		EventHubEndpoints             map[string]eventsBody      `json:"eventHubEndpoints"`
		Routing                       routingBody                `json:"routing"`
		StorageEndpoints              map[string]storageBody     `json:"storageEndpoints"`
		MessagingEndpoints            map[string]deliverySetting `json:"messagingEndpoints"`
		EnableFileUploadNotifications bool                       `json:"enableFileUploadNotifications"`
		CloudToDevice                 cloudToDeviceBody          `json:"cloudToDevice"`
		Features                      string                     `json:"features"`
		DisableLocalAuth              bool                       `json:"disableLocalAuth"`
		EnableDataResidency           bool                       `json:"enableDataResidency"`
		Tandem                        tandemBody                 `json:"tandem"`
	}
	locationBody struct {
		Location string `json:"location"`
		Role     string `json:"role"`
	}
	skuBody struct {
		Name     string `json:"name"`
		Tier     string `json:"tier"`
		Capacity int64  `json:"capacity"`
	}
	eventsBody struct {
		RetentionTimeInDays int      `json:"retentionTimeInDays"`
		PartitionCount      int      `json:"partitionCount"`
		PartitionIDs        []string `json:"partitionIds"`
		Path                string   `json:"path"`
		Endpoint            string   `json:"endpoint"`
	}
	routingBody struct {
		Endpoints     map[string][]struct{} `json:"endpoints"`
		Routes        []struct{}            `json:"routes"`
		FallbackRoute fallbackBody          `json:"fallbackRoute"`
	}
	fallbackBody struct {
		Name          string   `json:"name"`
		Source        string   `json:"source"`
		Condition     string   `json:"condition"`
		EndpointNames []string `json:"endpointNames"`
		IsEnabled     bool     `json:"isEnabled"`
	}
	storageBody struct {
		SasTTL           string `json:"sasTtlAsIso8601"`
		ConnectionString string `json:"connectionString"`
		ContainerName    string `json:"containerName"`
	}
	deliverySetting struct {
		LockDuration     string `json:"lockDurationAsIso8601"`
		TTL              string `json:"ttlAsIso8601"`
		MaxDeliveryCount int    `json:"maxDeliveryCount"`
	}
	cloudToDeviceBody struct {
		MaxDeliveryCount int             `json:"maxDeliveryCount"`
		DefaultTTL       string          `json:"defaultTtlAsIso8601"`
		Feedback         deliverySetting `json:"feedback"`
	}
	// tandemBody is what a hub has beyond Azure's.
	tandemBody struct {
		ID               tandem.HubID        `json:"id"`
		Home             tandem.RegionName   `json:"home"`
		Holder           tandem.RegionName   `json:"holder,omitempty"`
		Epoch            tandem.Epoch        `json:"epoch,omitempty"`
		PenState         pairlog.PenState    `json:"penState,omitempty"`
		Replication      pairlog.Mode        `json:"replication"`
		PlatformFailover string              `json:"platformFailover"`
		InSync           []tandem.RegionName `json:"inSync"`
	}
	policyBody struct {
		KeyName      string `json:"keyName"`
		PrimaryKey   string `json:"primaryKey"`
		SecondaryKey string `json:"secondaryKey"`
		Rights       string `json:"rights"`
	}
)

// What a hub has as long as nobody can set anything else.
var (
	defaultDelivery      = deliverySetting{LockDuration: "PT1M", TTL: "PT1H", MaxDeliveryCount: 10}
	defaultCloudToDevice = cloudToDeviceBody{MaxDeliveryCount: 10, DefaultTTL: "PT1H", Feedback: defaultDelivery}
	defaultFallback      = fallbackBody{Name: "$fallback", Source: "DeviceMessages", Condition: "true",
		EndpointNames: []string{"events"}, IsEnabled: true}
)

// hubFacts is what a hub's body tells beyond its resource, as the directory has it.
type hubFacts struct {
	known   bool // the directory answered
	pen     pairlog.Pen
	inSync  pairlog.InSyncSet
	running *operation.Operation // that moves the hub
}

// state are the words of properties.state and properties.provisioningState.
func (f hubFacts) state() (state, provisioning string) {
	switch {
	case !f.known:
		return "Unknown", "Succeeded"
	case f.running != nil:
		return "FailingOver", "Succeeded"
	case f.pen.State == pairlog.PenOpen:
		return "Active", "Succeeded"
	case f.pen.Epoch > 1: // it was open before, and moves or starts
		return "Transitioning", "Succeeded"
	}
	return "Activating", "Activating"
}

func hubID(h catalog.Hub) string {
	return fmt.Sprintf("/subscriptions/%s/resourceGroups/%s/providers/Microsoft.Devices/IotHubs/%s", h.Subscription, h.Group, h.Name)
}

// newHubBody is the hub as clients read it. Its location follows the pen; the names of locations are the ones that
// people read, and clients send them back as a failover's target.
func newHubBody(h catalog.Hub, host string, f hubFacts) hubBody {
	primary := h.Home
	if f.pen.Region != "" {
		primary = f.pen.Region
	}
	locations := []locationBody{{primary.Display(), "primary"}}
	if secondary, ok := h.Pair.Other(primary); ok {
		locations = append(locations, locationBody{secondary.Display(), "secondary"})
	}
	state, provisioning := f.state()
	partitions := make([]string, h.Partitions)
	for i := range partitions {
		partitions[i] = fmt.Sprint(i)
	}
	tags := h.Tags
	if tags == nil {
		tags = map[string]string{}
	}
	inSync := f.inSync.Regions
	if inSync == nil {
		inSync = []tandem.RegionName{}
	}
	return hubBody{
		ID: hubID(h), Name: h.Name, Type: "Microsoft.Devices/IotHubs", Location: primary, Tags: tags,
		ResourceGroup: h.Group, SubscriptionID: h.Subscription, Etag: h.Etag,
		SKU: skuBody{h.SKU.Name, h.SKU.Tier(), h.SKU.Capacity},
		Properties: hubProperties{
			Locations: locations, State: state, ProvisioningState: provisioning, IPFilterRules: []struct{}{}, HostName: host,
			EventHubEndpoints: map[string]eventsBody{"events": {
				RetentionTimeInDays: h.RetentionDays, PartitionCount: h.Partitions, PartitionIDs: partitions,
				Path: strings.ToLower(string(h.Name)), Endpoint: "sb://" + host + "/",
			}},
			Routing: routingBody{
				Endpoints: map[string][]struct{}{"serviceBusQueues": {}, "serviceBusTopics": {}, "eventHubs": {}, "storageContainers": {}},
				Routes:    []struct{}{}, FallbackRoute: defaultFallback,
			},
			StorageEndpoints:   map[string]storageBody{"$default": {SasTTL: "PT1H"}},
			MessagingEndpoints: map[string]deliverySetting{"fileNotifications": defaultDelivery},
			CloudToDevice:      defaultCloudToDevice,
			Features:           "None",
			Tandem: tandemBody{ID: h.ID, Home: h.Home, Holder: f.pen.Region, Epoch: f.pen.Epoch, PenState: f.pen.State,
				Replication: h.Replication, PlatformFailover: h.PlatformFailover, InSync: inSync},
		},
	}
}

func newPolicyBody(p catalog.Policy) policyBody {
	return policyBody{KeyName: p.Name, PrimaryKey: p.Primary, SecondaryKey: p.Secondary, Rights: p.Rights}
}
