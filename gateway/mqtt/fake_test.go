package mqtt_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"tandem"
	"tandem/catalog"
	"tandem/gateway"
	"tandem/gateway/mqtt"
	"tandem/hub"
)

var (
	deviceKey = []byte("the device's primary key")
	policyKey = []byte("the key of a policy ....")
)

// fakeHub is a hub that keeps messages in memory and answers in groups, as the real one does. Its methods that a test
// sets are read under mu.
type fakeHub struct {
	hub.Handle // what is not faked panics

	mu       sync.Mutex
	devices  map[tandem.DeviceID]hub.Device
	stale    map[tandem.DeviceID]hub.Device // what Identity answers instead
	sessions map[tandem.DeviceID]func(error)
	counter  uint64
	failing  func(*hub.Command) error // the outcome of a command
	connect  error                    // what Connect answers
	held     bool                     // nothing is answered meanwhile
	forget   bool                     // messages are not kept
	slow     time.Duration            // how long Submit takes, as while a hub moves
	queue    []queued
	kept     []hub.Message
	commands []hub.Command
	ended    int // Disconnects
	wake     chan struct{}
}

type queued struct {
	command hub.Command
	waiter  hub.Waiter
	tag     uint64
}

func newFakeHub(t testing.TB) *fakeHub {
	h := &fakeHub{devices: map[tandem.DeviceID]hub.Device{}, stale: map[tandem.DeviceID]hub.Device{},
		sessions: map[tandem.DeviceID]func(error){}, wake: make(chan struct{}, 1)}
	h.add("d1")
	stop := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-h.wake:
				h.commit()
			case <-stop:
				return
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-ended })
	return h
}

func (h *fakeHub) add(id string) {
	h.devices[tandem.DeviceID(id)] = hub.Device{ID: id, Status: hub.Enabled, Auth: hub.Auth{Type: hub.AuthSAS, PrimaryKey: deviceKey}}
}

// commit answers what is queued, as one group.
func (h *fakeHub) commit() {
	h.mu.Lock()
	if h.held {
		h.mu.Unlock()
		return
	}
	group, failing := h.queue, h.failing
	h.queue = nil
	h.mu.Unlock()
	waiters := map[hub.Waiter]bool{}
	for _, q := range group {
		var o hub.Outcome
		if failing != nil {
			o.Err = failing(&q.command)
		}
		if o.Err == nil && !h.forget {
			m, err := hub.DecodeMessage(q.command.Body)
			if err != nil {
				panic(err)
			}
			h.mu.Lock()
			h.kept = append(h.kept, m)
			h.commands = append(h.commands, q.command)
			h.mu.Unlock()
		}
		q.waiter.Resolved(q.tag, &o)
		waiters[q.waiter] = true
	}
	for w := range waiters {
		w.Flush()
	}
}

func (h *fakeHub) poke() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// hold keeps answers back until the function it returns is called.
func (h *fakeHub) hold() (release func()) {
	h.mu.Lock()
	h.held = true
	h.mu.Unlock()
	return func() {
		h.mu.Lock()
		h.held = false
		h.mu.Unlock()
		h.poke()
	}
}

func (h *fakeHub) messages() []hub.Message {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]hub.Message(nil), h.kept...)
}

func (h *fakeHub) queuedBytes() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, q := range h.queue {
		n += len(q.command.Body)
	}
	return n
}

func (h *fakeHub) Info() hub.Info {
	return hub.Info{ID: "00000000000000f1", Name: "fab", Partitions: 4}
}

func (h *fakeHub) Identity(ctx context.Context, id tandem.DeviceID) (hub.Device, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if d, ok := h.stale[id]; ok {
		return d, nil
	}
	return h.find(id)
}

func (h *fakeHub) Device(ctx context.Context, id tandem.DeviceID) (hub.Device, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.find(id)
}

func (h *fakeHub) find(id tandem.DeviceID) (hub.Device, error) {
	if d, ok := h.devices[id]; ok {
		return d, nil
	}
	return hub.Device{}, hub.ErrDeviceNotFound
}

func (h *fakeHub) Connect(ctx context.Context, id tandem.DeviceID, drop func(error)) (hub.SessionNumber, error) {
	h.mu.Lock()
	if h.connect != nil {
		defer h.mu.Unlock()
		return hub.SessionNumber{}, h.connect
	}
	older := h.sessions[id]
	h.sessions[id] = drop
	h.counter++
	n := hub.SessionNumber{Epoch: 1, Counter: h.counter}
	h.mu.Unlock()
	if older != nil {
		older(hub.ErrSessionTaken)
	}
	return n, nil
}

// drop ends a device's session from the hub's side.
func (h *fakeHub) drop(id tandem.DeviceID, reason error) {
	h.mu.Lock()
	drop := h.sessions[id]
	delete(h.sessions, id)
	h.mu.Unlock()
	drop(reason)
}

func (h *fakeHub) Disconnect(id tandem.DeviceID, n hub.SessionNumber) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended++
	if n.Counter == h.counter {
		delete(h.sessions, id)
	}
}

func (h *fakeHub) Submit(ctx context.Context, c *hub.Command, w hub.Waiter, tag uint64) error {
	q := queued{*c, w, tag}
	q.command.Body = append([]byte(nil), c.Body...)
	time.Sleep(h.slow)
	h.mu.Lock()
	h.queue = append(h.queue, q)
	h.mu.Unlock()
	h.poke()
	return nil
}

func (h *fakeHub) Do(ctx context.Context, c *hub.Command) (hub.Outcome, error) {
	w := make(doWaiter, 1)
	_ = h.Submit(ctx, c, w, 0)
	select {
	case o := <-w:
		return o, o.Err
	case <-ctx.Done():
		return hub.Outcome{}, hub.ErrMoving
	}
}

type doWaiter chan hub.Outcome

func (w doWaiter) Resolved(_ uint64, o *hub.Outcome) { w <- *o }
func (w doWaiter) Flush()                            {}

// fakeHubs knows one hub, by two names.
type fakeHubs struct{ handle hub.Handle }

func (f fakeHubs) Hub(host string) (gateway.Hub, error) {
	switch host {
	case "fab.example", "localhost":
		return gateway.Hub{Handle: f.handle, Resource: catalog.Hub{ID: "00000000000000f1", Name: "fab", Policies: []catalog.Policy{
			{Name: "device", Primary: base64Of(policyKey), Rights: "DeviceConnect"},
			{Name: "service", Primary: base64Of(policyKey), Rights: "ServiceConnect"},
		}}}, nil
	case "moving.example":
		return gateway.Hub{}, hub.ErrMoving
	}
	return gateway.Hub{}, catalog.ErrHubNotFound
}

// newServer is a server over one fake hub; change may be nil.
func newServer(t testing.TB, h *fakeHub, change func(*mqtt.Options)) *mqtt.Server {
	t.Helper()
	options := mqtt.Options{Hubs: fakeHubs{h}, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
	if change != nil {
		change(&options)
	}
	s, err := mqtt.New(options)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// listen serves s on loopback through a gate, plain, and returns the address.
func listen(t testing.TB, s *mqtt.Server) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	gate := gateway.NewGate(gateway.HandshakeOptions{Within: 10 * time.Second}, nil)
	go func() { ended <- gate.Serve(ctx, l, nil, s.Serve) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Serve: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("the server did not end with its context")
		}
	})
	return l.Addr().String()
}
