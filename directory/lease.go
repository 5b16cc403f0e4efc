package directory

import (
	"encoding/json"
	"errors"
	"time"

	"tandem"
)

// The lease's times. Node clocks may drift against each other by less than LeaseMargin per DefaultTTL.
const (
	// DefaultTTL is how long a renewal is good for, counted from before it was sent.
	DefaultTTL = 3 * time.Second
	// LeaseMargin is how much longer than the TTL a taker waits.
	LeaseMargin = 500 * time.Millisecond
)

// ErrFenced says that this incarnation may no longer act: it was fenced, or its lease lapsed. It is the cause with which
// a Term's context ends. Whether a new term can begin is what Holder.Renew answers: after a fence it never can.
var ErrFenced = &tandem.Error{Op: "hold the lease", Kind: tandem.Fenced}

// ErrAlive says that a lease was renewed since the taker looked, or that it has not looked long enough.
var ErrAlive = &tandem.Error{Op: "fence", Kind: tandem.Conflict, Err: errors.New("the lease has not lapsed")}

// A Lease is what a node proves its life with: an ordinary key per incarnation, rewritten every TTL/4.
type Lease struct {
	Incarnation tandem.Incarnation `json:"incarnation"`
	// Counter rises with each attempt to renew.
	Counter uint64 `json:"counter"`
	// Acked is, per hub whose pen the node has, how far the peer had acknowledged.
	Acked map[tandem.HubID]Acked `json:"acked,omitempty"`
}

// Acked is a position in a hub's log that the peer's copy had acknowledged, and how old that was at the renewal.
type Acked struct {
	Epoch  tandem.Epoch `json:"epoch"`
	Number uint64       `json:"number"`
	AgeMS  int64        `json:"age_ms"`
}

// A Fence is what FenceKey holds: who fenced the incarnation, and the lease's revision then (0: it was not compared).
type Fence struct {
	By    tandem.Incarnation `json:"by"`
	Lease Revision           `json:"lease,omitempty"`
}

// DecodeLease reads the value of a LeaseKey. Damaged when it is none.
func DecodeLease(item Item) (Lease, error) {
	var lease Lease
	if err := json.Unmarshal(item.Value, &lease); err != nil {
		return Lease{}, &tandem.Error{Op: "read a lease", Kind: tandem.Damaged, On: item.Key, Err: err}
	}
	return lease, nil
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // plain structs of numbers and strings
	}
	return b
}

// Sightings is what a taker knows of one lease from its own linearizable reads: since when it has looked without a gap
// and seen the same revision. Times are of the taker's Clock.Boot. The zero value has seen nothing.
type Sightings struct {
	Revision Revision      // 0: the lease does not exist
	Seen     bool          // at least one read was made
	First    time.Duration // when the first read of this unbroken row was answered
	Sent     time.Duration // when the last one was sent
	Last     time.Duration // when the last one was answered
}

// See adds a read that was sent and answered at these times. Another revision, or a gap of more than ttl/2 since the
// last read, begins a new row: a taker that slept, or was cut off, knows nothing about the time between.
func (s Sightings) See(revision Revision, sent, answered, ttl time.Duration) Sightings {
	if !s.Seen || revision != s.Revision || answered-s.Last > ttl/2 {
		return Sightings{Revision: revision, Seen: true, First: answered, Sent: sent, Last: answered}
	}
	s.Sent, s.Last = sent, answered
	return s
}

// Unchanged is how long the lease has certainly stood still: from the first read's answer to the last read's sending.
func (s Sightings) Unchanged() time.Duration { return max(0, s.Sent-s.First) }

// Lapsed reports whether the holder of this lease must have stopped, when asked at now.
func (s Sightings) Lapsed(now, ttl time.Duration) bool {
	return s.Seen && now-s.Last <= ttl/2 && s.Unchanged() >= ttl+LeaseMargin
}
