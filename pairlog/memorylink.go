package pairlog

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"time"

	"tandem"
)

const (
	maxInFlight  = 256     // calls a Link's server runs at once, per subject
	maxLinkBytes = 1 << 20 // a Link's largest payload
)

// MemoryNetwork joins the Links of several regions in one process, for tests and simulations.
type MemoryNetwork struct {
	mu    sync.Mutex
	nodes map[tandem.RegionName]*MemoryLink
	cuts  map[tandem.Pair]chan struct{} // closed on Join
	torn  map[tandem.Pair]chan struct{} // closed on Cut
	delay time.Duration
	clock tandem.Clock
}

// NewMemoryNetwork returns a network without delays or cuts, on the machine's clock.
func NewMemoryNetwork() *MemoryNetwork {
	return &MemoryNetwork{
		nodes: make(map[tandem.RegionName]*MemoryLink),
		cuts:  make(map[tandem.Pair]chan struct{}),
		torn:  make(map[tandem.Pair]chan struct{}),
		clock: tandem.SystemClock{},
	}
}

// SetClock makes delays pass on this clock.
func (n *MemoryNetwork) SetClock(c tandem.Clock) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.clock = c
}

// Link returns the region's end; the same name gives the same end.
func (n *MemoryNetwork) Link(region tandem.RegionName) *MemoryLink {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.nodes[region]
	if l == nil {
		l = &MemoryLink{net: n, region: region, served: make(map[string]*memoryService), received: make(map[string][]*memoryInbox)}
		n.nodes[region] = l
	}
	return l
}

// Cut stops everything between two regions: requests fail at once, answers under way and messages are lost.
func (n *MemoryNetwork) Cut(a, b tandem.RegionName) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := pairOf(a, b)
	if n.cuts[p] != nil {
		return
	}
	n.cuts[p] = make(chan struct{})
	if torn := n.torn[p]; torn != nil {
		close(torn)
		delete(n.torn, p)
	}
}

// Join ends a Cut.
func (n *MemoryNetwork) Join(a, b tandem.RegionName) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if p := pairOf(a, b); n.cuts[p] != nil {
		close(n.cuts[p])
		delete(n.cuts, p)
	}
}

// Delay makes everything between regions take d one way, from now on.
func (n *MemoryNetwork) Delay(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.delay = d
}

func pairOf(a, b tandem.RegionName) tandem.Pair {
	if b < a {
		a, b = b, a
	}
	return tandem.Pair{A: a, B: b}
}

// path returns the other end, the delay and a channel that a cut closes; ok is false while cut.
func (n *MemoryNetwork) path(from, to tandem.RegionName) (l *MemoryLink, delay <-chan time.Time, torn <-chan struct{}, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := pairOf(from, to)
	if n.cuts[p] != nil {
		return nil, nil, nil, false
	}
	if n.torn[p] == nil {
		n.torn[p] = make(chan struct{})
	}
	if n.delay > 0 && from != to {
		delay = n.clock.After(n.delay)
	}
	return n.nodes[to], delay, n.torn[p], true
}

// MemoryLink is one region's end of a MemoryNetwork.
type MemoryLink struct {
	net    *MemoryNetwork
	region tandem.RegionName

	mu       sync.Mutex
	served   map[string]*memoryService
	received map[string][]*memoryInbox
}

type memoryService struct {
	handle func(context.Context, tandem.RegionName, []byte) ([]byte, error)
	room   chan struct{}
}

var _ Link = (*MemoryLink)(nil)

func dark(to tandem.RegionName, why string) error {
	return &tandem.Error{Op: "ask the peer region", Kind: tandem.Unavailable, On: string(to), Err: errors.New(why)}
}

