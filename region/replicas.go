package region

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"tandem"
	"tandem/catalog"
	"tandem/directory"
	"tandem/failover"
	"tandem/gateway"
	"tandem/hub"
	"tandem/pairlog"
)

// replicas are this node's parts of the hubs that the catalog names: opened when a hub appears, closed when it goes.
type replicas struct {
	catalog     *catalog.Catalog
	region      tandem.RegionName
	peer        tandem.RegionName
	node        tandem.NodeName
	incarnation tandem.Incarnation
	dir         string
	store       pairlog.Store
	link        pairlog.Link
	directory   directory.Store
	clock       tandem.Clock
	logger      *slog.Logger
	notify      tandem.Notify

	reviewed atomic.Bool // every hub was opened, or failed to, at least once

	mu     sync.Mutex
	open   map[tandem.HubID]*openHub
	failed map[tandem.HubID]failure
}

// A failure is a hub that could not be opened, or ended by itself.
type failure struct {
	again time.Time // not tried before
	pause time.Duration
}

const (
	openAtOnce = 4 // hubs
	firstPause = time.Second
	lastPause  = time.Minute

	// What all hubs together may keep in memory of their views and of their newest records.
	cacheBytes, leastCache   = 96 << 20, 2 << 20
	recentBytes, leastRecent = 48 << 20, 1 << 20
)

type openHub struct {
	replica *hub.Replica
	stop    context.CancelFunc
	done    chan struct{}
}

// reviewEvery is how often the catalog is compared with what is open, besides its notices.
const reviewEvery = time.Second

// run keeps a replica open for each hub until ctx ends; changed wakes it.
func (r *replicas) run(ctx context.Context, changed <-chan struct{}) error {
	select {
	case <-r.catalog.Ready():
	case <-ctx.Done():
		return nil
	}
	tick := time.NewTicker(reviewEvery)
	defer tick.Stop()
	defer r.closeAll()
	for {
		r.review(ctx)
		r.reviewed.Store(true)
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-tick.C:
		}
	}
}

func (r *replicas) review(ctx context.Context) {
	wanted := make(map[tandem.HubID]catalog.Hub)
	for _, h := range r.catalog.Hubs() {
		if _, ours := h.Pair.Other(r.region); ours {
			wanted[h.ID] = h
		}
	}
	r.mu.Lock()
	var gone []*openHub
	for id, o := range r.open {
		if _, keep := wanted[id]; !keep {
			gone = append(gone, o)
			delete(r.open, id)
		}
	}
	r.mu.Unlock()
	for _, o := range gone {
		o.end()
	}
	var group errgroup.Group
	group.SetLimit(openAtOnce)
	for id, h := range wanted {
		if _, ok := r.find(id); ok || !r.due(id) {
			continue
		}
		group.Go(func() error {
			if err := r.start(ctx, h, len(wanted)); err != nil && ctx.Err() == nil {
				pause := r.fail(id, 0)
				r.logger.Error("hub not opened", "hub", h.Name, "error", err, "again_in", pause)
			}
			return nil
		})
	}
	_ = group.Wait()
}

// due reports whether a hub that failed may be tried again.
func (r *replicas) due(id tandem.HubID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !time.Now().Before(r.failed[id].again)
}

// fail puts off the next try of a hub that ran for a while, longer each time.
func (r *replicas) fail(id tandem.HubID, ran time.Duration) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	pause := min(max(2*r.failed[id].pause, firstPause), lastPause)
	if ran > lastPause {
		pause = firstPause
	}
	if r.failed == nil {
		r.failed = make(map[tandem.HubID]failure)
	}
	r.failed[id] = failure{time.Now().Add(pause), pause}
	return pause
}

// start opens one of so many hubs.
func (r *replicas) start(ctx context.Context, h catalog.Hub, hubs int) error {
	replica, err := hub.OpenReplica(ctx, hub.ReplicaOptions{
		Info: hub.Info{ID: h.ID, Name: h.Name, Partitions: h.Partitions}, Dir: filepath.Join(r.dir, "views"),
		Region: r.region, Peer: r.peer, Node: r.node, Incarnation: r.incarnation, Store: r.store, Link: r.link, Directory: r.directory,
		Clock: r.clock, Logger: r.logger, Notify: r.notify, Retention: time.Duration(h.RetentionDays) * 24 * time.Hour,
		CacheBytes: int64(max(cacheBytes/hubs, leastCache)), RecentBytes: max(recentBytes/hubs, leastRecent),
	})
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	o := &openHub{replica: replica, stop: stop, done: make(chan struct{})}
	r.mu.Lock()
	if r.open == nil {
		r.open = make(map[tandem.HubID]*openHub)
	}
	r.open[h.ID] = o
	r.mu.Unlock()
	go func() { // ended by openHub.end
		defer close(o.done)
		begun := time.Now()
		err := replica.Run(running)
		if err != nil {
			r.logger.Error("hub closed", "hub", h.Name, "error", err)
		}
		if running.Err() == nil { // by itself
			r.fail(h.ID, time.Since(begun))
			r.forget(h.ID, o)
		}
	}()
	return nil
}

func (r *replicas) forget(id tandem.HubID, o *openHub) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open[id] == o {
		delete(r.open, id)
	}
}

func (o *openHub) end() {
	o.stop()
	<-o.done
}

func (r *replicas) closeAll() {
	r.mu.Lock()
	open := r.open
	r.open = nil
	r.mu.Unlock()
	for _, o := range open {
		o.stop()
	}
	for _, o := range open {
		<-o.done
	}
}

func (r *replicas) find(id tandem.HubID) (*hub.Replica, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o, ok := r.open[id]
	if !ok {
		return nil, false
	}
	return o.replica, true
}

// Replica implements failover.Replicas.
func (r *replicas) Replica(id tandem.HubID) (failover.Replica, bool) {
	replica, ok := r.find(id)
	if !ok {
		return nil, false
	}
	return driven{replica}, true
}

// Hub implements gateway.Hubs.
func (r *replicas) Hub(host string) (gateway.Hub, error) {
	h, err := r.catalog.Hub(host)
	if err != nil {
		return gateway.Hub{}, err
	}
	replica, ok := r.find(h.ID)
	if !ok {
		return gateway.Hub{}, &tandem.Error{Op: "open the hub", Kind: tandem.Unavailable, On: string(h.Name), Hint: "try again in a moment"}
	}
	return gateway.Hub{Resource: h, Handle: replica.Handle()}, nil
}

// acked is what this node's lease says of the hubs it writes.
func (r *replicas) acked() map[tandem.HubID]directory.Acked {
	r.mu.Lock()
	defer r.mu.Unlock()
	acked := make(map[tandem.HubID]directory.Acked)
	for id, o := range r.open {
		if epoch, number, age, ok := o.replica.PeerAcked(); ok {
			acked[id] = directory.Acked{Epoch: epoch, Number: number, AgeMS: age.Milliseconds()}
		}
	}
	return acked
}
