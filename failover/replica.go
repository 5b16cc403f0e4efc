package failover

import (
	"context"
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
	Region      tandem.RegionName
	Role        Role
	Epoch       tandem.Epoch // of the newest PEN record here
	End         pairlog.Fork // last durable verified record of the chain here
	Applied     pairlog.Fork // what the view has folded
	Lag         pairlog.Lag  // of the copy, behind the holder
	ViewLag     time.Duration
	PeerAcked   uint64 // holder: how far the peer's copy is
	PeerAckAge  time.Duration
	PeerKnown   bool
	Sessions    int // device connections that this region's doors have
	Doors       int
	Verified    bool
	Damaged     string // empty: no damage found
	NeedsReseed bool
	Closed      *ClosedAt // the chain here ends with the CLOSE of Epoch; may be nil though it does
}

// ClosedAt is where and in which state an epoch was closed.
type ClosedAt struct {
	Fork pairlog.Fork
	Root pairlog.Hash
}

// A TailItem is one stranded entry.
type TailItem struct {
	Position pairlog.Position `json:"position"`
	Kind     string           `json:"kind"`
	Device   tandem.DeviceID  `json:"device,omitempty"`
	Number   int64            `json:"number,omitempty"` // event number, for telemetry
	Time     time.Time        `json:"time"`
	Bytes    int              `json:"bytes"`
}

// Replica is one region's part of one hub, as this package drives it. Every call may be made while others are under way;
// the controller makes those that change the role one after another.
type Replica interface {
	Facts() ReplicaFacts
	// Prepare makes the storage of the region's own next segment ahead of time.
	Prepare(ctx context.Context, epoch tandem.Epoch) error
	// Close holds commands, flushes and writes CLOSE; only for the holder of exactly this epoch. Again: the same answer.
	Close(ctx context.Context, epoch tandem.Epoch, successor tandem.RegionName) (ClosedAt, error)
	// Reach waits until copy and view are at at.Fork and compares the state root; kind Damaged when it differs.
	Reach(ctx context.Context, at ClosedAt) error
	// EndCopy durably ends what this region stores of epoch, copy or own segment of a former life, and returns the last
	// verified record of the chain here. Idempotent.
	EndCopy(ctx context.Context, epoch tandem.Epoch) (pairlog.Fork, error)
	// ResumeCopy lets an ended copy go on: the claim definitely failed.
	ResumeCopy(ctx context.Context, epoch tandem.Epoch) error
	// Lead writes the PEN record and takes commands once it returns, until term ends.
	Lead(ctx context.Context, pen pairlog.Pen, term context.Context, mode pairlog.Mode, valid func() bool) error
	// FollowPen: another region has the pen. Seals own older segments durably, then rolls back and follows by itself.
	FollowPen(pen pairlog.Pen) error
	// Fence stops answering at once.
	Fence()
	// Tails lists what this region holds of epochs beyond the forks that the chain took.
	Tails(ctx context.Context) ([]pairlog.Tail, error)
	// TailItems lists the entries of one tail, oldest first.
	TailItems(ctx context.Context, epoch tandem.Epoch, fn func(TailItem) error) error
}

// A Fetcher is a Replica that can bring records of its own pen back from the peer's copy, up to and including upTo.
type Fetcher interface {
	Fetch(ctx context.Context, upTo pairlog.Fork) error
}

// Replicas finds the replica of a hub on this node; false while it is not open here.
type Replicas interface {
	Replica(hub tandem.HubID) (Replica, bool)
}
