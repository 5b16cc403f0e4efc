package sim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"tandem"
	"tandem/directory"
	"tandem/failover"
	"tandem/hub"
	"tandem/pairlog"
)

// A region is what outlives its processes: a disk, a clock, the name of its last incarnation.
type region struct {
	w      *World
	name   tandem.RegionName
	clock  *clock
	disk   *pairlog.Memory
	former tandem.Incarnation
	view   string // directory of the last life's view; empty: none
	life   *life  // nil while nothing runs; touched by the world's goroutine and, under its mutex, by clients
	mu     sync.Mutex
}

// current is the life that clients reach; nil when there is none.
func (r *region) current() *life {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.life; l != nil && l.replica.Load() != nil && !l.gate.isDead() && l.ctx.Err() == nil {
		return l
	}
	return nil
}

// A life is one process of a region, put together as package region does.
type life struct {
	r           *region
	incarnation tandem.Incarnation
	gate        *gate
	disk        *disk
	link        *link
	site        *site
	logger      *slog.Logger
	ctx         context.Context
	cancel      context.CancelFunc
	done        chan struct{}
	lease       *lease
	replica     atomic.Pointer[hub.Replica]
	controller  atomic.Pointer[failover.Controller]
}

// boot starts a region's process.
func (w *World) boot(name tandem.RegionName) {
	r := w.regions[name]
	w.lives++
	l := &life{r: r, incarnation: tandem.Incarnation(fmt.Sprintf("%s-%d", name, w.lives)), gate: newGate(), done: make(chan struct{})}
	l.logger = w.logger.With("life", l.incarnation)
	l.disk = &disk{Memory: r.disk, gate: l.gate, weather: w.weather}
	l.link = &link{MemoryLink: w.net.Link(name), gate: l.gate, weather: w.weather, last: map[string]chan struct{}{}}
	l.site = &site{Store: w.memory.Client(string(name)), gate: l.gate, weather: w.weather}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	view := w.viewDir(l.incarnation)
	if r.view != "" {
		if err := copyTree(view, r.view); err != nil {
			w.journal.violation("a view can't be copied: %v", err)
		}
	}
	r.view = view
	r.mu.Lock()
	r.life = l
	r.mu.Unlock()
	go func() {
		defer close(l.done)
		if err := l.run(view); err != nil && l.ctx.Err() == nil && !l.gate.isDead() {
			w.journal.violation("%s ended by itself: %v", l.incarnation, err)
		}
	}()
}

// run is the process.
func (l *life) run(view string) error {
	r := l.r
	if r.former != "" {
		for directory.FenceFormer(l.ctx, l.site, r.former, l.incarnation) != nil {
			if err := sleep(l.ctx, 50*time.Millisecond); err != nil {
				return err
			}
		}
	}
	r.former = l.incarnation
	replica, err := hub.OpenReplica(l.ctx, hub.ReplicaOptions{
		Info: hub.Info{ID: hubID, Name: "fab", Partitions: partitions}, Dir: view, Region: r.name, Peer: other(r.name),
		Node: tandem.NodeName(r.name + "-0"), Incarnation: l.incarnation, Store: l.disk, Link: l.link, Directory: l.site,
		Clock: r.clock, Logger: l.logger, CacheBytes: 1 << 20, Notify: l.notice,
	})
	if err != nil {
		return err
	}
	l.lease = &lease{life: l}
	l.lease.begin(l.incarnation)
	controller := failover.New(failover.Options{
		Region: r.name, Peer: other(r.name), Node: tandem.NodeName(r.name + "-0"), Directory: l.site, Link: l.link, Lease: l.lease,
		Taker: directory.NewTaker(l.site, r.clock, l.incarnation, leaseTTL), Replicas: l, TTL: leaseTTL, Deadline: pauseLimit,
		Hubs: func() []failover.Hub {
			return []failover.Hub{{ID: hubID, Name: "fab", Home: west, Peer: east, Mode: r.w.Mode}}
		},
		Clock: r.clock, Logger: l.logger, Notify: l.notice,
	})
	var tasks sync.WaitGroup
	var failed [3]error
	tasks.Go(func() { failed[0] = replica.Run(l.ctx) })
	tasks.Go(func() { failed[1] = l.lease.run(l.ctx) })
	tasks.Go(func() { failed[2] = controller.Run(l.ctx) })
	l.replica.Store(replica)
	l.controller.Store(controller)
	tasks.Wait()
	return errors.Join(failed[:]...)
}