// Request is Link.Request.
func (l *MemoryLink) Request(ctx context.Context, to tandem.RegionName, subject string, data []byte) ([]byte, error) {
	if len(data) > maxLinkBytes {
		return nil, &tandem.Error{Op: "ask the peer region", Kind: tandem.TooLarge, On: string(to)}
	}
	peer, delay, torn, ok := l.net.path(l.region, to)
	if !ok || peer == nil {
		return nil, dark(to, "the link is cut")
	}
	peer.mu.Lock()
	s := peer.served[subject]
	peer.mu.Unlock()
	if s == nil {
		return nil, dark(to, "nobody serves "+subject)
	}
	type answer struct {
		data []byte
		err  error
	}
	done := make(chan answer, 1)
	data = bytes.Clone(data)
	go func() {
		if delay != nil {
			<-delay
		}
		s.room <- struct{}{}
		defer func() { <-s.room }()
		out, err := s.handle(context.WithoutCancel(ctx), l.region, data)
		if _, back, _, ok := l.net.path(to, l.region); ok && back != nil {
			<-back
		}
		done <- answer{bytes.Clone(out), err}
	}()
	select {
	case <-ctx.Done():
		return nil, &tandem.Error{Op: "ask the peer region", Kind: tandem.Timeout, On: string(to), Err: context.Cause(ctx)}
	case <-torn:
		return nil, dark(to, "the link was cut")
	case a := <-done:
		select {
		case <-torn:
			return nil, dark(to, "the link was cut")
		default:
			return a.data, a.err
		}
	}
}

// Serve is Link.Serve.
func (l *MemoryLink) Serve(subject string, handle func(context.Context, tandem.RegionName, []byte) ([]byte, error)) (func(), error) {
	s := &memoryService{handle: handle, room: make(chan struct{}, maxInFlight)}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.served[subject] = s
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.served[subject] == s {
			delete(l.served, subject)
		}
	}, nil
}

// memoryInbox delivers to one receiver in order; its goroutine lives only while there is something to deliver.
type memoryInbox struct {
	mu      sync.Mutex
	queue   []func()
	running bool
	stopped bool
	receive func(tandem.RegionName, []byte)
}

func (b *memoryInbox) put(fn func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopped || len(b.queue) >= 1<<16 { // at most once: beyond this it is lost
		return
	}
	b.queue = append(b.queue, fn)
	if b.running {
		return
	}
	b.running = true
	go func() {
		for {
			b.mu.Lock()
			if len(b.queue) == 0 || b.stopped {
				b.running = false
				b.mu.Unlock()
				return
			}
			next := b.queue[0]
			b.queue = b.queue[1:]
			b.mu.Unlock()
			next()
		}
	}()
}

// Send is Link.Send.
func (l *MemoryLink) Send(to tandem.RegionName, subject string, data []byte) error {
	if len(data) > maxLinkBytes {
		return &tandem.Error{Op: "send to the peer region", Kind: tandem.TooLarge, On: string(to)}
	}
	peer, delay, torn, ok := l.net.path(l.region, to)
	if !ok || peer == nil {
		return nil // at most once
	}
	data = bytes.Clone(data)
	peer.mu.Lock()
	defer peer.mu.Unlock()
	for _, b := range peer.received[subject] {
		b.put(func() {
			if delay != nil {
				<-delay
			}
			select {
			case <-torn:
			default:
				b.receive(l.region, data)
			}
		})
	}
	return nil
}

// Receive is Link.Receive.
func (l *MemoryLink) Receive(subject string, receive func(tandem.RegionName, []byte)) (func(), error) {
	b := &memoryInbox{receive: receive}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.received[subject] = append(l.received[subject], b)
	return func() {
		b.mu.Lock()
		b.stopped = true
		b.mu.Unlock()
		l.mu.Lock()
		defer l.mu.Unlock()
		for i, x := range l.received[subject] {
			if x == b {
				l.received[subject] = append(append([]*memoryInbox(nil), l.received[subject][:i]...), l.received[subject][i+1:]...)
				return
			}
		}
	}, nil
}

// Up is Link.Up: whether any other region can be reached.
func (l *MemoryLink) Up() bool {
	l.net.mu.Lock()
	defer l.net.mu.Unlock()
	for r := range l.net.nodes {
		if r != l.region && l.net.cuts[pairOf(l.region, r)] == nil {
			return true
		}
	}
	return false
}
