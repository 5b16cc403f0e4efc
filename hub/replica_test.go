package hub_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"tandem"
	"tandem/directory"
	"tandem/hub"
	"tandem/pairlog"
)

// pair is two regions of one hub in one process, on memory stores and a memory link.
type pair struct {
	t       *testing.T
	dir     *directory.Memory
	net     *pairlog.MemoryNetwork
	regions map[tandem.RegionName]*place
	pen     pairlog.Pen
	options func(*hub.ReplicaOptions)
	notify  tandem.Notify
}

type place struct {
	replica *hub.Replica
	peer    tandem.RegionName
	store   *pairlog.Memory
	dir     string
	stop    func()
}

const hubID tandem.HubID = "00000000000000aa"

func newPair(t *testing.T, options ...func(*hub.ReplicaOptions)) *pair {
	t.Helper()
	p := &pair{t: t, dir: directory.NewMemory(), net: pairlog.NewMemoryNetwork(), regions: map[tandem.RegionName]*place{}}
	p.options = func(o *hub.ReplicaOptions) {
		for _, set := range options {
			set(o)
		}
	}
	p.open("a", "b", pairlog.NewMemory())
	p.open("b", "a", pairlog.NewMemory())
	p.claim("a", 1, pairlog.Fork{}, false)
	return p
}

func (p *pair) open(region, peer tandem.RegionName, store *pairlog.Memory) {
	p.t.Helper()
	p.openAt(region, peer, store, p.t.TempDir())
}

func (p *pair) openAt(region, peer tandem.RegionName, store *pairlog.Memory, dir string) {
	p.t.Helper()
	o := hub.ReplicaOptions{
		Info: hub.Info{ID: hubID, Name: "fab", Partitions: 4}, Dir: dir, Region: region, Peer: peer,
		Node: tandem.NodeName(region + "-0"), Incarnation: tandem.Incarnation(region + "-life"), Store: store, Link: p.net.Link(region),
		Directory: p.dir.Client(string(region)), Clock: tandem.SystemClock{}, Logger: logger(),
		Notify: func(n tandem.Notice) { p.notify.Send(n) },
	}
	p.options(&o)
	replica, err := hub.OpenReplica(p.t.Context(), o)
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- replica.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			p.t.Error(err)
		}
	})
	p.t.Cleanup(stop)
	p.regions[region] = &place{replica, peer, store, dir, stop}
}

// claim gives region the pen and lets the other one follow it.
func (p *pair) claim(region tandem.RegionName, epoch tandem.Epoch, fork pairlog.Fork, forced bool) {
	p.t.Helper()
	ctx := p.t.Context()
	dir := p.dir.Client(string(region))
	old, revision, err := pairlog.ReadPen(ctx, dir, hubID)
	if err != nil && !errors.Is(err, pairlog.ErrNoPen) {
		p.t.Fatal(err)
	}
	pen := pairlog.Pen{
		Hub: hubID, Epoch: epoch, Region: region, Incarnation: tandem.Incarnation(region + "-life"), Fork: fork, Forced: forced,
		Forks: pairlog.Extend(old.Forks, pairlog.Branch{Epoch: epoch, Holder: region, Forced: forced, Fork: fork}),
	}
	pen, _, err = pairlog.ClaimPen(ctx, dir, pairlog.Claim{Pen: pen, Open: true, From: old.Epoch, PenRevision: revision})
	if err != nil {
		p.t.Fatal(err)
	}
	p.pen = pen
	if err := p.regions[region].replica.Lead(ctx, pen, context.Background(), pairlog.Async, func() bool { return true }); err != nil {
		p.t.Fatal(err)
	}
	for name, other := range p.regions {
		if name != region {
			if err := other.replica.FollowPen(ctx, pen); err != nil {
				p.t.Fatal(err)
			}
		}
	}
}

// claimOnly gives region the pen after a forced claim, while the other one is dark.
func (p *pair) claimOnly(region tandem.RegionName, epoch tandem.Epoch, fork pairlog.Fork) {
	p.t.Helper()
	others := p.regions
	p.regions = map[tandem.RegionName]*place{region: others[region]}
	p.claim(region, epoch, fork, true)
	p.regions = others
}

// move is a planned move to region.
func (p *pair) move(region tandem.RegionName) {
	p.t.Helper()
	at, err := p.regions[p.pen.Region].replica.Close(p.t.Context(), p.pen.Epoch, region)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.regions[region].replica.Reach(p.t.Context(), at); err != nil {
		p.t.Fatal(err)
	}
	p.claim(region, p.pen.Epoch+1, at.Fork, false)
}

