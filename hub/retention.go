package hub

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"time"

	"tandem"
	"tandem/pairlog"
)

// Telemetry that is older than the hub's retention goes in three steps: the holder writes TRIM, both regions fold it, and
// each trims its own log once a complete snapshot of its own covers what goes.

// trimming is what the holder remembers of it; maintain's goroutine only.
type trimming struct {
	wall time.Time     // at boot
	boot time.Duration // the same moment
	last time.Duration // Clock.Boot of the last TRIM

	peer, acked uint64        // the peer's newest snapshot and the end of its copy, when last heard of
	moved       time.Duration // Clock.Boot when one of them last grew
	heard       time.Duration // Clock.Boot of the peer's last answer
	left        bool          // the peer needs a reseed
	obeyed      uint64
}

func (t *trimming) start(r *Replica) {
	t.wall, t.boot = r.o.Clock.Now(), r.o.Clock.Boot()
	t.last = t.boot - r.o.Upkeep.TrimEvery
	t.moved, t.heard = t.boot, t.boot
}

// now is the time as far as it has passed in this life: a clock that is set forward makes nothing old at once.
func (t *trimming) now(c tandem.Clock) time.Time {
	passed := t.wall.Add(c.Boot() - t.boot)
	if now := c.Now(); now.Before(passed) {
		return now
	}
	return passed
}

// askTrim has the writer append TRIM when there is something that may go.
func (r *Replica) askTrim(ctx context.Context, w *writer) {
	t, u := &r.keep.trim, &r.o.Upkeep
	now := r.o.Clock.Boot()
	if now-t.last < u.TrimEvery {
		return
	}
	from, err := r.view.FindTime(t.now(r.o.Clock).Add(-r.o.Retention))
	if err != nil || from == 0 {
		return
	}
	f := trimFacts{expired: from - 1, trimmed: r.trimmed(), alone: r.o.Peer == "", hold: noHold}
	if f.expired <= f.trimmed {
		return
	}
	if held := r.offer.held(now); held > 0 {
		f.hold = held
	}
	acked, _, known := w.log.PeerAcked()
	for _, s := range r.view.Snapshots() {
		if !inChain(w.pen.Forks, s.Fork) {
			continue
		}
		f.newest = max(f.newest, s.Fork.Number)
		if known && s.Fork.Number <= acked {
			f.covered = max(f.covered, s.Fork.Number)
		}
	}
	if !f.alone {
		r.lookAtPeer(ctx, w, acked)
		f.peer = t.peer
		f.waiting, f.dark = now-t.moved, now-t.heard > min(time.Minute, u.HoldFor)
		r.measureHold(ctx, &f)
	}
	upTo, left := u.nextTrim(f)
	if upTo <= r.log.Begins().Number { // also what a reseed left out is there no more
		return
	}
	hash, err := r.hashOf(ctx, upTo)
	if err != nil {
		r.o.Logger.Warn("log not trimmed", "hub", r.o.Info.Name, "error", err)
		return
	}
	if left && !t.left {
		r.o.Logger.Error("peer is left behind and needs a reseed", "hub", r.o.Info.Name, "peer", r.o.Peer, "number", upTo)
		r.o.Notify.Send(PeerLeftBehind{Hub: r.o.Info.Name, Region: r.o.Region, Peer: r.o.Peer, Number: upTo})
	}
	t.left = left
	select {
	case w.trims <- pairlog.Trim{Number: upTo, Hash: hash}:
		t.last = now
	default: // the one before waits yet
	}
}

// lookAtPeer asks the peer for its newest snapshot and notes whether it gets on.
func (r *Replica) lookAtPeer(ctx context.Context, w *writer, acked uint64) {
	t := &r.keep.trim
	now := r.o.Clock.Boot()
	answer, err := r.askSnapshots(ctx)
	newest := uint64(0)
	if err == nil {
		t.heard = now
		for _, s := range answer.Snapshots {
			if inChain(w.pen.Forks, s.Fork) {
				newest = max(newest, s.Fork.Number)
			}
		}
	} else {
		newest = t.peer
	}
	if newest > t.peer || acked > t.acked {
		t.moved = now
	}
	t.peer, t.acked = newest, acked
}

// measureHold tells which share of the disk is kept only for the peer.
func (r *Replica) measureHold(ctx context.Context, f *trimFacts) {
	space := r.o.Store.Space()
	if space.Total <= 0 {
		return
	}
	f.used = 1 - float64(space.Free)/float64(space.Total)
	from, to := max(min(f.covered, f.peer), r.log.Begins().Number), min(f.expired, f.newest)
	if from >= to {
		return
	}
	first, err := r.byteAfter(ctx, from)
	if err != nil {
		return
	}
	last, err := r.byteAfter(ctx, to)
	if err != nil {
		return
	}
	f.kept = float64(last-first) / float64(space.Total)
}

// byteAfter is the byte of the whole log at which the record after number begins.
func (r *Replica) byteAfter(ctx context.Context, number uint64) (at uint64, err error) {
	err = errNoRecord
	_, failed := r.log.Read(ctx, number, 1, func(rec pairlog.Record) error {
		at, err = rec.Header.FirstByte, nil
		return nil
	})
	return at, errors.Join(err, failed)
}

// hashOf is the hash of a record of the log.
func (r *Replica) hashOf(ctx context.Context, number uint64) (hash pairlog.Hash, err error) {
	err = errNoRecord
	_, failed := r.log.Read(ctx, number-1, 1, func(rec pairlog.Record) error {
		hash, err = rec.Header.Hash, nil
		return nil
	})
	return hash, errors.Join(err, failed)
}

