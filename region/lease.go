package region

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"tandem"
	"tandem/directory"
)

// A lease is this node's proof of life. When the node is fenced it begins a new incarnation: what it did under the old
// name is over, what it does from then on counts again.
type lease struct {
	life   *life
	store  directory.Store
	clock  tandem.Clock
	ttl    time.Duration
	acked  func() map[tandem.HubID]directory.Acked
	logger *slog.Logger
	now    atomic.Pointer[directory.Holder]
}

func (l *lease) begin(incarnation tandem.Incarnation) {
	l.now.Store(directory.NewHolder(l.store, l.clock, directory.HolderOptions{
		Incarnation: incarnation, TTL: l.ttl, Acked: l.acked, Logger: l.logger,
	}))
}

// Term implements failover.Lease.
func (l *lease) Term() *directory.Term { return l.now.Load().Term() }

// Incarnation implements failover.Lease.
func (l *lease) Incarnation() tandem.Incarnation { return l.now.Load().Incarnation() }

// run keeps the lease until ctx ends, and then gives it up so that nobody has to wait for it to lapse.
func (l *lease) run(ctx context.Context, probe func(context.Context) error) error {
	for {
		err := l.now.Load().Keep(ctx, probe)
		switch {
		case ctx.Err() != nil:
			leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			if err := l.now.Load().Resign(leaving); err != nil {
				l.logger.Info("lease left to lapse", "error", err)
			}
			return nil
		case !errors.Is(err, directory.ErrFenced):
			return err
		}
		next := newIncarnation()
		if err := l.life.rename(next); err != nil {
			return err
		}
		l.logger.Warn("new incarnation", "incarnation", next)
		l.begin(next)
	}
}
