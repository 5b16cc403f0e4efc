package failover

import (
	"context"
	"sync"
	"time"

	"tandem"
	"tandem/directory"
)

// leases watches, at the pace that counting needs, the leases of the incarnations that somebody asked about lately: so
// that a lease which has lapsed is known as lapsed when the operator decides.
type leases struct {
	taker Taker
	clock tandem.Clock
	ttl   time.Duration

	mu    sync.Mutex
	asked map[tandem.Incarnation]time.Duration // Clock.Boot of the last question
	seen  map[tandem.Incarnation]directory.Sighting
}

func newLeases(taker Taker, clock tandem.Clock, ttl time.Duration) *leases {
	return &leases{taker: taker, clock: clock, ttl: ttl,
		asked: make(map[tandem.Incarnation]time.Duration), seen: make(map[tandem.Incarnation]directory.Sighting)}
}

// see is what is known of an incarnation, which is watched from now on.
func (l *leases) see(incarnation tandem.Incarnation) directory.Sighting {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked[incarnation] = l.clock.Boot()
	return l.seen[incarnation]
}

// gone reports whether an incarnation's lease was seen lapsed, or it is fenced.
func (l *leases) gone(incarnation tandem.Incarnation) bool {
	s := l.see(incarnation)
	return s.Lapsed || s.Fenced
}

func (l *leases) run(ctx context.Context) {
	for ctx.Err() == nil {
		for _, incarnation := range l.wanted() {
			one, cancel := context.WithTimeout(ctx, l.ttl/4)
			s, err := l.taker.Observe(one, incarnation)
			cancel()
			if err != nil {
				s = directory.Sighting{}
			}
			l.mu.Lock()
			l.seen[incarnation] = s
			l.mu.Unlock()
		}
		select {
		case <-l.clock.After(l.ttl / 8):
		case <-ctx.Done():
		}
	}
}

func (l *leases) wanted() []tandem.Incarnation {
	l.mu.Lock()
	defer l.mu.Unlock()
	var wanted []tandem.Incarnation
	for incarnation, asked := range l.asked {
		if l.clock.Boot()-asked > 10*l.ttl {
			delete(l.asked, incarnation)
			delete(l.seen, incarnation)
			l.taker.Forget(incarnation)
			continue
		}
		wanted = append(wanted, incarnation)
	}
	return wanted
}

// fenced notes a fence that this node has just written, ahead of the next look.
func (l *leases) fenced(incarnation tandem.Incarnation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.seen[incarnation]
	s.Fenced = true
	l.seen[incarnation] = s
}
