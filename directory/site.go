package directory

import (
	"context"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// A site is one member as this client sees it.
type site struct {
	client  *clientv3.Client
	proven  time.Time // of its last answer
	suspect bool      // it failed, or kept us waiting, since then
	probing bool
	probed  time.Time
}

// order returns the members as they are to be asked: those not under suspicion first, each group nearest first. It sees
// to it that a suspect gets a chance to answer for itself.
func (e *Etcd) order() []*site {
	e.mu.Lock()
	order := slices.Clone(e.sites)
	slices.SortStableFunc(order, func(a, b *site) int {
		switch {
		case a.suspect == b.suspect:
			return 0
		case b.suspect:
			return -1
		}
		return 1
	})
	suspects := make([]*site, 0, len(order))
	for _, s := range order {
		if s.suspect {
			suspects = append(suspects, s)
		}
	}
	e.mu.Unlock()
	for _, s := range suspects {
		e.probe(s)
	}
	return order
}

// mark notes that a member answered, or that it failed or is slow to.
func (e *Etcd) mark(s *site, good bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s.suspect = !good
	if good {
		s.proven = time.Now()
	}
}

// fresh reports whether the member asked next has answered a moment ago.
func (e *Etcd) fresh() bool {
	s := e.order()[0]
	e.mu.Lock()
	defer e.mu.Unlock()
	return !s.suspect && time.Since(s.proven) < provenFor
}

// probe asks a member for an answer in the background; at most one probe of a member at a time, and two a second.
func (e *Etcd) probe(s *site) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s.probing || time.Since(s.probed) < provenFor/2 {
		return
	}
	s.probing, s.probed = true, time.Now()
	e.start(func() {
		ctx, cancel := context.WithTimeout(e.ctx, 2*patience)
		defer cancel()
		_ = attempt(ctx, e, s, request[*clientv3.GetResponse]{
			send: func(ctx context.Context, c *clientv3.Client) (*clientv3.GetResponse, error) {
				return c.Get(ctx, e.prefix+"probe")
			},
		})
		e.mu.Lock()
		defer e.mu.Unlock()
		s.probing = false
	})
}
