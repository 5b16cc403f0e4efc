package hub

import (
	"context"
	"fmt"
	"time"

	"tandem"
	"tandem/pairlog"
)

// Prepare makes the next epoch's segment ahead of time.
func (r *Replica) Prepare(ctx context.Context, epoch tandem.Epoch) error {
	return r.log.Prepare(ctx, epoch)
}

// Close ends the epoch in order: commands wait in their doors from here on, CLOSE is durable, the role is closed. It may
// be asked again. ErrNotHolder when this replica does not write in that epoch.
func (r *Replica) Close(ctx context.Context, epoch tandem.Epoch, successor tandem.RegionName) (ClosedAt, error) {
	r.change.Lock()
	defer r.change.Unlock()
	r.mu.Lock()
	w, role, at, was := r.writer, r.role, r.closed[epoch], false
	if at.Fork.Number > 0 {
		was = true
	}
	r.mu.Unlock()
	if was {
		return at, nil
	}
	if role != RoleHolder || w == nil || w.pen.Epoch != epoch {
		return ClosedAt{}, ErrNotHolder
	}
	answer := make(chan closeAnswer, 1)
	select {
	case w.closing <- closeRequest{successor, answer}:
	case <-r.ended:
		return ClosedAt{}, ErrNotHolder
	case <-ctx.Done():
		return ClosedAt{}, ctx.Err()
	}
	got := <-answer // the log's own deadlines bound it
	if got.err != nil {
		return ClosedAt{}, got.err
	}
	r.mu.Lock()
	r.role, r.closed[epoch] = RoleClosed, got.at
	r.mu.Unlock()
	r.door.routeNowhere()
	return got.at, nil
}

// Reach waits until this region's copy and view are at a closed epoch's end, and compares the state root: ErrDamaged
// when it differs.
func (r *Replica) Reach(ctx context.Context, at ClosedAt) error {
	for {
		folded := r.folded.wait()
		if err := r.foldTo(ctx, at.Fork.Number); err != nil {
			return err
		}
		applied := r.view.Applied()
		if applied.Number >= at.Fork.Number {
			if applied != at.Fork {
				return &tandem.Error{Op: "reach the end of the epoch", Kind: tandem.Damaged, On: string(r.o.Info.Name),
					Err: fmt.Errorf("the view is at record %d of epoch %d, not at its end", applied.Number, applied.Epoch)}
			}
			if root := r.view.Root(); root != at.Root {
				return &tandem.Error{Op: "compare the state", Kind: tandem.Damaged, On: string(r.o.Info.Name),
					Err: fmt.Errorf("state root %s here, %s at the holder", root, at.Root)}
			}
			return nil
		}
		short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		select {
		case <-folded:
		default:
			_ = r.log.Wait(short, applied.Number)
		}
		cancel()
		if ctx.Err() != nil {
			return &tandem.Error{Op: "reach the end of the epoch", Kind: tandem.Timeout, On: string(r.o.Info.Name), Err: ctx.Err()}
		}
	}
}

// EndCopy durably ends this region's copy of an epoch and returns its end: the fence before the fork.
func (r *Replica) EndCopy(ctx context.Context, epoch tandem.Epoch) (pairlog.Fork, error) {
	r.change.Lock()
	defer r.change.Unlock()
	r.halt(RoleFenced)
	if err := r.jump(ctx); err != nil {
		return pairlog.Fork{}, err
	}
	return r.log.EndCopy(ctx, epoch)
}

// ResumeCopy goes on copying an epoch after a claim that failed.
func (r *Replica) ResumeCopy(ctx context.Context, epoch tandem.Epoch) error {
	return r.log.Resume(ctx, epoch)
}

// Fetch brings back records of this region's own log that only the peer's copy still has, up to and including upTo.
func (r *Replica) Fetch(ctx context.Context, upTo pairlog.Fork) error {
	r.change.Lock()
	defer r.change.Unlock()
	end, err := r.log.Fetch(ctx, upTo.Epoch, r.o.Peer)
	if err == nil && end.Number < upTo.Number {
		err = &tandem.Error{Op: "fetch from the peer", Kind: tandem.Unavailable, On: string(r.o.Info.Name)}
	}
	return err
}

// halt ends what the role does and waits until it has ended.
func (r *Replica) halt(role Role) {
	r.mu.Lock()
	stop, ended := r.stop, r.ended
	r.stop, r.ended, r.writer, r.role = nil, nil, nil, role
	r.mu.Unlock()
	if stop != nil {
		stop()
		<-ended
	}
	r.folded.notify()
}

// Fence stops answering at once: the lease or the pen is lost.
func (r *Replica) Fence() {
	r.change.Lock()
	defer r.change.Unlock()
	r.door.routeNowhere()
	r.halt(RoleFenced)
}
