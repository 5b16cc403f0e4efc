package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"tandem"
	"tandem/pairlog"
)

// A region whose view can't go on from its log (the peer has trimmed what its copy lacks, or its view is lost and the log
// no longer reaches back) takes over the peer's newest snapshot, and copies the log from where the peer's begins. View
// and copy come apart: the view may be ahead of the copy for a while, which reseedName says.

const (
	reseedName   = "reseed.json"
	incomingName = "incoming" // holds one directory: the files of a snapshot on its way
)

// reseedMark says that the view was taken from a snapshot which the log here does not reach yet.
type reseedMark struct {
	View pairlog.Fork `json:"view"`
	Log  pairlog.Fork `json:"log"` // where the log begins then; number 0: as it is
}

// needReseed notes that the view can't go on from the log.
func (r *Replica) needReseed() {
	r.mu.Lock()
	r.reseed = true
	r.mu.Unlock()
	select {
	case r.reseeds <- struct{}{}:
	default:
	}
}

// behind tells whether this region waits for a reseed.
func (r *Replica) behind() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reseed
}

// waitReseeded returns when no reseed is needed any more; false when ctx ended before.
func (r *Replica) waitReseeded(ctx context.Context) bool {
	for {
		changed := r.folded.wait()
		if !r.behind() {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// restoreView puts in order at boot what a crash or damage left of the view: it goes on from a snapshot of this region,
// or from where a reseed was broken off, or needs a reseed.
func (r *Replica) restoreView(ctx context.Context) error {
	r.mark = r.readMark()
	if r.mark != nil && r.view.Applied() == r.mark.View && r.log.End().Number < r.mark.View.Number {
		if r.mark.Log.Number > 0 {
			return r.log.Reseed(ctx, r.mark.Log)
		}
		return nil
	}
	at, begins, end := r.view.Applied(), r.log.Begins(), r.log.End()
	if at.Number > 0 && at.Number >= begins.Number {
		return nil
	}
	branches := r.log.Branches()
	usable := func(f pairlog.Fork) bool {
		return f.Number >= max(begins.Number, 1) && f.Number <= end.Number && inChain(branches, f)
	}
	if slices.ContainsFunc(r.view.Snapshots(), func(s SnapshotInfo) bool { return usable(s.Fork) }) {
		r.o.Logger.Warn("view goes on from a snapshot", "hub", r.o.Info.Name, "lost_at", at.Number)
		if err := r.view.Rollback(ctx, end, usable); err != nil {
			return err
		}
	}
	if r.view.Applied().Number < begins.Number {
		r.o.Logger.Error("view is behind the log and needs a reseed", "hub", r.o.Info.Name, "view", at.Number,
			"log_begins", begins.Number)
		r.needReseed()
	}
	return nil
}

func (r *Replica) markName() string { return filepath.Join(r.view.o.Dir, reseedName) }

// readMark reads the mark of a reseed under way; without it the log is only copied anew.
func (r *Replica) readMark() *reseedMark {
	data, err := os.ReadFile(r.markName())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var mark reseedMark
	if err == nil {
		err = json.Unmarshal(data, &mark)
	}
	if err != nil {
		r.o.Logger.Warn("mark of a reseed not read", "hub", r.o.Info.Name, "error", err)
		return nil
	}
	return &mark
}

// forgetReseed removes the mark once the log has reached the view, and what was fetched in vain; then sessions are
// compared with the devices, since what a snapshot brought was told to nobody.
func (r *Replica) forgetReseed() {
	r.mu.Lock()
	mark, reseed := r.mark, r.reseed
	r.mu.Unlock()
	if mark == nil || reseed || r.log.End().Number < mark.View.Number || r.view.Applied().Number < r.log.End().Number {
		return
	}
	if err := errors.Join(os.Remove(r.markName()), os.RemoveAll(filepath.Join(r.view.o.Dir, incomingName))); err != nil {
		r.o.Logger.Warn("reseed not cleared away", "hub", r.o.Info.Name, "error", err)
	}
	r.mu.Lock()
	r.mark = nil
	r.mu.Unlock()
	r.door.compareSessions()
}

// compareSessions drops the sessions whose devices may no longer use them.
func (d *Door) compareSessions() {
	d.sessions.mu.Lock()
	ids := make([]tandem.DeviceID, 0, len(d.sessions.open))
	for id := range d.sessions.open {
		ids = append(ids, id)
	}
	d.sessions.mu.Unlock()
	for _, id := range ids {
		switch device, err := d.replica.view.Device(id); {
		case err == nil:
			d.deviceChanged(id, &device)
		case errors.Is(err, ErrDeviceNotFound):
			d.deviceChanged(id, nil)
		}
	}
}

// jump lets the log begin where the view is, when the view came from a snapshot that the copy has not reached: whoever
// takes the pen now goes on from the newest state there is, and the log in between is a gap.
func (r *Replica) jump(ctx context.Context) error {
	r.mu.Lock()
	mark, reseed := r.mark, r.reseed
	r.mu.Unlock()
	if mark == nil || reseed || r.view.Applied() != mark.View || r.log.End().Number >= mark.View.Number {
		return nil
	}
	r.o.Logger.Warn("log begins anew where the view is", "hub", r.o.Info.Name, "from", r.log.End().Number, "to", mark.View.Number)
	return r.log.Reseed(ctx, mark.View)
}

// reseedWhenNeeded takes over the peer's state whenever this region's can't go on, until ctx ends.
func (r *Replica) reseedWhenNeeded(ctx context.Context, pen pairlog.Pen) {
	pause := time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.reseeds:
		case <-time.After(max(pause, time.Second)):
		}
		if !r.behind() {
			pause = 0
			continue
		}
		err := r.reseedView(ctx, pen)
		if err == nil || ctx.Err() != nil {
			pause = 0
			continue
		}
		pause = min(max(2*pause, time.Second), 10*time.Second)
		r.o.Logger.Warn("reseed failed and is tried again", "hub", r.o.Info.Name, "error", err)
	}
}

// reseedView takes over the peer's state. What was fetched already is not fetched again.
func (r *Replica) reseedView(ctx context.Context, pen pairlog.Pen) error {
	began := r.o.Clock.Boot()
	begins, err := r.peerBegins(ctx)
	if err != nil {
		return err
	}
	at, from := r.view.Applied(), r.neededFrom(begins)
	rollback := at.Number < max(from, 1) || !inChain(pen.Forks, at)
	if rollback {
		snap, ok := r.snapshotFrom(pen, from)
		if !ok {
			if snap, err = r.fetchSnapshot(ctx, from); err != nil {
				return err
			}
		}
		at = snap.Fork
		if begins, err = r.peerBegins(ctx); err != nil { // it may have been trimmed meanwhile
			return err
		}
		if !inChain(pen.Forks, at) || at.Number < r.neededFrom(begins) {
			return &tandem.Error{Op: "reseed from the peer", Kind: tandem.Unavailable, On: string(r.o.Info.Name),
				Err: fmt.Errorf("the snapshot at record %d is too old", at.Number)}
		}
	}
	if err := r.takeOver(ctx, at, begins, rollback); err != nil {
		return err
	}
	r.mu.Lock()
	r.reseed = false
	r.mu.Unlock()
	r.folded.notify()
	took := r.o.Clock.Boot() - began
	r.o.Logger.Info("reseeded", "hub", r.o.Info.Name, "view", at.Number, "log", r.log.Begins().Number, "took", took)
	r.o.Notify.Send(Reseeded{Hub: r.o.Info.Name, Region: r.o.Region, Number: at.Number, Took: took})
	return nil
}

func (r *Replica) peerBegins(ctx context.Context) (pairlog.Fork, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	peer, err := r.log.Peer(ctx)
	return peer.Begins, err
}

// neededFrom is the record from which on this region has, or can copy, the log.
func (r *Replica) neededFrom(begins pairlog.Fork) uint64 {
	if begins.Number > r.log.End().Number {
		return begins.Number
	}
	return r.log.Begins().Number
}

// takeOver makes a snapshot the view and begins the log anew where it has to. A crash in between is put in order by
// restoreView or by another reseed.
func (r *Replica) takeOver(ctx context.Context, at, begins pairlog.Fork, rollback bool) error {
	r.viewMu.Lock()
	defer r.viewMu.Unlock()
	var mark *reseedMark
	end := r.log.End().Number
	anew := begins.Number > end
	if anew || at.Number > end {
		mark = &reseedMark{View: at}
		if anew {
			mark.Log = begins
		}
		data, err := json.Marshal(mark)
		if err != nil {
			return err
		}
		if err := replaceSynced(r.markName(), data); err != nil {
			return &tandem.Error{Op: "reseed from the peer", Kind: tandem.Internal, Err: err}
		}
	}
	if rollback {
		if err := r.view.Rollback(ctx, at, func(f pairlog.Fork) bool { return f == at }); err != nil {
			return err
		}
		if now := r.view.Applied(); now != at {
			return &tandem.Error{Op: "reseed from the peer", Kind: tandem.Damaged, On: string(r.o.Info.Name),
				Err: errors.Join(errors.New("the snapshot can't be used"), r.view.DropSnapshot(at.Number))}
		}
	}
	if anew {
		if err := r.log.Reseed(ctx, begins); err != nil {
			return err
		}
	}
	r.mu.Lock()
	r.mark = mark
	r.mu.Unlock()
	return nil
}
