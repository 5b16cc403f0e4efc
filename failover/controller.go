package failover

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"tandem"
	"tandem/directory"
	"tandem/operation"
	"tandem/pairlog"
)

// Lease is this node's proof of life; *directory.Holder is one.
type Lease interface {
	Term() *directory.Term
	// Incarnation is in whose name the node acts now; another one after it was fenced.
	Incarnation() tandem.Incarnation
}

// Taker finds out that another incarnation has stopped; *directory.Taker is one.
type Taker interface {
	Observe(ctx context.Context, incarnation tandem.Incarnation) (directory.Sighting, error)
	Fence(ctx context.Context, incarnation tandem.Incarnation) error
	Forget(incarnation tandem.Incarnation)
}

// Options are what a Controller works on.
type Options struct {
	Region, Peer tandem.RegionName
	Node         tandem.NodeName
	Directory    directory.Store
	Link         pairlog.Link
	Lease        Lease
	Taker        Taker
	Replicas     Replicas
	// Hubs lists the hubs that this region serves; asked a few times a second, it must be cheap.
	Hubs   func() []Hub
	Clock  tandem.Clock
	Logger *slog.Logger
	Notify tandem.Notify // called in the goroutine that does the step; must not block
	TTL    time.Duration // of leases; directory.DefaultTTL when 0
	// Deadline of a pause; PauseDeadline when 0.
	Deadline time.Duration
	// DNS is how long clients may remember an address, for forecasts.
	DNS time.Duration
}

// A Controller opens, closes and moves the hubs of one node, as the rules of this package say. All methods may be called
// at once; those that read or write the directory take its errors.
type Controller struct {
	o      Options
	leases *leases

	mu   sync.Mutex
	hubs map[tandem.HubID]*hubLoop
}

// New returns a controller that does nothing until Run.
func New(o Options) *Controller {
	if o.TTL == 0 {
		o.TTL = directory.DefaultTTL
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Controller{o: o, leases: newLeases(o.Taker, o.Clock, o.TTL), hubs: make(map[tandem.HubID]*hubLoop)}
}

// Run serves the other region's requests and keeps every hub as it has to be, until ctx ends; then its goroutines have
// ended. It leaves the replicas in the role they had.
func (c *Controller) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stops, err := c.serve()
	defer func() {
		for _, stop := range stops {
			stop()
		}
	}()
	if err != nil {
		return err
	}
	var tasks sync.WaitGroup
	tasks.Go(func() { c.leases.run(ctx) })
	tasks.Go(func() { c.watch(ctx, directory.PenPrefix()) })
	tasks.Go(func() { c.watch(ctx, directory.HubOperationKey("")) })
	c.keep(ctx)
	cancel()
	tasks.Wait()
	return nil
}

// keep has one loop running for each hub that exists.
func (c *Controller) keep(ctx context.Context) {
	var loops sync.WaitGroup
	defer loops.Wait()
	stops := make(map[tandem.HubID]context.CancelFunc)
	for {
		present := make(map[tandem.HubID]bool)
		for _, hub := range c.o.Hubs() {
			present[hub.ID] = true
			c.mu.Lock()
			h := c.hubs[hub.ID]
			started := h == nil
			if started {
				h = newHubLoop(c, hub)
				c.hubs[hub.ID] = h
			}
			h.set(hub)
			c.mu.Unlock()
			if started {
				of, stop := context.WithCancel(ctx)
				stops[hub.ID] = stop
				loops.Go(func() { h.run(of) })
			}
		}
		for id, stop := range stops {
			if !present[id] {
				stop()
				delete(stops, id)
				c.mu.Lock()
				delete(c.hubs, id)
				c.mu.Unlock()
			}
		}
		if !c.sleep(ctx, refresh) {
			return
		}
	}
}

