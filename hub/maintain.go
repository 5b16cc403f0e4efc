package hub

import (
	"context"
	"sync"
	"time"

	"tandem"
	"tandem/pairlog"
)

// upkeep is what maintain remembers. Only its own goroutine touches what is not guarded.
type upkeep struct {
	mu   sync.Mutex
	grew growth // since the newest snapshot, or since the process began

	snapped  time.Duration // Clock.Boot of the newest snapshot; of the beginning when it is older
	notAgain time.Duration // Clock.Boot before which a snapshot that failed is not tried again
	trim     trimming
	tails    time.Duration // Clock.Boot of the last look at the tails
	tailsIn  tandem.Epoch  // under which pen they were looked at last: a move leaves new ones
}

// apply folds a record and counts what it changed.
func (r *Replica) apply(rec *pairlog.Record) error {
	if err := r.view.Apply(rec); err != nil {
		return err
	}
	state, changed := int64(0), false
	for _, e := range rec.Entries() {
		switch e.Kind {
		case KindTelemetry:
			changed = true
		case pairlog.KindHeartbeat, pairlog.KindTrim, KindRoot:
		default:
			changed, state = true, state+int64(len(e.Data))
		}
	}
	r.keep.mu.Lock()
	defer r.keep.mu.Unlock()
	g := &r.keep.grew
	g.records++
	g.state += state
	g.log += int64(len(rec.Bytes))
	g.changed = g.changed || changed
	return nil
}

// maintain takes snapshots, so that a rollback and a restart are short, drops superfluous ones, trims the log, and clears
// revocations and tails whose time is over.
func (r *Replica) maintain(ctx context.Context) {
	tick := time.NewTicker(r.o.Upkeep.Every)
	defer tick.Stop()
	r.keep.snapped = r.o.Clock.Boot()
	r.keep.tails = r.keep.snapped - r.o.Upkeep.TailsFor
	r.keep.trim.start(r)
	if at := r.view.Applied().Number; at > r.newestSnapshot() {
		r.keep.mu.Lock()
		r.keep.grew.records, r.keep.grew.changed = r.keep.grew.records+1, true
		r.keep.mu.Unlock()
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		r.mu.Lock()
		w, role, pen := r.writer, r.role, r.pen
		r.mu.Unlock()
		if w != nil {
			if err := r.forgetRevocations(ctx, w); err != nil && ctx.Err() == nil {
				r.o.Logger.Debug("revocations not cleared", "hub", r.o.Info.Name, "error", err)
			}
		}
		if role != RoleHolder && role != RoleFollower { // what is the chain is open
			continue
		}
		r.snapshot(ctx)
		r.dropSnapshots(w, pen)
		if w != nil {
			r.askTrim(ctx, w)
		}
		r.obeyTrim(ctx, pen)
		r.dropTails(ctx, pen.Epoch)
		r.forgetReseed()
	}
}

// snapshot takes one when it is due.
func (r *Replica) snapshot(ctx context.Context) {
	now := r.o.Clock.Boot()
	r.keep.mu.Lock()
	g := r.keep.grew
	r.keep.mu.Unlock()
	wanted := r.offer.snapshotWanted()
	if !wanted && !r.o.Upkeep.snapshotDue(g, r.newestSnapshot() > 0, now-r.keep.snapped) || now < r.keep.notAgain || r.behind() {
		return
	}
	info, err := r.view.Snapshot(ctx)
	if err != nil {
		r.keep.notAgain = now + max(r.o.Upkeep.Every, r.o.Upkeep.SnapshotEvery/10)
		if ctx.Err() == nil {
			r.o.Logger.Error("snapshot failed", "hub", r.o.Info.Name, "error", err)
		}
		return
	}
	r.keep.snapped = now
	r.keep.mu.Lock()
	left := &r.keep.grew
	left.records, left.state, left.log = left.records-g.records, left.state-g.state, left.log-g.log
	left.changed = left.changed && left.records > 0
	r.keep.mu.Unlock()
	r.o.Logger.Debug("snapshot taken", "hub", r.o.Info.Name, "number", info.Fork.Number, "bytes", info.Bytes,
		"took", r.o.Clock.Boot()-now)
}

// dropSnapshots removes those that nothing needs.
func (r *Replica) dropSnapshots(w *writer, pen pairlog.Pen) {
	acked, known := uint64(noHold), true // what a follower has came from the holder
	if w != nil && r.o.Peer != "" {
		acked, _, known = w.log.PeerAcked()
	}
	held := r.offer.held(r.o.Clock.Boot())
	var kept []keptSnapshot
	for _, s := range r.view.Snapshots() {
		kept = append(kept, keptSnapshot{s.Fork.Number, inChain(pen.Forks, s.Fork), s.Fork.Number == held})
	}
	for _, s := range superfluous(kept, acked, known, r.log.Begins().Number) {
		if err := r.view.DropSnapshot(s.number); err != nil {
			r.o.Logger.Warn("snapshot not dropped", "hub", r.o.Info.Name, "number", s.number, "error", err)
		}
	}
}
