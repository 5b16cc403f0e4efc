package directory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"tandem"
)

// HolderOptions shape a Holder.
type HolderOptions struct {
	Incarnation tandem.Incarnation
	TTL         time.Duration // DefaultTTL when 0; the same on all nodes
	// Acked is asked at each renewal; nil when the node has no pens to speak of. It must not block.
	Acked  func() map[tandem.HubID]Acked
	Logger *slog.Logger // nil: silent
}

// A Holder keeps the lease of this process's incarnation.
//
// It renews by a transaction that fails once the incarnation is fenced, and counts what a renewal is good for from
// before it was sent. All methods may be called at once.
type Holder struct {
	store   Store
	clock   tandem.Clock
	options HolderOptions
	term    atomic.Pointer[Term]

	mu       sync.Mutex // serialises renewals; guards what follows
	revision Revision
	counter  uint64
	fenced   bool
}

// NewHolder returns a holder that has no term yet. It writes nothing until Renew or Keep.
func NewHolder(store Store, clock tandem.Clock, options HolderOptions) *Holder {
	if options.TTL == 0 {
		options.TTL = DefaultTTL
	}
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	h := &Holder{store: store, clock: clock, options: options}
	none := newTerm(clock, 0)
	none.end()
	h.term.Store(none)
	return h
}

// Term is the present term: the one in which a pen may be opened now. Before the first renewal it is one that has ended.
func (h *Holder) Term() *Term { return h.term.Load() }

// Incarnation is the one this holder keeps the lease of.
func (h *Holder) Incarnation() tandem.Incarnation { return h.options.Incarnation }

// Valid is Term().Valid(): what the node says of its health. Work under a pen asks the term the pen was opened in.
func (h *Holder) Valid() bool { return h.Term().Valid() }

// Renew proves to the directory that this incarnation lives. When it returns nil the present term is good until TTL
// after the call; a new term began if the last one had lapsed meanwhile.
//
// ErrFenced is final: this incarnation never holds again. Any other error leaves the term as it was, until its
// deadline; after a Timeout the renewal may have happened, which the next call finds out.
func (h *Holder) Renew(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Term().Valid() // a lapse during a pause is noticed before it is renewed away
	for try := 0; ; try++ {
		if h.fenced {
			return ErrFenced
		}
		sent := h.clock.Boot()
		again, err := h.renew(ctx)
		switch {
		case err != nil:
			return err
		case again && try < 2:
			continue
		case again:
			return unavailable("renew the lease", string(h.options.Incarnation), errors.New("earlier renewals keep arriving"))
		}
		h.good(sent + h.options.TTL)
		return nil
	}
}

// renew makes one attempt; again means that an earlier one of unknown outcome had happened, and is known now.
func (h *Holder) renew(ctx context.Context) (again bool, err error) {
	o := h.options
	h.counter++
	lease := Lease{Incarnation: o.Incarnation, Counter: h.counter}
	if o.Acked != nil {
		lease.Acked = o.Acked()
	}
	key, fence := LeaseKey(o.Incarnation), FenceKey(o.Incarnation)
	done, err := h.store.Commit(ctx, Txn{
		If:   []Compare{{Key: key, Revision: h.revision}, {Key: fence}},
		Then: []Change{{Key: key, Value: encode(lease)}},
	})
	if err != nil {
		return false, err
	}
	if done.OK {
		h.revision = done.Revision
		return false, nil
	}
	var present Item
	for _, item := range done.Now {
		switch item.Key {
		case fence:
			return false, h.deposed("fenced")
		case key:
			present = item
		}
	}
	if present.Key == "" { // only cleaning up after a fence removes a lease
		return false, h.deposed("lease removed")
	}
	found, err := DecodeLease(present)
	if err != nil {
		return false, err
	}
	if found.Incarnation != o.Incarnation || found.Counter >= lease.Counter {
		return false, h.deposed("another process renews this lease")
	}
	h.revision = present.Revision
	return true, nil
}

// good moves the present term's deadline, or begins a term when it has ended.
func (h *Holder) good(deadline time.Duration) {
	if h.Term().extend(deadline) || int64(h.clock.Boot()) >= int64(deadline) {
		return
	}
	h.term.Store(newTerm(h.clock, deadline))
	h.options.Logger.Info("lease held", "incarnation", h.options.Incarnation)
}

