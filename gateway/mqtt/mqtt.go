// Package mqtt is the door for devices that speak MQTT 3.1.1, with the topics and rules of Azure IoT Hub
// (specs/wire-facts.md §3, specs/clients.md §5).
//
//	CONNECT ─▶ gateway.Admit ─▶ hub.Handle.Connect ─▶ CONNACK
//	PUBLISH ─▶ hub.Message ─▶ hub.Handle.Submit ─▶ durable ─▶ PUBACK
//
// One goroutine per connection reads; whoever has an answer appends it to the connection's buffer and writes. A PUBACK
// is written only after the message is durable, in the order of the PUBLISHes, many in one write. What a device does
// wrong closes the connection, as the hub does: MQTT 3.1.1 has no other word for it.
//
// The bytes are package packet's business, tokens and property bags package gateway's; where the hub is, and whether
// it moves meanwhile, is hidden by hub.Handle: a session stays open through a move. Session state outlives no
// connection: CONNACK never says session present. Twins and methods are answered as by a hub that has none.
package mqtt

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"tandem"
	"tandem/gateway"
	"tandem/hub"
)

// Options of a Server. Hubs and Logger are needed; zero values of the others mean the defaults.
type Options struct {
	Hubs   gateway.Hubs
	Logger *slog.Logger
	Clock  tandem.Clock // tandem.SystemClock
	// Unacknowledged is how many bytes of a connection's telemetry may be under way before its reading stops: 1 MiB.
	Unacknowledged int
	// MaxPacket is the largest remaining length of a packet after CONNECT: a message of hub.MaxMessageSize with 4 KiB of
	// topic around it.
	MaxPacket int
	// LoginWithin bounds the questions asked of a hub about one CONNECT: 10 s.
	LoginWithin time.Duration
}

// maxConnect is the largest CONNECT: a will of 64 KiB, a token and the rest.
const maxConnect = 96 << 10

// A Server holds what all sessions share.
type Server struct {
	options Options
	counts  struct{ open, admitted, refused, messages, acknowledged atomic.Int64 }

	mu     sync.Mutex
	groups map[<-chan struct{}]*group // by the Done of Serve's context
}

// New returns a server; it starts nothing.
func New(options Options) (*Server, error) {
	if options.Hubs == nil || options.Logger == nil {
		return nil, &tandem.Error{Op: "make the MQTT door", Kind: tandem.Invalid, Hint: "Hubs and Logger are needed"}
	}
	if options.Clock == nil {
		options.Clock = tandem.SystemClock{}
	}
	if options.Unacknowledged <= 0 {
		options.Unacknowledged = 1 << 20
	}
	if options.MaxPacket <= 0 {
		options.MaxPacket = hub.MaxMessageSize + 4<<10
	}
	if options.LoginWithin <= 0 {
		options.LoginWithin = 10 * time.Second
	}
	return &Server{options: options, groups: make(map[<-chan struct{}]*group)}, nil
}

// Stats are the server's counts since it was made, for metrics.
type Stats struct {
	Open         int64 // sessions open now
	Admitted     int64 // CONNECTs accepted
	Refused      int64 // connections that ended before CONNACK 0
	Messages     int64 // PUBLISHes with telemetry taken in
	Acknowledged int64 // PUBACKs given
}

// Stats may be called at any time.
func (s *Server) Stats() Stats {
	c := &s.counts
	return Stats{c.open.Load(), c.admitted.Load(), c.refused.Load(), c.messages.Load(), c.acknowledged.Load()}
}

// Serve speaks with one connection until it ends or ctx does, and closes it: what gateway.Gate.Serve calls. The
// connection's deadline is the time until which CONNECT has to have come.
func (s *Server) Serve(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	c := newSession(s, conn)
	defer c.reader.Close()
	s.enter(ctx, c)
	defer s.leave(c)
	if s.begin(ctx, c) {
		s.finish(ctx, c, c.run(ctx))
	}
}

// begin logs the device in. That needs a deep stack and runs on a goroutine of its own, so that the one that stays
// keeps a small one.
func (s *Server) begin(ctx context.Context, c *session) bool {
	opened := make(chan error, 1)
	go func() { opened <- c.open(ctx) }()
	if err := <-opened; err != nil {
		s.counts.refused.Add(1)
		c.log(ctx, "session refused", err)
		return false
	}
	s.counts.admitted.Add(1)
	s.counts.open.Add(1)
	return true
}

func (s *Server) finish(ctx context.Context, c *session, err error) {
	c.close(ctx, err)
	s.counts.open.Add(-1)
	if err != errBye {
		c.log(ctx, "session ended", err)
	}
}

// A group is the sessions that end with one context: a list through the sessions themselves, which costs each of them
// two words instead of a watcher of its own.
type group struct{ first *session }

func (s *Server) enter(ctx context.Context, c *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	done := ctx.Done()
	g := s.groups[done]
	if g == nil {
		g = new(group)
		s.groups[done] = g
		context.AfterFunc(ctx, func() { s.endGroup(done) })
	}
	c.group, c.next = g, g.first
	if g.first != nil {
		g.first.before = c
	}
	g.first = c
}

func (s *Server) leave(c *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.before != nil {
		c.before.next = c.next
	} else {
		c.group.first = c.next
	}
	if c.next != nil {
		c.next.before = c.before
	}
}

func (s *Server) endGroup(done <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := s.groups[done].first; c != nil; c = c.next {
		c.end(ErrClosing)
	}
	delete(s.groups, done)
}
