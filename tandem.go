// Package tandem holds the words every other package speaks: names, epochs, the error type, notices and the clock.
//
// It imports only the standard library and nothing of Tandem. A type is here when two storeys of the tree need it
// and neither owns it.
package tandem

import (
	"strings"
	"time"
)

// A RegionName is a place that runs Tandem, normalised: lower case without spaces ("westus2").
// ParseRegion makes one; RegionName.Display gives the spelling people read ("West US 2").
type RegionName string

// ParseRegion normalises what a person or a client wrote: "West US 2", "westus2" and "WestUS2" are one region.
func ParseRegion(s string) RegionName {
	return RegionName(strings.ToLower(strings.Join(strings.Fields(s), "")))
}

// Display is the region's name for people: Azure's own spelling where there is one, else the name itself.
func (r RegionName) Display() string {
	if name, ok := displayNames[r]; ok {
		return name
	}
	return string(r)
}

// A Pair is two regions that cover each other. Order carries no meaning.
type Pair struct {
	A, B RegionName
}

// Other returns the partner of r in the pair, and false when r is not in it.
func (p Pair) Other(r RegionName) (RegionName, bool) {
	switch r {
	case p.A:
		return p.B, true
	case p.B:
		return p.A, true
	}
	return "", false
}

// A HubName is what people call a hub; compare names with Key, which folds case.
type HubName string

// Key is the name in the form under which it is unique: lower case.
func (n HubName) Key() HubName { return HubName(strings.ToLower(string(n))) }

// A HubID names a hub for ever, also after its name was given to another. Sixteen lower-case hexadecimal digits.
// Logs, streams and directory keys carry it, never the name.
type HubID string

// A DeviceID is a device's name in its hub's identity registry; case-sensitive, at most 128 ASCII characters.
type DeviceID string

// An Epoch is the generation of a hub's pen. It rises each time the pen is claimed and is never used twice.
type Epoch uint64

// An Incarnation is one life of one node's process: it changes whenever the process starts. Twenty-six characters.
type Incarnation string

// A NodeName names one process of a region ("westus2-0").
type NodeName string

// Clock is time as an argument, so that sim can own it.
type Clock interface {
	// Now is the wall clock. It may step; use it for what people read and for record times.
	Now() time.Time
	// Boot is the time since an arbitrary point, going on while the machine is suspended (CLOCK_BOOTTIME).
	// Leases are counted with it.
	Boot() time.Duration
	// After delivers once after d of Boot time.
	After(d time.Duration) <-chan time.Time
}
