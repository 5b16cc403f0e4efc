package failover_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"tandem"
	"tandem/directory"
	"tandem/failover"
	"tandem/operation"
	"tandem/pairlog"
)

const (
	hubID tandem.HubID      = "00000000000000a1"
	west  tandem.RegionName = "westus2"
	east  tandem.RegionName = "westcentralus"
	ttl                     = 400 * time.Millisecond
)

// A world is two regions with real controllers, leases and a directory, over replicas that only pretend.
type world struct {
	t      *testing.T
	memory *directory.Memory
	net    *pairlog.MemoryNetwork
	mode   pairlog.Mode
	disks  map[tandem.RegionName]*disk
	stop   chan struct{}

	mu     sync.Mutex
	lives  int
	nodes  map[tandem.RegionName]*node
	acked  []string
	cut    bool
	onStep func(region tandem.RegionName, s failover.StepDone)
}

type rec struct {
	Epoch  tandem.Epoch
	Number uint64
	Text   string
}

// A disk is what outlives a process. Guarded by world.mu.
type disk struct {
	chain []rec
	tails map[tandem.Epoch][]rec
	ended map[tandem.Epoch]bool
}

func (d *disk) end() pairlog.Fork {
	if len(d.chain) == 0 {
		return pairlog.Fork{}
	}
	last := d.chain[len(d.chain)-1]
	return pairlog.Fork{Epoch: last.Epoch, Number: last.Number}
}

// A node is one life of one region's process.
type node struct {
	w           *world
	region      tandem.RegionName
	incarnation tandem.Incarnation
	holder      *directory.Holder
	controller  *failover.Controller
	cancel      context.CancelFunc
	done        chan struct{}

	// guarded by world.mu
	dead   bool
	role   failover.Role
	pen    pairlog.Pen
	valid  func() bool
	closed map[tandem.Epoch]failover.ClosedAt
	led    int
}

func newWorld(t *testing.T, mode pairlog.Mode) *world {
	w := &world{t: t, memory: directory.NewMemory(), net: pairlog.NewMemoryNetwork(), mode: mode, stop: make(chan struct{}),
		disks: map[tandem.RegionName]*disk{}, nodes: map[tandem.RegionName]*node{}}
	for _, r := range []tandem.RegionName{west, east} {
		w.disks[r] = &disk{tails: map[tandem.Epoch][]rec{}, ended: map[tandem.Epoch]bool{}}
	}
	for _, r := range []tandem.RegionName{west, east} {
		w.boot(r)
	}
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		for {
			select {
			case <-w.stop:
				return
			case <-time.After(time.Millisecond):
				w.copy()
			}
		}
	}()
	t.Cleanup(func() {
		close(w.stop)
		<-copied
		for _, r := range []tandem.RegionName{west, east} {
			w.crash(r)
		}
	})
	return w
}

