package pairlog

import (
	"time"

	"tandem"
)

// A PenState tells how far a claim has come.
type PenState string

// The states of a pen.
const (
	PenClaimed PenState = "claimed" // won in the directory; nobody was answered yet; the source may still take the next epoch
	PenOpen    PenState = "open"    // may answer
)

// A Pen is the right to append to a hub's log in one epoch. It lives in the directory under pen/<hub> and is the first
// entry of its segment.
type Pen struct {
	Hub         tandem.HubID       `json:"hub"`
	Epoch       tandem.Epoch       `json:"epoch"`
	Region      tandem.RegionName  `json:"region"`
	Node        tandem.NodeName    `json:"node"`
	Incarnation tandem.Incarnation `json:"incarnation"`
	State       PenState           `json:"state"`
	// Fork is the record after which this epoch goes on.
	Fork Fork `json:"fork"`
	// Forced is set when the older segment may hold more than the fork: nobody saw its end. Numbers that must never be
	// reused (event numbers, twin versions) jump.
	Forced bool `json:"forced,omitempty"`
	// Forks are all forks of the chain, oldest first, this epoch's included, so that a reader can clip every segment
	// that still holds records. Entries of wholly trimmed segments may be dropped.
	Forks []Branch `json:"forks,omitempty"`
	// Time of the claim, for people.
	Time time.Time `json:"time"`
}

// A Branch is one epoch of a chain: who held it and where it goes on from.
type Branch struct {
	Epoch  tandem.Epoch      `json:"epoch"`
	Holder tandem.RegionName `json:"holder"`
	Forced bool              `json:"forced,omitempty"`
	Fork   Fork              `json:"fork"`
}

// Close is the last entry of an epoch that ended in order.
type Close struct {
	// Root is the view's state root at this record.
	Root Hash `json:"root"`
	// Successor is the region that is meant to go on; the directory decides.
	Successor tandem.RegionName `json:"successor,omitempty"`
}

// Trim tells both regions that records up to and including Number may go.
type Trim struct {
	Number uint64 `json:"number"`
	Hash   Hash   `json:"hash"` // of that record: what the next one's chain starts from
}