// The controller's own rhythm.
const (
	refresh   = 200 * time.Millisecond // the list of hubs
	poll      = 50 * time.Millisecond  // while something is waited for
	idle      = 250 * time.Millisecond // a look at a hub's role
	rereading = 5 * time.Second        // of a pen that nobody said had changed
	asking    = time.Second            // a request to the peer that is not part of a pause
)

func (c *Controller) sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-c.o.Clock.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// watch wakes the loop of each hub whose key under prefix changes.
func (c *Controller) watch(ctx context.Context, prefix string) {
	for ctx.Err() == nil {
		events := c.o.Directory.Watch(ctx, prefix, 0)
		for _, h := range c.loops() { // what changed before the watch began
			h.changed()
		}
		for event := range events {
			if h := c.loop(tandem.HubID(strings.TrimPrefix(event.Item.Key, prefix))); h != nil {
				h.changed()
			}
		}
		c.sleep(ctx, poll)
	}
}

func (c *Controller) loop(hub tandem.HubID) *hubLoop {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hubs[hub]
}

func (c *Controller) loops() []*hubLoop {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]*hubLoop, 0, len(c.hubs))
	for _, h := range c.hubs {
		all = append(all, h)
	}
	return all
}

func (c *Controller) hub(id tandem.HubID) (Hub, bool) {
	for _, h := range c.o.Hubs() {
		if h.ID == id {
			return h, true
		}
	}
	return Hub{}, false
}

// Start checks a request and records it as the hub's operation, durably; either region's controller then carries it out.
// The errors are Check's and operation.ErrBusy.
func (c *Controller) Start(ctx context.Context, r Request) (operation.Operation, error) {
	facts, err := c.startFacts(ctx, &r)
	if err != nil {
		return operation.Operation{}, err
	}
	if facts.Found {
		if running, busy, err := operation.UnderWay(ctx, c.o.Directory, r.Hub); err != nil {
			return operation.Operation{}, err
		} else if busy {
			return operation.Operation{}, &operation.BusyError{Running: running}
		}
	}
	r, kind, err := Check(r, facts)
	if err != nil {
		return operation.Operation{}, err
	}
	return operation.Start(ctx, c.o.Directory, operation.Operation{
		Kind: kind, Hub: r.Hub, HubName: facts.Hub.Name, From: facts.Pen.Region, To: r.To, Epoch: facts.Pen.Epoch,
		AcceptLoss: r.AcceptLoss, Requested: r.Requested, Started: c.o.Clock.Now(),
	})
}

// startFacts reads what Check looks at; it fills in an empty r.To.
func (c *Controller) startFacts(ctx context.Context, r *Request) (StartFacts, error) {
	var f StartFacts
	if f.Hub, f.Found = c.hub(r.Hub); !f.Found {
		return f, nil
	}
	pen, _, err := pairlog.ReadPen(ctx, c.o.Directory, r.Hub)
	if errors.Is(err, pairlog.ErrNoPen) {
		return f, nil
	} else if err != nil {
		return f, err
	}
	f.Pen = pen
	if r.To == "" {
		r.To = f.Hub.Other(pen.Region)
	}
	set, _, err := pairlog.ReadInSync(ctx, c.o.Directory, r.Hub)
	if err != nil {
		return f, err
	}
	f.InSync = synchronous(f.Hub.Mode) && set.Mode == f.Hub.Mode && set.Contains(tandem.ParseRegion(string(r.To)))
	if pen.Region == c.o.Region {
		f.Reached = true
		return f, nil
	}
	f.Lapsed = c.leases.gone(pen.Incarnation)
	f.Reached = !f.Lapsed && c.side(ctx, pen.Region, r.Hub).Known
	return f, nil
}

// side asks a region, or this one, for its part of a hub.
func (c *Controller) side(ctx context.Context, region tandem.RegionName, hub tandem.HubID) Side {
	if region == c.o.Region {
		replica, ok := c.o.Replicas.Replica(hub)
		if !ok {
			return Side{}
		}
		return Side{Known: true, Facts: replica.Facts()}
	}
	if region == "" || !c.o.Link.Up() {
		return Side{}
	}
	var facts ReplicaFacts
	if err := c.ask(ctx, region, verbFacts, asking, request{Hub: hub}, &facts); err != nil {
		return Side{}
	}
	return Side{Known: true, Facts: facts}
}