func (p *pair) handle(region tandem.RegionName) hub.Handle { return p.regions[region].replica.Handle() }

func (p *pair) device(region tandem.RegionName, id tandem.DeviceID) {
	p.t.Helper()
	_, err := p.handle(region).Do(p.t.Context(), create(id))
	if err != nil {
		p.t.Fatal(err)
	}
}

func create(id tandem.DeviceID) *hub.Command {
	return &hub.Command{Op: hub.OpDeviceCreate, Device: id, Body: hub.AppendDeviceChange(nil, &hub.DeviceChange{
		Op: hub.OpDeviceCreate, ID: string(id), Status: hub.Enabled, Auth: hub.Auth{Type: hub.AuthSAS, PrimaryKey: []byte("k1"), SecondaryKey: []byte("k2")},
	})}
}

func telemetry(id tandem.DeviceID, n int) *hub.Command {
	m := hub.Message{MessageID: fmt.Sprint(n), Body: []byte("payload")}
	return &hub.Command{Op: hub.OpTelemetry, Device: id, Body: hub.AppendMessage(nil, &m)}
}

// sender counts outcomes.
type sender struct {
	mu       sync.Mutex
	order    []uint64
	failures []error
}

func (s *sender) Resolved(tag uint64, o *hub.Outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.order = append(s.order, tag)
	if o.Err != nil {
		s.failures = append(s.failures, o.Err)
	}
}
func (s *sender) Flush() {}

func (s *sender) resolved() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.order)
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not so after 20 s", what)
		}
	}
}

func (p *pair) events(region tandem.RegionName, want int) map[tandem.DeviceID][]string {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 20*time.Second)
	defer cancel()
	reader, err := p.handle(region).Events(ctx, hub.EventStart{Partition: -1})
	if err != nil {
		p.t.Fatal(err)
	}
	ids := map[tandem.DeviceID][]string{}
	for n := 0; n < want; n++ {
		e, err := reader.Next(ctx)
		if err != nil {
			p.t.Fatalf("event %d of %d: %v", n, want, err)
		}
		ids[e.Device] = append(ids[e.Device], e.Message.MessageID)
	}
	if e, more, err := reader.Poll(ctx); more || err != nil {
		p.t.Fatalf("one event more than sent: %+v, %v", e, err)
	}
	return ids
}