// boot starts a region's process anew; it fences its former life, as package region does.
func (w *world) boot(region tandem.RegionName) *node {
	w.t.Helper()
	store := w.memory.Client(string(region))
	w.mu.Lock()
	w.lives++
	n := &node{w: w, region: region, incarnation: tandem.Incarnation(fmt.Sprintf("%s-%d", region, w.lives)), done: make(chan struct{}),
		role: failover.RoleFenced, closed: map[tandem.Epoch]failover.ClosedAt{}}
	former := w.nodes[region]
	w.nodes[region] = n
	w.mu.Unlock()
	if former != nil {
		if err := directory.FenceFormer(context.Background(), store, former.incarnation, n.incarnation); err != nil {
			w.t.Fatal(err)
		}
	}
	logger := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		logger = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("at", n.incarnation)
	}
	clock := tandem.SystemClock{}
	n.holder = directory.NewHolder(store, clock, directory.HolderOptions{Incarnation: n.incarnation, TTL: ttl})
	peer, _ := tandem.Pair{A: west, B: east}.Other(region)
	n.controller = failover.New(failover.Options{
		Region: region, Peer: peer, Node: tandem.NodeName(region + "-0"), Directory: store, Link: w.net.Link(region),
		Lease: n.holder, Taker: directory.NewTaker(store, clock, n.incarnation, ttl), Replicas: n,
		Hubs: func() []failover.Hub {
			return []failover.Hub{{ID: hubID, Name: "fab", Home: west, Peer: east, Mode: w.mode}}
		},
		Clock: clock, Logger: logger, TTL: ttl, Deadline: time.Second,
		Notify: func(x tandem.Notice) {
			if s, ok := x.(failover.StepDone); ok {
				w.mu.Lock()
				on := w.onStep
				w.mu.Unlock()
				if on != nil {
					on(region, s)
				}
			}
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	var tasks sync.WaitGroup
	tasks.Go(func() { _ = n.holder.Keep(ctx, func(context.Context) error { return nil }) })
	tasks.Go(func() {
		if err := n.controller.Run(ctx); err != nil {
			w.t.Error(err)
		}
	})
	go func() { tasks.Wait(); close(n.done) }()
	return n
}

// kill ends a process from inside one of its own goroutines: nothing it does afterwards has an effect.
func (w *world) kill(region tandem.RegionName) {
	w.mu.Lock()
	n := w.nodes[region]
	n.dead, n.role = true, failover.RoleFenced
	w.mu.Unlock()
	n.cancel()
}

func (w *world) crash(region tandem.RegionName) {
	w.kill(region)
	w.mu.Lock()
	n := w.nodes[region]
	w.mu.Unlock()
	<-n.done
}

func (w *world) cutLink(cut bool) {
	w.mu.Lock()
	w.cut = cut
	w.mu.Unlock()
	if cut {
		w.net.Cut(west, east)
	} else {
		w.net.Join(west, east)
	}
}

// copy is both followers.
func (w *world) copy() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut {
		return
	}
	for region, n := range w.nodes {
		d := w.disks[region]
		if n.dead || n.role != failover.RoleFollower || d.ended[n.pen.Epoch] {
			continue
		}
		from := w.disks[n.pen.Region]
		if w.nodes[n.pen.Region].dead {
			continue
		}
		for _, r := range from.chain[min(len(d.chain), len(from.chain)):] {
			if r.Epoch <= n.pen.Epoch {
				d.chain = append(d.chain, r)
			}
		}
	}
}

// send is a device at whichever region answers; true when it was acknowledged.
func (w *world) send(text string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, region := range []tandem.RegionName{west, east} {
		n, d := w.nodes[region], w.disks[region]
		if n.dead || n.role != failover.RoleHolder {
			continue
		}
		d.chain = append(d.chain, rec{n.pen.Epoch, uint64(len(d.chain) + 1), text})
		if n.valid() {
			w.acked = append(w.acked, text)
			return true
		}
	}
	return false
}

// holder waits until exactly one region answers and the other follows it to the end.
func (w *world) holder() tandem.RegionName {
	w.t.Helper()
	var at tandem.RegionName
	w.wait("one region to answer and the other to follow", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		holders, followers := 0, 0
		for region, n := range w.nodes {
			switch {
			case n.role == failover.RoleHolder && n.valid():
				holders, at = holders+1, region
			case n.role == failover.RoleFollower:
				followers++
			}
		}
		return holders == 1 && followers == 1 && w.disks[west].end() == w.disks[east].end()
	})
	return at
}

func (w *world) wait(what string, ok func() bool) {
	w.t.Helper()
	for range 3000 {
		if ok() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	w.t.Fatalf("waited in vain for %s", what)
}

func (w *world) dir() directory.Store { return w.memory.Client("witness") }

func (w *world) controller(region tandem.RegionName) *failover.Controller {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.nodes[region].controller
}

// start asks a region for a move.
func (w *world) start(at tandem.RegionName, r failover.Request) operation.Operation {
	w.t.Helper()
	r.Hub, r.Requested = hubID, "ann"
	o, err := w.controller(at).Start(w.t.Context(), r)
	if err != nil {
		w.t.Fatal(err)
	}
	return o
}

// end waits for an operation to end.
func (w *world) end(o operation.Operation) (operation.Operation, failover.Report) {
	w.t.Helper()
	w.wait("the end of "+o.ID, func() bool {
		got, err := operation.Load(w.t.Context(), w.dir(), o.ID)
		if err != nil {
			w.t.Fatal(err)
		}
		o = got
		return o.Status.Ended()
	})
	report, ok := failover.ReportOf(o)
	if !ok {
		w.t.Errorf("%s has no report", o.ID)
	}
	return o, report
}

// missing are the acknowledged messages that are not in the log of a region.
func (w *world) missing(region tandem.RegionName) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var missing []string
	for _, text := range w.acked {
		if !slices.ContainsFunc(w.disks[region].chain, func(r rec) bool { return r.Text == text }) {
			missing = append(missing, text)
		}
	}
	return missing
}

// The replica's part.

var errDead = errors.New("this process is dead")

func (n *node) lock() error {
	n.w.mu.Lock()
	if n.dead {
		n.w.mu.Unlock()
		return errDead
	}
	return nil
}

func (n *node) Replica(tandem.HubID) (failover.Replica, bool) { return n, true }

func (n *node) Facts() failover.ReplicaFacts {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	d := n.w.disks[n.region]
	f := failover.ReplicaFacts{Region: n.region, Role: n.role, End: d.end(), Applied: d.end(), Sessions: 3}
	if n.role == failover.RoleHolder && !n.valid() {
		n.role, f.Role = failover.RoleFenced, failover.RoleFenced
	}
	f.Epoch = f.End.Epoch
	if n.role == failover.RoleFollower {
		from := n.w.disks[n.pen.Region]
		f.Lag.Known = !n.w.cut && !n.w.nodes[n.pen.Region].dead
		f.Lag.Items = uint64(max(0, len(from.chain)-len(d.chain)))
		f.Lag.Records = f.Lag.Items
	}
	return f
}