// Status returns what both regions of a hub say of it; a dark region's Known is false. ErrUnknownHub.
func (c *Controller) Status(ctx context.Context, hub tandem.HubID) (map[tandem.RegionName]Side, error) {
	h, ok := c.hub(hub)
	if !ok {
		return nil, because(ErrUnknownHub, string(hub), "there is no such hub", "")
	}
	sides := map[tandem.RegionName]Side{h.Home: c.side(ctx, h.Home, hub)}
	if h.Peer != "" {
		sides[h.Peer] = c.side(ctx, h.Peer, hub)
	}
	return sides, nil
}

// Forecast works out what a request would cost now. Nothing is changed. A request that Check refuses gives a forecast
// that is not Ready, not an error; ErrUnknownHub.
func (c *Controller) Forecast(ctx context.Context, r Request) (Forecast, error) {
	start, err := c.startFacts(ctx, &r)
	if err != nil {
		return Forecast{}, err
	}
	if !start.Found {
		return Forecast{}, because(ErrUnknownHub, string(r.Hub), "there is no such hub", "")
	}
	f := ForecastFacts{Start: start, LeaseLeft: c.o.TTL + directory.LeaseMargin, DNS: c.o.DNS}
	f.Source = c.side(ctx, start.Pen.Region, r.Hub)
	f.Target = c.side(ctx, start.Hub.Other(start.Pen.Region), r.Hub)
	if f.History, err = operation.List(ctx, c.o.Directory, r.Hub); err != nil {
		return Forecast{}, err
	}
	return NewForecast(r, f), nil
}

// Items calls fn for each stranded item of a complete receipt, oldest first, asking the region that has the tail.
// ErrNoReceipt; Precondition while the receipt is not complete; Unavailable when that region is dark.
func (c *Controller) Items(ctx context.Context, id string, fn func(TailItem) error) error {
	r, err := LoadReceipt(ctx, c.o.Directory, id)
	if err != nil {
		return err
	}
	if r.State != Complete {
		return &tandem.Error{Op: "list the receipt", Kind: tandem.Precondition, On: id, Err: fmt.Errorf("it is %s", r.State),
			Hint: "the items are known once " + r.Region.Display() + " has returned"}
	}
	if r.Region == c.o.Region {
		return c.localItems(ctx, r, pairlog.Position{}, fn)
	}
	after := pairlog.Position{}
	for {
		var page itemsPage
		if err := c.ask(ctx, r.Region, verbItems, 10*asking, request{Hub: r.Hub, Receipt: id, After: after}, &page); err != nil {
			return err
		}
		for _, item := range page.Items {
			if err := fn(item); err != nil {
				return err
			}
			after = item.Position
		}
		if !page.More {
			return nil
		}
	}
}

// localItems lists the items of this region's tails that a receipt covers, beyond a position.
func (c *Controller) localItems(ctx context.Context, r Receipt, after pairlog.Position, fn func(TailItem) error) error {
	replica, ok := c.o.Replicas.Replica(r.Hub)
	if !ok {
		return because(ErrNotReady, string(r.Hub), "the hub is not open here", "")
	}
	for _, epoch := range r.Epochs {
		if epoch < after.Epoch {
			continue
		}
		err := replica.TailItems(ctx, epoch, func(item TailItem) error {
			if !beyond(item.Position, after) {
				return nil
			}
			return fn(item)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func beyond(p, after pairlog.Position) bool {
	switch {
	case p.Epoch != after.Epoch:
		return p.Epoch > after.Epoch
	case p.Number != after.Number:
		return p.Number > after.Number
	}
	return p.Index > after.Index || after.Number == 0
}
