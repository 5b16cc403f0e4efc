package hub

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tandem"
	"tandem/pairlog"
)

// Lead writes the pen's first record and takes commands from then on. The view first folds the log up to the pen's
// fork. Work goes on until term ends (its cause says why), Close, or Fence.
func (r *Replica) Lead(ctx context.Context, pen pairlog.Pen, term context.Context, mode pairlog.Mode, valid func() bool) error {
	if err := r.mayChange(ctx); err != nil {
		return err
	}
	defer r.change.Unlock()
	r.halt(RoleFenced)
	if len(pen.Forks) > 0 { // a sync mode may have hidden what the claim goes on from
		if err := r.log.Adopt(ctx, pen.Forks); err != nil {
			return err
		}
	}
	if err := r.foldTo(ctx, pen.Fork.Number); err != nil {
		return err
	}
	if at := r.view.Applied(); at != pen.Fork {
		return &tandem.Error{Op: "lead", Kind: tandem.Damaged, On: string(r.o.Info.Name),
			Err: fmt.Errorf("the view is at record %d of epoch %d, the pen goes on after record %d of epoch %d", at.Number, at.Epoch, pen.Fork.Number, pen.Fork.Epoch)}
	}
	options := pairlog.WriterOptions{Valid: valid, Mode: mode}
	if mode == pairlog.SyncAvailable || mode == pairlog.SyncStrict {
		_, revision, err := pairlog.ReadPen(ctx, r.o.Directory, r.o.Info.ID)
		if err != nil {
			return err
		}
		inSync := pairlog.NewInSync(r.o.Directory, r.o.Info.ID, pen, revision, pen.Incarnation)
		if _, err := inSync.Load(ctx); err != nil {
			return err
		}
		options.InSync = inSync
	}
	w, err := r.begin(ctx, pen, options)
	if err != nil {
		r.view.DropOverlay()
		r.setWrites(false)
		if w != nil { // nobody is to write under this pen any more, nor wait for the peer
			sealing, cancel := context.WithTimeout(context.WithoutCancel(ctx), sealTime)
			defer cancel()
			err = errors.Join(err, r.log.Seal(sealing, pen.Epoch))
		}
		return err
	}
	writing, stop := context.WithCancelCause(r.ctx)
	unbind := context.AfterFunc(term, func() { stop(context.Cause(term)) })
	ended := make(chan struct{})
	r.mu.Lock()
	r.role, r.pen, r.writer, r.ended = RoleHolder, pen, w, ended
	r.stop = func() { stop(context.Canceled) }
	r.mu.Unlock()
	r.door.routeHere(pen.Epoch, r.view.Door(r.door.id), w.next-1, w.poke)
	r.task(func() {
		defer close(ended)
		defer unbind()
		err := w.run(writing)
		r.setWrites(false)
		if err != nil {
			r.stopped(w, err)
		}
	})
	r.o.Notify.Send(PenOpened{Hub: r.o.Info.Name, Region: r.o.Region, Epoch: pen.Epoch})
	return nil
}

// sealTime bounds the sealing of an epoch that could not be opened; the next claim seals it again.
const sealTime = 2 * time.Second

// begin appends the pen's record and what a new holder has to write before its first command. A writer that it returns
// with an error has a segment that it must not use.
func (r *Replica) begin(ctx context.Context, pen pairlog.Pen, options pairlog.WriterOptions) (*writer, error) {
	r.setWrites(true)
	log, err := r.log.Begin(ctx, pen, options)
	if err != nil {
		return nil, err
	}
	first := log.First()
	w := newWriter(r, log, first.Header.Number+1)
	if err := w.apply(&first); err != nil {
		return w, err
	}
	r.registry.begin(pen.Epoch)
	return w, r.applyRevocations(ctx, w)
}

// setWrites says who folds from now on: the writer, or fold.
func (r *Replica) setWrites(writes bool) {
	r.viewMu.Lock()
	defer r.viewMu.Unlock()
	r.writes = writes
	r.folded.notify()
}

// stopped fences a replica whose writer gave up.
func (r *Replica) stopped(w *writer, err error) {
	r.door.routeNowhere()
	r.mu.Lock()
	if r.writer == w {
		r.role = RoleFenced
	}
	r.mu.Unlock()
	r.folded.notify()
	if !errors.Is(err, context.Canceled) {
		r.o.Logger.Warn("pen put down", "hub", r.o.Info.Name, "epoch", w.pen.Epoch, "error", err)
		r.o.Notify.Send(PenPutDown{Hub: r.o.Info.Name, Region: r.o.Region, Epoch: w.pen.Epoch, Err: err})
	}
}