func (l *life) notice(n tandem.Notice) {
	switch n := n.(type) {
	case failover.NeedsDecision:
		l.logger.Warn("needs decision", "error", n.Err)
	case failover.StepDone:
		if !l.gate.isDead() {
			l.r.w.step(l)
		}
	}
}

// Replica implements failover.Replicas.
func (l *life) Replica(tandem.HubID) (failover.Replica, bool) {
	if r := l.replica.Load(); r != nil {
		return driven{r}, true
	}
	return nil, false
}

// stop ends the process in order.
func (l *life) stop() {
	r := l.r
	l.cancel()
	<-l.done
	r.mu.Lock()
	r.life = nil
	r.mu.Unlock()
}

// crash ends the process at once: what it had not on disk is gone.
func (l *life) crash(settle func()) {
	r := l.r
	l.gate.kill()
	settle() // nothing of it is at work any more: what its view has on disk holds still
	left := r.view + ".left"
	if err := copyTree(left, r.view); err != nil {
		r.w.journal.violation("a view can't be copied: %v", err)
	}
	r.view = left
	l.stop()
}

// A lease is the node's proof of life; a fenced one goes on under a new name.
type lease struct {
	life *life
	now  atomic.Pointer[directory.Holder]
}

func (l *lease) begin(incarnation tandem.Incarnation) {
	l.now.Store(directory.NewHolder(l.life.site, l.life.r.clock, directory.HolderOptions{
		Incarnation: incarnation, TTL: leaseTTL, Acked: l.acked, Logger: l.life.logger,
	}))
}

func (l *lease) Term() *directory.Term           { return l.now.Load().Term() }
func (l *lease) Incarnation() tandem.Incarnation { return l.now.Load().Incarnation() }

func (l *lease) acked() map[tandem.HubID]directory.Acked {
	acked := map[tandem.HubID]directory.Acked{}
	if replica := l.life.replica.Load(); replica != nil {
		if epoch, number, age, ok := replica.PeerAcked(); ok {
			acked[hubID] = directory.Acked{Epoch: epoch, Number: number, AgeMS: age.Milliseconds()}
		}
	}
	return acked
}

func (l *lease) run(ctx context.Context) error {
	probe := func(ctx context.Context) error {
		return l.life.disk.passAfter(ctx, l.life.disk.weather.takes(diskMost))
	}
	for renamed := 0; ; {
		err := l.now.Load().Keep(ctx, probe)
		switch {
		case ctx.Err() != nil:
			leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			_ = l.now.Load().Resign(leaving)
			return nil
		case !errors.Is(err, directory.ErrFenced):
			return err
		}
		renamed++
		next := tandem.Incarnation(fmt.Sprintf("%s.%d", l.life.incarnation, renamed))
		l.life.r.former = next
		l.begin(next)
	}
}

// answers says whether this process may answer for the hub now.
func (l *life) answers() bool {
	replica := l.replica.Load()
	if l.gate.isDead() || replica == nil || replica.Role() != hub.RoleHolder {
		return false
	}
	_, err := replica.Handle().Events(l.ctx, hub.EventStart{Partition: -1, Number: -1})
	return err == nil
}

// driven is a replica in the words of package failover.
type driven struct{ *hub.Replica }

func (d driven) Facts() failover.ReplicaFacts {
	f := d.Replica.Facts()
	return failover.ReplicaFacts{
		Region: f.Region, Role: failover.Role(f.Role), Epoch: f.Epoch, End: f.End, Applied: f.Applied, Lag: f.Lag, ViewLag: f.ViewLag,
		PeerAcked: f.PeerAcked, PeerAckAge: f.PeerAckAge, PeerKnown: f.PeerKnown, Sessions: f.Sessions,
		Damaged: f.Damaged, NeedsReseed: f.NeedsReseed,
		Root: f.RootCheck.Got, RootNumber: f.RootCheck.Number, RootDiffers: !f.RootCheck.Equal(),
	}
}

func (d driven) Close(ctx context.Context, epoch tandem.Epoch, successor tandem.RegionName) (failover.ClosedAt, error) {
	at, err := d.Replica.Close(ctx, epoch, successor)
	return failover.ClosedAt(at), err
}

func (d driven) Reach(ctx context.Context, at failover.ClosedAt) error {
	return d.Replica.Reach(ctx, hub.ClosedAt(at))
}

func (d driven) TailItems(ctx context.Context, epoch tandem.Epoch, fn func(failover.TailItem) error) error {
	return d.Replica.TailItems(ctx, epoch, func(item hub.TailItem) error { return fn(failover.TailItem(item)) })
}

var (
	_ failover.Replica = driven{}
	_ failover.Fetcher = driven{}
	_ failover.Chained = driven{}
)