// deposed ends the term for ever. Called with mu held.
func (h *Holder) deposed(why string) error {
	h.fenced = true
	h.Term().end()
	h.options.Logger.Warn("fenced", "incarnation", h.options.Incarnation, "reason", why)
	return ErrFenced
}

// Resign ends the term, and then fences this incarnation itself, so that nobody has to wait for its lease. When it
// returns nil the fence is durable. After an error the lease lapses by itself; calling again is fine.
func (h *Holder) Resign(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fenced = true
	h.Term().end()
	return FenceFormer(ctx, h.store, h.options.Incarnation, h.options.Incarnation)
}

// Keep renews every TTL/4 for as long as probe succeeds, until ctx ends (nil) or the incarnation is fenced (ErrFenced);
// when it returns the term has ended. Region starts it.
//
// Probe proves work: a small durable append, and a door that answers. It runs every TTL/4 beside the renewals; when the
// last success began more than a TTL ago nothing is renewed, so a hung probe lets the lease lapse. Its context has a
// deadline of a TTL, which it has to respect.
func (h *Holder) Keep(ctx context.Context, probe func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	var lanes sync.WaitGroup
	worked := new(atomic.Int64)
	worked.Store(neverWorked)
	proved := make(chan struct{}, 1)
	lanes.Go(func() { h.prove(ctx, probe, worked, proved) })
	lanes.Go(func() { h.watchDeadline(ctx) })
	err := h.keep(ctx, worked, proved)
	cancel()
	h.mu.Lock()
	h.Term().end()
	h.mu.Unlock()
	lanes.Wait()
	return err
}

const neverWorked = -1

func (h *Holder) keep(ctx context.Context, worked *atomic.Int64, proved <-chan struct{}) error {
	ttl := h.options.TTL
	select { // nothing is renewed before the first proof
	case <-proved:
	case <-ctx.Done():
		return nil
	}
	failing := false
	for {
		pause := ttl / 4
		if may(h.clock.Boot(), time.Duration(worked.Load()), ttl) {
			attempt, cancel := h.timeout(ctx, ttl/2)
			err := h.Renew(attempt)
			cancel()
			switch {
			case errors.Is(err, ErrFenced):
				return ErrFenced
			case err != nil && ctx.Err() == nil:
				pause = ttl / 20
				if !failing {
					h.options.Logger.Warn("lease not renewed", "error", err)
				}
			}
			failing = err != nil
		}
		if !h.sleep(ctx, pause) {
			return nil
		}
	}
}

// may says whether a renewal would tell the truth: a proof that began at worked is less than a TTL old.
func may(now, worked, ttl time.Duration) bool { return worked != neverWorked && now-worked < ttl }

func (h *Holder) prove(ctx context.Context, probe func(context.Context) error, worked *atomic.Int64, proved chan<- struct{}) {
	failing := false
	for {
		began := h.clock.Boot()
		attempt, cancel := h.timeout(ctx, h.options.TTL)
		err := probe(attempt)
		cancel()
		if err == nil {
			worked.Store(int64(began))
			select {
			case proved <- struct{}{}:
			default:
			}
		} else if !failing && ctx.Err() == nil {
			h.options.Logger.Warn("no proof of work", "error", fmt.Errorf("lease probe: %w", err))
		}
		failing = err != nil
		if !h.sleep(ctx, h.options.TTL/4) {
			return
		}
	}
}

// watchDeadline ends a term that lapses while nobody asks.
func (h *Holder) watchDeadline(ctx context.Context) {
	for {
		wait := h.options.TTL / 8
		if t := h.Term(); t.Valid() {
			wait = max(t.Deadline()-h.clock.Boot(), time.Millisecond)
		}
		if !h.sleep(ctx, wait) {
			return
		}
	}
}

// timeout is context.WithTimeout on the holder's clock.
func (h *Holder) timeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := make(chan struct{})
	go func() {
		select {
		case <-h.clock.After(d):
			cancel(context.DeadlineExceeded)
		case <-stop:
		}
	}()
	return ctx, sync.OnceFunc(func() { close(stop); cancel(context.Canceled) })
}

func (h *Holder) sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-h.clock.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
