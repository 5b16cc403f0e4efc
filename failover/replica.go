package failover

import (
	"context"

	"tandem"
	"tandem/pairlog"
)

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
	FollowPen(ctx context.Context, pen pairlog.Pen) error
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

// A Chained is a Replica that tells the chain of its log, oldest branch first.
type Chained interface {
	Branches() []pairlog.Branch
}

// Replicas finds the replica of a hub on this node; false while it is not open here.
type Replicas interface {
	Replica(hub tandem.HubID) (Replica, bool)
}
