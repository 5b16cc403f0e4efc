package region

import (
	"context"

	"tandem"
	"tandem/failover"
	"tandem/hub"
)

// driven is a replica in the words of package failover, which does not know what a hub's commands are.
type driven struct{ *hub.Replica }

func (d driven) Facts() failover.ReplicaFacts {
	f := d.Replica.Facts()
	return failover.ReplicaFacts{
		Region: f.Region, Role: failover.Role(f.Role), Epoch: f.Epoch, End: f.End, Applied: f.Applied, Lag: f.Lag, ViewLag: f.ViewLag,
		PeerAcked: f.PeerAcked, PeerAckAge: f.PeerAckAge, PeerKnown: f.PeerKnown, Sessions: f.Sessions,
		Damaged: f.Damaged, NeedsReseed: f.NeedsReseed, NoRoom: f.NoRoom,
		Root: f.RootCheck.Got, RootNumber: f.RootCheck.Number, RootDiffers: !f.RootCheck.Equal(),
	}
}

func (d driven) Close(ctx context.Context, epoch tandem.Epoch, successor tandem.RegionName) (failover.ClosedAt, error) {
	at, err := d.Replica.Close(ctx, epoch, successor)
	return failover.ClosedAt(at), err
}

func (d driven) Reach(ctx context.Context, at failover.ClosedAt) error {
	return d.Replica.Reach(ctx, hub.ClosedAt(at))
}

func (d driven) TailItems(ctx context.Context, epoch tandem.Epoch, fn func(failover.TailItem) error) error {
	return d.Replica.TailItems(ctx, epoch, func(item hub.TailItem) error { return fn(failover.TailItem(item)) })
}

// Replica has Lead, Fetch and the rest in these words already.
var (
	_ failover.Replica = driven{}
	_ failover.Fetcher = driven{}
	_ failover.Chained = driven{}
)