func (n *node) Prepare(context.Context, tandem.Epoch) error { return nil }

func (n *node) Close(_ context.Context, epoch tandem.Epoch, _ tandem.RegionName) (failover.ClosedAt, error) {
	if err := n.lock(); err != nil {
		return failover.ClosedAt{}, err
	}
	defer n.w.mu.Unlock()
	if at, ok := n.closed[epoch]; ok {
		return at, nil
	}
	if n.role != failover.RoleHolder || n.pen.Epoch != epoch || !n.valid() {
		return failover.ClosedAt{}, &tandem.Error{Op: "close", Kind: tandem.Fenced}
	}
	d := n.w.disks[n.region]
	d.chain = append(d.chain, rec{epoch, uint64(len(d.chain) + 1), "CLOSE"})
	n.role = failover.RoleClosed
	n.closed[epoch] = failover.ClosedAt{Fork: d.end()}
	return n.closed[epoch], nil
}

func (n *node) Reach(ctx context.Context, at failover.ClosedAt) error {
	for {
		if err := n.lock(); err != nil {
			return err
		}
		end := n.w.disks[n.region].end()
		n.w.mu.Unlock()
		if end.Number >= at.Fork.Number {
			if end != at.Fork {
				return pairlog.ErrDamaged
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return &tandem.Error{Op: "reach", Kind: tandem.Timeout}
		case <-time.After(time.Millisecond):
		}
	}
}

func (n *node) EndCopy(_ context.Context, epoch tandem.Epoch) (pairlog.Fork, error) {
	if err := n.lock(); err != nil {
		return pairlog.Fork{}, err
	}
	defer n.w.mu.Unlock()
	n.role = failover.RoleFenced
	d := n.w.disks[n.region]
	d.ended[epoch] = true
	return d.end(), nil
}

func (n *node) ResumeCopy(_ context.Context, epoch tandem.Epoch) error {
	if err := n.lock(); err != nil {
		return err
	}
	defer n.w.mu.Unlock()
	delete(n.w.disks[n.region].ended, epoch)
	return nil
}

func (n *node) Lead(_ context.Context, pen pairlog.Pen, term context.Context, _ pairlog.Mode, valid func() bool) error {
	if err := n.lock(); err != nil {
		return err
	}
	defer n.w.mu.Unlock()
	d := n.w.disks[n.region]
	if d.end() != pen.Fork || term.Err() != nil {
		return fmt.Errorf("at %v, pen goes on after %v", d.end(), pen.Fork)
	}
	for _, other := range n.w.nodes { // promise 5
		if other != n && !other.dead && other.role == failover.RoleHolder && other.valid() {
			n.w.t.Errorf("%s opens while %s still answers", n.region, other.region)
		}
	}
	d.chain = append(d.chain, rec{pen.Epoch, uint64(len(d.chain) + 1), "PEN"})
	n.role, n.pen, n.valid = failover.RoleHolder, pen, valid
	n.led++
	return nil
}

func (n *node) FollowPen(_ context.Context, pen pairlog.Pen) error {
	if err := n.lock(); err != nil {
		return err
	}
	defer n.w.mu.Unlock()
	d := n.w.disks[n.region]
	for i, r := range d.chain {
		if !failover.InChain(pen, pairlog.Fork{Epoch: r.Epoch, Number: r.Number}) {
			for _, lost := range d.chain[i:] {
				d.tails[lost.Epoch] = append(d.tails[lost.Epoch], lost)
			}
			d.chain = slices.Clone(d.chain[:i])
			break
		}
	}
	n.role, n.pen = failover.RoleFollower, pen
	return nil
}

func (n *node) Fence() {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	n.role = failover.RoleFenced
}

func (n *node) Tails(context.Context) ([]pairlog.Tail, error) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	var tails []pairlog.Tail
	for epoch, recs := range n.w.disks[n.region].tails {
		tails = append(tails, pairlog.Tail{Epoch: epoch, Holder: n.region, First: recs[0].Number, Last: recs[len(recs)-1].Number, Records: uint64(len(recs))})
	}
	return tails, nil
}

func (n *node) TailItems(_ context.Context, epoch tandem.Epoch, fn func(failover.TailItem) error) error {
	n.w.mu.Lock()
	recs := slices.Clone(n.w.disks[n.region].tails[epoch])
	n.w.mu.Unlock()
	for _, r := range recs {
		if r.Text == "PEN" || r.Text == "CLOSE" {
			continue
		}
		item := failover.TailItem{Position: pairlog.Position{Epoch: r.Epoch, Number: r.Number}, Kind: "telemetry", MessageID: r.Text, Bytes: 1}
		if err := fn(item); err != nil {
			return err
		}
	}
	return nil
}