var errNoRecord = &tandem.Error{Op: "read a record", Kind: tandem.NotFound}

// trimmed is how far the newest folded TRIM goes.
func (r *Replica) trimmed() uint64 {
	_, trimmed := r.view.extent(func(*state) {})
	return trimmed
}

// trim appends a TRIM record. A disk that is too full even for that is no reason to stop.
func (w *writer) trim(ctx context.Context, t pairlog.Trim) error {
	data, err := json.Marshal(t)
	if err != nil {
		return err
	}
	w.batch.Reset()
	w.batch.Urgent = true
	w.batch.Add(pairlog.KindTrim, data)
	if err := w.appendOwn(ctx); err != nil && !errors.Is(err, pairlog.ErrFull) {
		return err
	}
	return nil
}

// obeyTrim removes what TRIM says, as far as a snapshot of this region covers it.
func (r *Replica) obeyTrim(ctx context.Context, pen pairlog.Pen) {
	upTo := uint64(0)
	for _, s := range r.view.Snapshots() {
		if inChain(pen.Forks, s.Fork) {
			upTo = max(upTo, s.Fork.Number)
		}
	}
	upTo = min(upTo, r.trimmed())
	if upTo <= r.keep.trim.obeyed || upTo <= r.log.Begins().Number || r.behind() {
		return
	}
	start := r.o.Clock.Boot()
	if err := r.trimInSteps(ctx, upTo); err != nil {
		if ctx.Err() == nil {
			r.o.Logger.Warn("log not trimmed", "hub", r.o.Info.Name, "error", err)
		}
		return
	}
	r.keep.trim.obeyed = upTo
	r.o.Logger.Debug("log trimmed", "hub", r.o.Info.Name, "number", upTo, "begins", r.log.Begins().Number,
		"took", r.o.Clock.Boot()-start)
}

// How much of the log goes at once: an engine does not append while it removes.
const (
	trimStep  = 32 << 20
	trimPause = 100 * time.Millisecond
)

// trimInSteps removes the log up to a record, and lets writes through in between.
func (r *Replica) trimInSteps(ctx context.Context, upTo uint64) error {
	from := r.log.Begins().Number
	step := upTo - from
	first, err := r.byteAfter(ctx, from)
	if last, failed := r.byteAfter(ctx, upTo); err == nil && failed == nil && last > first+trimStep {
		step = max(1, uint64(float64(step)*trimStep/float64(last-first)))
	}
	for from < upTo {
		from = min(from+step, upTo)
		if err := r.log.Trim(ctx, from); err != nil || from == upTo {
			return err
		}
		select {
		case <-r.o.Clock.After(trimPause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// tailsName is the file that says since when tails are known here.
const tailsName = "tails.json"

// tailSeen is when a tail was found: by this region's clock and by the log's. Both must pass, so that one clock set
// forward costs no tail.
type tailSeen struct {
	Clock time.Time `json:"clock"`
	Log   time.Time `json:"log"`
}

// dropTails removes tails whose time is over.
func (r *Replica) dropTails(ctx context.Context, epoch tandem.Epoch) {
	u, now := &r.o.Upkeep, r.o.Clock.Boot()
	if epoch == r.keep.tailsIn && now-r.keep.tails < min(u.TailsFor/10, time.Minute) {
		return
	}
	r.keep.tails, r.keep.tailsIn = now, epoch
	if err := r.dropOldTails(ctx); err != nil && ctx.Err() == nil {
		r.o.Logger.Warn("tails not looked after", "hub", r.o.Info.Name, "error", err)
	}
}

func (r *Replica) dropOldTails(ctx context.Context) error {
	tails, err := r.log.Tails(ctx)
	if err != nil {
		return err
	}
	name := filepath.Join(r.view.o.Dir, tailsName)
	old := make(map[tandem.Epoch]tailSeen)
	data, err := os.ReadFile(name)
	if err == nil {
		err = json.Unmarshal(data, &old)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) { // then their time begins anew
		r.o.Logger.Warn("times of tails not read", "hub", r.o.Info.Name, "error", err)
	}
	clock, log := r.o.Clock.Now(), r.view.AppliedTime()
	seen, changed := make(map[tandem.Epoch]tailSeen), false
	for _, t := range tails {
		since, known := old[t.Epoch]
		if !known {
			since, changed = tailSeen{clock, log}, true
		}
		seen[t.Epoch] = since
		if clock.Sub(since.Clock) < r.o.Upkeep.TailsFor || log.Sub(since.Log) < r.o.Upkeep.TailsFor {
			continue
		}
		switch err := r.log.DropTail(ctx, t.Epoch); {
		case err == nil:
			r.o.Logger.Info("tail dropped", "hub", r.o.Info.Name, "epoch", t.Epoch, "records", t.Records)
			delete(seen, t.Epoch)
			changed = true
		case tandem.KindOf(err) != tandem.Conflict: // else its segment goes with TRIM first
			return err
		}
	}
	if !changed && len(seen) == len(old) {
		return nil
	}
	if data, err = json.Marshal(seen); err != nil {
		return err
	}
	return replaceSynced(name, data)
}

// replaceSynced writes a small file so that a crash leaves the old one or the new one.
func replaceSynced(name string, data []byte) error {
	err := writeSynced(name+".new", data)
	if err == nil {
		err = os.Rename(name+".new", name)
	}
	return errors.Join(err, syncDir(filepath.Dir(name)))
}
