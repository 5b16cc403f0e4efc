package hub

import (
	"context"
	"errors"
	"sync"
	"time"

	"tandem"
	"tandem/pairlog"
)

// FollowPen follows a pen that another region has: own segments of older epochs are sealed, what they hold beyond the
// fork stays as a tail, the view rolls back if it lies beyond it. It returns when that is durable; copying goes on.
func (r *Replica) FollowPen(ctx context.Context, pen pairlog.Pen) error {
	if err := r.mayChange(ctx); err != nil {
		return err
	}
	defer r.change.Unlock()
	r.mu.Lock()
	already := r.role == RoleFollower && r.pen.Epoch == pen.Epoch
	r.mu.Unlock()
	if already {
		return nil
	}
	r.door.routeNowhere()
	r.halt(RoleFenced)
	for _, b := range pen.Forks {
		if b.Epoch < pen.Epoch && b.Holder == r.o.Region {
			if err := r.log.Seal(ctx, b.Epoch); err != nil && !errors.Is(err, pairlog.ErrNoSegment) {
				return err
			}
		}
	}
	if err := r.log.Adopt(ctx, pen.Forks); err != nil {
		return err
	}
	if err := r.rollback(ctx, pen); err != nil {
		return err
	}
	following, stop := context.WithCancel(r.ctx)
	ended := make(chan struct{})
	r.mu.Lock()
	r.role, r.pen, r.stop, r.ended = RoleFollower, pen, stop, ended
	r.mu.Unlock()
	r.folded.notify()
	r.door.routeTo(pen.Region, pen.Epoch)
	r.task(func() {
		defer close(ended)
		r.follow(following, pen)
	})
	return nil
}

// rollback takes the view back to the chain when it has folded records that the chain does not have.
func (r *Replica) rollback(ctx context.Context, pen pairlog.Pen) error {
	r.viewMu.Lock()
	defer r.viewMu.Unlock()
	at := r.view.Applied()
	if inChain(pen.Forks, at) {
		return nil
	}
	to := lastInChain(pen.Forks, at)
	r.o.Logger.Info("view rolls back", "hub", r.o.Info.Name, "from", at.Number, "to", to.Number)
	return r.view.Rollback(ctx, to, func(f pairlog.Fork) bool { return inChain(pen.Forks, f) })
}

// inChain reports whether a record belongs to the chain of these branches: its epoch is one of them and the next one
// does not go on before it.
func inChain(branches []pairlog.Branch, at pairlog.Fork) bool {
	if at.Number == 0 {
		return true
	}
	for i, b := range branches {
		if b.Epoch == at.Epoch {
			return i+1 == len(branches) || at.Number <= branches[i+1].Fork.Number
		}
	}
	return len(branches) > 0 && at.Epoch < branches[0].Epoch && at.Number <= branches[0].Fork.Number
}

// epochAt is the epoch of a record number in the chain; 0 when it lies before the branches that are known.
func epochAt(branches []pairlog.Branch, number uint64) tandem.Epoch {
	for i := len(branches) - 1; i >= 0; i-- {
		if branches[i].Fork.Number < number {
			return branches[i].Epoch
		}
	}
	return 0
}

// lastInChain is the last record that a log which reached at shares with the chain.
func lastInChain(branches []pairlog.Branch, at pairlog.Fork) pairlog.Fork {
	for i := len(branches) - 1; i >= 0; i-- {
		if branches[i].Fork.Epoch <= at.Epoch && branches[i].Fork.Number <= at.Number {
			return branches[i].Fork
		}
	}
	return pairlog.Fork{}
}

// follow copies an epoch until ctx ends or the epoch was closed, and says what stands in the way.
func (r *Replica) follow(ctx context.Context, pen pairlog.Pen) {
	var reseeding sync.WaitGroup
	reseeding.Go(func() { r.reseedWhenNeeded(ctx, pen) })
	defer reseeding.Wait()
	for ctx.Err() == nil {
		err := r.log.Follow(ctx, pen.Epoch, pen.Region)
		switch {
		case err == nil, ctx.Err() != nil, errors.Is(err, pairlog.ErrCopyEnded):
			return
		case errors.Is(err, pairlog.ErrBehindTrim):
			r.needReseed()
			if r.waitReseeded(ctx) {
				continue
			}
			return
		case errors.Is(err, pairlog.ErrDiverged), errors.Is(err, pairlog.ErrDamaged):
			r.mu.Lock()
			r.damage = err.Error()
			r.mu.Unlock()
		}
		r.o.Logger.Error("following stopped", "hub", r.o.Info.Name, "epoch", pen.Epoch, "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}
