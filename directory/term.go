package directory

import (
	"context"
	"math"
	"sync/atomic"
	"time"

	"tandem"
)

// A Term is one unbroken time of holding the lease. Pens are opened in a term and end with it: once a term has lapsed
// it stays so, even when the lease is renewed later; that renewal begins another term.
type Term struct {
	clock    tandem.Clock
	deadline atomic.Int64 // nanoseconds of Clock.Boot, or ended
	ctx      context.Context
	cancel   context.CancelCauseFunc
}

const ended = math.MinInt64

func newTerm(clock tandem.Clock, deadline time.Duration) *Term {
	t := &Term{clock: clock}
	t.ctx, t.cancel = context.WithCancelCause(context.Background())
	t.deadline.Store(int64(deadline))
	return t
}

// Valid reports whether the node still holds the lease of this term; false is final. It takes no lock: ask it for every
// batch, after the batch is durable and before it is answered.
func (t *Term) Valid() bool {
	for {
		deadline := t.deadline.Load()
		if deadline == ended {
			return false
		}
		if int64(t.clock.Boot()) < deadline {
			return true
		}
		if t.deadline.CompareAndSwap(deadline, ended) { // else it was just renewed: look again
			t.cancel(ErrFenced)
			return false
		}
	}
}

// Deadline is until when the lease is good, in Clock.Boot; 0 when the term has ended.
func (t *Term) Deadline() time.Duration {
	if d := t.deadline.Load(); d != ended {
		return time.Duration(d)
	}
	return 0
}

// Context ends, with ErrFenced as its cause, when the term does. While Holder.Keep runs it does so without being asked.
func (t *Term) Context() context.Context { return t.ctx }

// extend moves the deadline, and reports false when the term has ended before.
func (t *Term) extend(deadline time.Duration) bool {
	for t.Valid() {
		old := t.deadline.Load()
		if old == ended {
			return false
		}
		if int64(deadline) <= old || t.deadline.CompareAndSwap(old, int64(deadline)) {
			return true
		}
	}
	return false
}

func (t *Term) end() {
	t.deadline.Store(ended)
	t.cancel(ErrFenced)
}
