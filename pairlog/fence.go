package pairlog

import (
	"context"
	"errors"
	"fmt"

	"tandem"
)

// EndCopy durably ends this region's copy of an epoch, or its own segment of it: afterwards nothing of the epoch is stored
// or acknowledged here, also after a restart. Only then it reads how far the chain goes here, and returns that: the
// fork of a claim. Fence before fork: without this order, a write that both regions have could lie beyond the fork.
// Repeating it is no error.
func (l *Log) EndCopy(ctx context.Context, epoch tandem.Epoch) (Fork, error) {
	l.mu.Lock()
	l.ended[epoch] = true
	if f := l.follow; f != nil && f.epoch == epoch {
		f.cancel(ErrCopyEnded)
	}
	if w := l.writer; w != nil && w.id.Epoch == epoch {
		w.die(ErrFenced)
	}
	parts := l.partsOf(epoch)
	l.mu.Unlock()
	for _, p := range parts { // before waiting for whoever appends: the engine refuses him from here on
		if err := l.o.Store.Seal(ctx, p.id); err != nil && !errors.Is(err, ErrNoSegment) {
			return Fork{}, err
		}
	}
	l.op.Lock()
	defer l.op.Unlock()
	l.mu.RLock()
	parts = l.partsOf(epoch)
	l.mu.RUnlock()
	if len(parts) == 0 { // nothing is here yet: the end itself has to be remembered
		id := l.own(epoch)
		id.Holder, id.Part = l.o.Peer, 1
		p, err := l.create(ctx, id)
		if err != nil {
			return Fork{}, err
		}
		parts = append(parts, p)
	}
	if err := l.sealParts(ctx, parts); err != nil {
		return Fork{}, err
	}
	return l.End(), nil
}

// partsOf returns what is here of an epoch. Called with mu held.
func (l *Log) partsOf(epoch tandem.Epoch) []*part {
	var out []*part
	for _, p := range l.parts {
		if p.id.Epoch == epoch {
			out = append(out, p)
		}
	}
	return out
}

// sealParts seals segments of one epoch, then reads what they hold: only then it is certain. Called with op held.
func (l *Log) sealParts(ctx context.Context, parts []*part) error {
	var fresh []*part
	for _, p := range parts {
		if err := l.o.Store.Seal(ctx, p.id); err != nil {
			return err
		}
		f, err := l.load(ctx, p.id)
		if err != nil {
			return err
		}
		fresh = append(fresh, f)
	}
	all := l.snapshot()
	for i, p := range all {
		for _, f := range fresh {
			if f.id == p.id {
				all[i] = f
			}
		}
	}
	l.mu.RLock()
	chain, old := l.chain, l.lay.end.Number
	l.mu.RUnlock()
	if len(chain) == 0 {
		chain = chainOf(all)
	}
	newest := len(chain) > 0 && parts[0].id.Epoch >= chain[len(chain)-1].Epoch
	var lay layout
	if newest { // else the chain has gone on elsewhere, and what was sealed changes only a tail
		var err error
		if lay, err = l.resolve(ctx, chain, all); err != nil {
			return err
		}
		if err := l.verify(ctx, lay, min(old, lay.end.Number)); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, p := range parts {
		p.become(fresh[i])
	}
	if !newest {
		return nil
	}
	if lay.end.Number < l.lay.end.Number {
		l.forget()
		l.visible = min(l.visible, lay.end.Number)
	}
	l.chain, l.lay = chain, lay
	l.see()
	l.wake()
	return nil
}

// Resume lets an ended copy go on, in a new part, after the claim for which it was ended failed.
func (l *Log) Resume(ctx context.Context, epoch tandem.Epoch) error {
	l.op.Lock()
	defer l.op.Unlock()
	l.mu.RLock()
	var last *part
	for _, p := range l.partsOf(epoch) {
		if last == nil || p.id.Part > last.id.Part {
			last = p
		}
	}
	l.mu.RUnlock()
	if last != nil && last.sealed {
		id := last.id
		id.Part++
		if _, err := l.create(ctx, id); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.ended, epoch)
	return nil
}

// Seal seals this region's own segment of an epoch: nobody appends to it any more, for ever. Its writer, if there is one,
// gets ErrFenced, or ErrClosed after Close. ErrNoSegment when there is none.
func (l *Log) Seal(ctx context.Context, epoch tandem.Epoch) error {
	id := l.own(epoch)
	l.mu.RLock()
	w := l.writer
	l.mu.RUnlock()
	if w != nil && w.id == id {
		w.die(ErrFenced)
	}
	if err := l.o.Store.Seal(ctx, id); err != nil {
		return err
	}
	l.op.Lock()
	defer l.op.Unlock()
	l.mu.RLock()
	p := l.part(id)
	l.mu.RUnlock()
	if p == nil || p.sealed {
		return nil
	}
	return l.sealParts(ctx, []*part{p})
}

func (l *Log) sealLater(id SegmentID) {
	l.mu.Lock()
	l.toSeal = append(l.toSeal, id)
	l.mu.Unlock()
	select {
	case l.sealSoon <- struct{}{}:
	default:
	}
}

// sealClosed seals the segments whose writers have closed them.
func (l *Log) sealClosed(ctx context.Context) error {
	for {
		l.mu.Lock()
		if len(l.toSeal) == 0 {
			l.mu.Unlock()
			return nil
		}
		id := l.toSeal[0]
		l.mu.Unlock()
		if err := l.Seal(ctx, id.Epoch); err != nil && !errors.Is(err, ErrNoSegment) {
			return fmt.Errorf("seal epoch %d: %w", id.Epoch, err)
		}
		l.mu.Lock()
		l.toSeal = l.toSeal[1:]
		l.mu.Unlock()
	}
}
