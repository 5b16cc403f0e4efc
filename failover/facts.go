package failover

import (
	"time"

	"tandem"
	"tandem/pairlog"
)

// A Role is what a region is for a hub at the moment.
type Role string

// The roles.
const (
	RoleFollower Role = "follower"
	RoleHolder   Role = "holder"
	RoleClosed   Role = "closed" // CLOSE is written, the successor is awaited
	RoleFenced   Role = "fenced" // neither: waits for a decision
)

// ReplicaFacts is a cheap snapshot of one region's part of one hub.
type ReplicaFacts struct {
	Region      tandem.RegionName `json:"region"`
	Role        Role              `json:"role"`
	Epoch       tandem.Epoch      `json:"epoch"`   // of the newest PEN record here
	End         pairlog.Fork      `json:"end"`     // last durable verified record of the chain here
	Applied     pairlog.Fork      `json:"applied"` // what the view has folded
	Lag         pairlog.Lag       `json:"lag"`     // of the copy, behind the holder
	ViewLag     uint64            `json:"view_lag"`
	PeerAcked   uint64            `json:"peer_acked"` // holder: how far the peer's copy is
	PeerAckAge  time.Duration     `json:"peer_ack_age"`
	PeerKnown   bool              `json:"peer_known"`
	Sessions    int               `json:"sessions"` // device connections that this region's doors have
	Damaged     string            `json:"damaged,omitempty"`
	NeedsReseed bool              `json:"needs_reseed,omitempty"`
	NoRoom      bool              `json:"no_room,omitempty"` // its disk is so full that an epoch begun now might not be answered
	// Root is the view's own state root at the record RootNumber, the newest in which a holder logged its own; 0 when there
	// was none since the view was opened. RootDiffers: the two were not equal.
	Root        pairlog.Hash `json:"root"`
	RootNumber  uint64       `json:"root_number"`
	RootDiffers bool         `json:"root_differs,omitempty"`
}

// ClosedAt is where and in which state an epoch was closed.
type ClosedAt struct {
	Fork pairlog.Fork `json:"fork"`
	Root pairlog.Hash `json:"root"`
}

// A TailItem is one stranded entry.
type TailItem struct {
	Position  pairlog.Position `json:"position"`
	Kind      string           `json:"kind"`
	Device    tandem.DeviceID  `json:"device,omitempty"`
	Partition int              `json:"partition"`
	Number    int64            `json:"number,omitempty"` // event number, for telemetry
	MessageID string           `json:"message_id,omitempty"`
	Time      time.Time        `json:"time"`
	Bytes     int              `json:"bytes"`
}
