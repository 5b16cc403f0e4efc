package pairlog

import (
	"context"
	"errors"
	"time"

	"tandem"
)

// How a peer outside the set comes back: while it lives and lacks more than nearPeer records, every append lets it gain a
// record, for at most paceWait, or a writer faster than the peer would never have it back; then one append waits for it.
const (
	nearPeer = 16
	paceWait = 20 * time.Millisecond
)

// syncState is the writer's own knowledge of the in-sync set; used by the appending goroutine only.
type syncState struct {
	peerIn  bool          // the peer is in the set, or may be
	adding  chan error    // an Add under way
	nextTry time.Duration // Clock.Boot before which a peer outside is not waited for again
	paced   uint64        // what the peer had at the last append while outside
}

// waits reports whether an answer needs the peer.
func (w *Writer) waits() bool {
	switch w.mode() {
	case SyncStrict:
		return true
	case SyncAvailable:
		return w.sync.peerIn || w.sync.adding != nil
	}
	return false
}

// await returns when record n may be answered.
func (w *Writer) await(ctx context.Context, n uint64) error {
	w.added(false)
	if !w.waits() {
		// The peer is out. When it has everything it is taken back.
		acked, age, known := w.PeerAcked()
		if !known || age > 2*time.Second {
			return nil
		}
		if acked+nearPeer < n || w.l.o.Clock.Boot() < w.sync.nextTry {
			w.peerHas(ctx, min(n-1, w.sync.paced+2), paceWait)
			w.sync.paced, _, _ = w.PeerAcked()
			return nil
		}
		w.hide(true)
		if w.peerHas(ctx, n, w.o.PeerTimeout/4) {
			w.add()
			return nil
		}
		w.sync.nextTry = w.l.o.Clock.Boot() + time.Second
		w.hide(false)
		return nil
	}
	if w.peerHas(ctx, n, w.o.PeerTimeout) {
		if w.sync.adding == nil && !w.o.InSync.Contains(w.l.o.Peer) {
			w.add()
		}
		return nil
	}
	if err := w.alive(); err != nil && !errors.Is(err, ErrClosed) {
		return err
	}
	if ctx.Err() != nil || w.mode() == SyncStrict {
		return ErrPeerBehind
	}
	return w.remove(ctx)
}

// remove takes the peer out of the set, so that the writer may answer alone.
func (w *Writer) remove(ctx context.Context) error {
	w.added(true)
	bounded, cancel := w.l.within(context.WithoutCancel(ctx), w.o.PeerTimeout)
	defer cancel()
	switch err := w.o.InSync.Remove(bounded, w.l.o.Peer); {
	case tandem.KindOf(err) == tandem.Fenced && err != nil:
		return w.die(ErrFenced)
	case err != nil:
		return &tandem.Error{Op: "append", Kind: tandem.Timeout, On: string(w.id.Hub), Err: errors.Join(ErrPeerBehind, err), Hint: ErrPeerBehind.Hint}
	}
	w.sync.peerIn = false
	w.sync.nextTry = w.l.o.Clock.Boot() + time.Second
	w.hide(false)
	w.l.logger.Warn("peer left the in-sync set", "peer", string(w.l.o.Peer), "epoch", uint64(w.id.Epoch))
	w.l.o.Notify.Send(InSyncChanged{Hub: w.id.Hub, Region: w.l.o.Peer})
	return nil
}

// add begins to put the peer into the set; from now on every answer waits for it.
func (w *Writer) add() {
	done := make(chan error, 1)
	w.sync.adding = done
	w.hide(true)
	set, peer := w.o.InSync, w.l.o.Peer
	ctx, cancel := w.l.within(context.Background(), w.o.PeerTimeout)
	go func() {
		defer cancel()
		done <- set.Add(ctx, peer)
	}()
}

// added takes note of the end of add; with wait it waits for it.
func (w *Writer) added(wait bool) {
	if w.sync.adding == nil {
		return
	}
	var err error
	if wait {
		err = <-w.sync.adding
	} else {
		select {
		case err = <-w.sync.adding:
		default:
			return
		}
	}
	w.sync.adding = nil
	w.sync.peerIn = true // also after an error: it may be in
	if err == nil {
		w.l.logger.Info("peer is in sync", "peer", string(w.l.o.Peer), "epoch", uint64(w.id.Epoch))
		w.l.o.Notify.Send(InSyncChanged{Hub: w.id.Hub, Region: w.l.o.Peer, In: true})
	} else if tandem.KindOf(err) == tandem.Fenced {
		w.die(ErrFenced)
	}
}

// hide says whether readers see only what the peer has.
func (w *Writer) hide(hide bool) {
	w.l.mu.Lock()
	defer w.l.mu.Unlock()
	w.hides = hide
	w.l.see()
	w.l.wake()
}

// peerHas waits until the peer has record n durably, and reports false when that takes longer than d.
func (w *Writer) peerHas(ctx context.Context, n uint64, d time.Duration) bool {
	var late <-chan time.Time
	for {
		w.l.mu.RLock()
		acked, moved := w.l.peer.number, w.l.peer.moved
		w.l.mu.RUnlock()
		if acked >= n {
			return true
		}
		if err := w.alive(); err != nil && !errors.Is(err, ErrClosed) {
			return false
		}
		if late == nil {
			late = w.l.o.Clock.After(d)
		}
		select {
		case <-moved:
		case <-late:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// acked notes that the peer has our chain durably up to a record whose hash was compared.
func (l *Log) acked(number uint64) {
	l.mu.Lock()
	p := &l.peer
	advanced := number > p.number || !p.known
	p.number, p.at, p.known = max(p.number, number), l.o.Clock.Boot(), true
	moved := p.moved
	var calls []func(uint64)
	if advanced {
		number, calls = p.number, p.calls
		if w := l.writer; w != nil && w.hides {
			l.see()
			l.wake()
		}
	}
	l.mu.Unlock()
	if !advanced {
		return
	}
	select {
	case moved <- struct{}{}:
	default:
	}
	for _, fn := range calls {
		fn(number)
	}
}

// InSyncChanged is the notice that a region joined or left a hub's in-sync set.
type InSyncChanged struct {
	Hub    tandem.HubID
	Region tandem.RegionName
	In     bool
}

// NoticeName is "in-sync set changed".
func (InSyncChanged) NoticeName() string { return "in-sync set changed" }

// CopyDiverged is the notice that the peer's records do not go on from ours; following has stopped.
type CopyDiverged struct {
	Hub   tandem.HubID
	Epoch tandem.Epoch
	Err   error
}

// NoticeName is "copy diverged".
func (CopyDiverged) NoticeName() string { return "copy diverged" }
