package catalog

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"tandem"
	"tandem/directory"
	"tandem/pairlog"
)

// A Hub is a hub as a resource: what operators see and set. Its contents are package hub's.
type Hub struct {
	ID           tandem.HubID   `json:"id"`
	Name         tandem.HubName `json:"name"`
	Subscription string         `json:"subscription"`
	Group        string         `json:"group"` // resource group, in its creator's spelling
	// Home is the region the hub was created in; it never changes. Pair holds it and its partner.
	Home        tandem.RegionName `json:"home"`
	Pair        tandem.Pair       `json:"pair"`
	Replication pairlog.Mode      `json:"replication"`
	// PlatformFailover says who may move the hub off a dark region without an operator; see the constants.
	PlatformFailover string            `json:"platformFailover"`
	Partitions       int               `json:"partitions"`    // event partitions, fixed for ever
	RetentionDays    int               `json:"retentionDays"` // of telemetry, 1 to 7
	SKU              SKU               `json:"sku"`
	Policies         []Policy          `json:"policies"`
	Created          time.Time         `json:"created"`
	Tags             map[string]string `json:"tags,omitempty"`
	// Etag is the directory's revision of the resource in Azure's form; it is filled in when the resource is read.
	Etag string `json:"-"`
}

// The values of Hub.PlatformFailover.
const (
	FailoverByOperator = "operator"  // only an operator moves the hub
	FailoverAutomatic  = "automatic" // the regions may move it when its region is dark; see package failover
)

// A SKU is a hub's tier and number of units.
type SKU struct {
	Name     string `json:"name"`
	Capacity int64  `json:"capacity"`
}

// Tier is the SKU's tier as ARM names it: Free, Basic or Standard.
func (s SKU) Tier() string {
	switch {
	case strings.HasPrefix(s.Name, "F"):
		return "Free"
	case strings.HasPrefix(s.Name, "B"):
		return "Basic"
	}
	return "Standard"
}

// maxUnits is how many units of each SKU a hub may have (specs/wire-facts.md §7).
var maxUnits = map[string]int64{"F1": 1, "B1": 200, "B2": 200, "B3": 10, "S1": 200, "S2": 200, "S3": 10}

// dailyMessages is how many messages a unit of each SKU may take a day (specs/wire-facts.md §7).
var dailyMessages = map[string]int64{
	"F1": 8_000, "B1": 400_000, "S1": 400_000, "B2": 6_000_000, "S2": 6_000_000, "B3": 300_000_000, "S3": 300_000_000,
}

// DailyMessages is the hub's quota of messages a day.
func (h Hub) DailyMessages() int64 { return dailyMessages[h.SKU.Name] * h.SKU.Capacity }

// Peer is the region that covers the hub's home.
func (h Hub) Peer() tandem.RegionName {
	peer, _ := h.Pair.Other(h.Home)
	return peer
}

// A Policy is a shared access policy: rights for whoever has one of its keys. Keys are base64 text, as people see them.
type Policy struct {
	Name      string `json:"name"`
	Primary   string `json:"primary"`
	Secondary string `json:"secondary"`
	Rights    string `json:"rights"` // as ARM writes them: "RegistryRead, ServiceConnect"
}

// Policy returns the policy with this name, whose case does not matter.
func (h Hub) Policy(name string) (Policy, bool) {
	for _, p := range h.Policies {
		if strings.EqualFold(p.Name, name) {
			return p, true
		}
	}
	return Policy{}, false
}

// defaultPolicies are a new hub's (specs/wire-facts.md §2); keys are generated.
var defaultPolicies = []Policy{
	{Name: "iothubowner", Rights: "RegistryRead, RegistryWrite, ServiceConnect, DeviceConnect"},
	{Name: "service", Rights: "ServiceConnect"},
	{Name: "device", Rights: "DeviceConnect"},
	{Name: "registryRead", Rights: "RegistryRead"},
	{Name: "registryReadWrite", Rights: "RegistryRead, RegistryWrite"},
}

var rightNames = []string{"RegistryRead", "RegistryWrite", "ServiceConnect", "DeviceConnect"}

// normalRights puts rights into ARM's order and spelling, and is empty when they are none.
func normalRights(s string) string {
	var has [4]bool
	for name := range strings.SplitSeq(s, ",") {
		i := slices.IndexFunc(rightNames, func(known string) bool { return strings.EqualFold(known, strings.TrimSpace(name)) })
		if i < 0 {
			return ""
		}
		has[i] = true
	}
	var names []string
	for i, name := range rightNames {
		if has[i] {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

func newKey(random io.Reader) (string, error) {
	var b [32]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", &tandem.Error{Op: "make a key", Kind: tandem.Internal, Err: err}
	}
	return base64.StdEncoding.EncodeToString(b[:]), nil
}

// fillKeys gives every policy the keys it lacks.
func fillKeys(policies []Policy, random io.Reader) error {
	for i := range policies {
		for _, key := range []*string{&policies[i].Primary, &policies[i].Secondary} {
			if *key != "" {
				continue
			}
			made, err := newKey(random)
			if err != nil {
				return err
			}
			*key = made
		}
	}
	return nil
}

var (
	hubName    = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9-]{1,48}[a-zA-Z0-9]$`)
	allDigits  = regexp.MustCompile(`^[0-9]+$`)
	groupName  = regexp.MustCompile(`^[\pL\pN_().-]{0,89}[\pL\pN_()-]$`)
	policyName = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,64}$`)
)

