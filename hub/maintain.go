package hub

import (
	"context"
	"time"
)

// The times of upkeep.
const (
	upkeepEvery   = 2 * time.Second
	snapshotEvery = 5 * time.Minute
)

// maintain takes snapshots, so that a rollback and a restart are short, and clears revocations that are superfluous.
func (r *Replica) maintain(ctx context.Context) {
	tick := time.NewTicker(upkeepEvery)
	defer tick.Stop()
	last := r.o.Clock.Boot()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		r.mu.Lock()
		w := r.writer
		r.mu.Unlock()
		if w != nil {
			if err := r.forgetRevocations(ctx, w); err != nil && ctx.Err() == nil {
				r.o.Logger.Debug("revocations not cleared", "hub", r.o.Info.Name, "error", err)
			}
		}
		if now := r.o.Clock.Boot(); now-last >= snapshotEvery {
			last = now
			r.snapshot(ctx)
		}
	}
}

func (r *Replica) snapshot(ctx context.Context) {
	if r.view.Applied().Number <= r.newestSnapshot() {
		return
	}
	if _, err := r.view.Snapshot(ctx); err != nil && ctx.Err() == nil {
		r.o.Logger.Error("snapshot failed", "hub", r.o.Info.Name, "error", err)
	}
}