func TestMovesLoseAndRepeatNothing(t *testing.T) {
	p := newPair(t)
	p.device("a", "here")
	p.device("b", "there")
	const each = 2000
	var senders [2]sender
	var group sync.WaitGroup
	for i, region := range []tandem.RegionName{"a", "b"} {
		id := tandem.DeviceID([]string{"here", "there"}[i])
		group.Go(func() {
			for n := range each {
				if err := p.handle(region).Submit(t.Context(), telemetry(id, n), &senders[i], uint64(n)); err != nil {
					t.Error(err)
					return
				}
				if n%50 == 0 {
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	for _, to := range []tandem.RegionName{"b", "a", "b", "a"} {
		time.Sleep(5 * time.Millisecond)
		p.move(to)
	}
	group.Wait()
	eventually(t, "all resolved", func() bool { return senders[0].resolved() == each && senders[1].resolved() == each })
	for i := range senders {
		if len(senders[i].failures) > 0 {
			t.Fatalf("%d failures, first %v", len(senders[i].failures), senders[i].failures[0])
		}
		for n, tag := range senders[i].order {
			if int(tag) != n {
				t.Fatalf("outcome %d came at place %d", tag, n)
			}
		}
	}
	for id, ids := range p.events("a", 2*each) {
		for n, got := range ids {
			if got != fmt.Sprint(n) {
				t.Fatalf("device %s: message %s at place %d", id, got, n)
			}
		}
	}
}

func TestForcedMoveKeepsWhatTheOtherDoorSent(t *testing.T) {
	p := newPair(t)
	p.device("a", "here")
	p.device("b", "there")
	eventually(t, "b has the devices", func() bool { return p.regions["b"].replica.Facts().Applied == p.regions["a"].replica.Facts().Applied })
	p.net.Cut("a", "b") // b's copy ends here
	var s sender
	for n := range 100 {
		if err := p.handle("b").Submit(t.Context(), telemetry("there", n), &s, uint64(n)); err != nil {
			t.Fatal(err)
		}
		if _, err := p.handle("a").Do(t.Context(), telemetry("here", n)); err != nil {
			t.Fatal(err)
		}
	}
	p.regions["a"].replica.Fence()
	fork, err := p.regions["b"].replica.EndCopy(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	p.net.Join("a", "b")
	p.claim("b", 2, fork, true)
	eventually(t, "b's door is answered", func() bool { return s.resolved() == 100 })
	if ids := p.events("b", 100); len(ids["there"]) != 100 {
		t.Fatalf("events after the forced move: %v", ids)
	}
	var stranded int
	err = p.regions["a"].replica.TailItems(t.Context(), 1, func(item hub.TailItem) error {
		if item.Device != "here" || item.Kind != "telemetry" {
			t.Errorf("unexpected item %+v", item)
		}
		stranded++
		return nil
	})
	if err != nil || stranded != 100 {
		t.Fatalf("%d stranded items, %v", stranded, err)
	}
	eventually(t, "a follows", func() bool { return p.regions["a"].replica.Facts().Applied == p.regions["b"].replica.Facts().Applied })
	p.move("a") // compares the state roots
}

func TestNewestSessionWinsAcrossRegions(t *testing.T) {
	p := newPair(t)
	p.device("a", "d")
	dropped := make(chan error, 2)
	first, err := p.handle("b").Connect(t.Context(), "d", func(err error) { dropped <- err })
	if err != nil {
		t.Fatal(err)
	}
	second, err := p.handle("a").Connect(t.Context(), "d", func(err error) { dropped <- err })
	if err != nil {
		t.Fatal(err)
	}
	if !first.Before(second) {
		t.Fatalf("session %v came after %v", second, first)
	}
	if err := <-dropped; !errors.Is(err, hub.ErrSessionTaken) {
		t.Fatalf("dropped with %v", err)
	}
	late := telemetry("d", 1)
	late.Session = first
	if _, err := p.handle("b").Do(t.Context(), late); !errors.Is(err, hub.ErrSessionTaken) {
		t.Fatalf("the older session's message: %v", err)
	}
	p.move("b")
	late.Session = second
	if _, err := p.handle("a").Do(t.Context(), late); err != nil {
		t.Fatalf("the newest session's message after a move: %v", err)
	}
}

func TestDisabledDeviceIsDroppedEverywhere(t *testing.T) {
	p := newPair(t)
	p.device("a", "d")
	dropped := make(chan error, 1)
	if _, err := p.handle("b").Connect(t.Context(), "d", func(err error) { dropped <- err }); err != nil {
		t.Fatal(err)
	}
	_, err := p.handle("a").Do(t.Context(), &hub.Command{Op: hub.OpDeviceUpdate, Device: "d", IfMatch: "*", Body: hub.AppendDeviceChange(nil, &hub.DeviceChange{
		Op: hub.OpDeviceUpdate, ID: "d", IfMatch: "*", Status: hub.Disabled, Auth: hub.Auth{Type: hub.AuthSAS, PrimaryKey: []byte("k1"), SecondaryKey: []byte("k2")},
	})})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-dropped; !errors.Is(err, hub.ErrDeviceDisabled) {
		t.Fatalf("dropped with %v", err)
	}
	if _, err := p.handle("b").Do(t.Context(), telemetry("d", 1)); tandem.KindOf(err) != tandem.Forbidden {
		t.Fatalf("a disabled device's message: %v", err)
	}
}

func TestRevocationOutlivesTheLossOfItsRecord(t *testing.T) {
	p := newPair(t)
	p.device("a", "stolen")
	eventually(t, "b has the device", func() bool { return p.regions["b"].replica.Facts().Applied == p.regions["a"].replica.Facts().Applied })
	p.net.Cut("a", "b")
	if _, err := p.handle("a").Do(t.Context(), &hub.Command{Op: hub.OpDeviceDelete, Device: "stolen", IfMatch: "*"}); err != nil {
		t.Fatal(err)
	}
	p.regions["a"].replica.Fence()
	fork, err := p.regions["b"].replica.EndCopy(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	p.net.Join("a", "b")
	p.claim("b", 2, fork, true)
	if _, err := p.handle("b").Device(t.Context(), "stolen"); !errors.Is(err, hub.ErrDeviceNotFound) {
		t.Fatalf("the deleted device after a forced move: %v", err)
	}
}

// logger shows what replicas say with go test -v and TANDEM_TEST_LOG set.
func logger() *slog.Logger {
	if testing.Verbose() && os.Getenv("TANDEM_TEST_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return slog.New(slog.DiscardHandler)
}