// CheckName returns an error of kind Invalid for a name that no hub may have (specs/wire-facts.md §13).
func CheckName(name tandem.HubName) error {
	if !hubName.MatchString(string(name)) || allDigits.MatchString(string(name)) || isLoopback(string(name.Key())) {
		return invalid(name, "a name has 3 to 50 letters, digits and hyphens, begins and ends with a letter or digit and is not a number")
	}
	return nil
}

// check is what holds for every resource that is stored.
func (h *Hub) check() error {
	if err := CheckName(h.Name); err != nil {
		return err
	}
	most, ok := maxUnits[h.SKU.Name]
	switch {
	case !groupName.MatchString(h.Group):
		return invalid(h.Name, "the resource group's name is not a valid one")
	case !ok:
		return invalid(h.Name, fmt.Sprintf("there is no SKU %q; use F1, B1, B2, B3, S1, S2 or S3", h.SKU.Name))
	case h.SKU.Capacity < 1 || h.SKU.Capacity > most:
		return invalid(h.Name, fmt.Sprintf("%s has 1 to %d units", h.SKU.Name, most))
	case h.Partitions < 2 || h.Partitions > 32:
		return invalid(h.Name, "a hub has 2 to 32 event partitions")
	case h.RetentionDays < 1 || h.RetentionDays > 7:
		return invalid(h.Name, "telemetry is kept for 1 to 7 days")
	case h.Replication != pairlog.Async && h.Replication != pairlog.SyncAvailable && h.Replication != pairlog.SyncStrict:
		return invalid(h.Name, fmt.Sprintf("there is no replication %q; use async, sync-available or sync-strict", h.Replication))
	case h.PlatformFailover != FailoverByOperator && h.PlatformFailover != FailoverAutomatic:
		return invalid(h.Name, fmt.Sprintf("there is no platformFailover %q; use operator or automatic", h.PlatformFailover))
	case len(h.Tags) > 50:
		return invalid(h.Name, "a resource has at most 50 tags")
	}
	for name, value := range h.Tags {
		if name == "" || len(name) > 512 || len(value) > 256 {
			return invalid(h.Name, "a tag's name has 1 to 512 characters and its value at most 256")
		}
	}
	return h.checkPolicies()
}

func (h *Hub) checkPolicies() error {
	if len(h.Policies) > 64 {
		return invalid(h.Name, "a hub has at most 64 policies")
	}
	for i := range h.Policies {
		p := &h.Policies[i]
		if !policyName.MatchString(p.Name) {
			return invalid(h.Name, fmt.Sprintf("%q is not a name for a policy", p.Name))
		}
		if p.Rights = normalRights(p.Rights); p.Rights == "" {
			return invalid(h.Name, fmt.Sprintf("policy %q has rights that do not exist", p.Name))
		}
		for _, text := range []string{p.Primary, p.Secondary} {
			if key, err := base64.StdEncoding.DecodeString(text); err != nil || len(key) < 16 || len(key) > 64 {
				return invalid(h.Name, fmt.Sprintf("a key of policy %q is not base64 of 16 to 64 bytes", p.Name))
			}
		}
		for _, other := range h.Policies[:i] {
			if strings.EqualFold(other.Name, p.Name) {
				return invalid(h.Name, fmt.Sprintf("policy %q is there twice", p.Name))
			}
		}
	}
	return nil
}

func invalid(name tandem.HubName, hint string) error {
	return &tandem.Error{Op: "check the hub", Kind: tandem.Invalid, On: string(name), Hint: hint}
}

// decodeHub reads a stored resource.
func decodeHub(item directory.Item) (Hub, error) {
	var h Hub
	if err := json.Unmarshal(item.Value, &h); err != nil {
		return Hub{}, &tandem.Error{Op: "read the hub's resource", Kind: tandem.Damaged, On: item.Key, Err: err}
	}
	if h.ID == "" || directory.HubKey(h.Name) != item.Key {
		return Hub{}, &tandem.Error{Op: "read the hub's resource", Kind: tandem.Damaged, On: item.Key}
	}
	h.Etag = etag(item.Revision)
	return h, nil
}

// etag has Azure's shape: base64 of an eight-byte counter, here the directory's, which never goes back.
func etag(r directory.Revision) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint64(nil, uint64(r)))
}
