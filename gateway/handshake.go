package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"tandem"
)

// HandshakeOptions sets what a Gate lets in at once. Zero values mean the defaults.
type HandshakeOptions struct {
	// Busy is how many handshakes compute at once: 2 per core. A storm beyond it waits, so that connections that
	// exist are still served.
	Busy int
	// Pending is how many handshakes may be under way or waiting; further connections are closed at once, before
	// anything of them was read: 4096.
	Pending int
	// Within is the time from accept until a connection has to have said who it is: 15 s.
	Within time.Duration
	// Now is the time that deadlines are counted from: time.Now.
	Now func() time.Time
}

func (o HandshakeOptions) withDefaults() HandshakeOptions {
	if o.Busy <= 0 {
		o.Busy = 2 * runtime.GOMAXPROCS(0)
	}
	if o.Pending <= 0 {
		o.Pending = 4096
	}
	if o.Within <= 0 {
		o.Within = 15 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// A Gate is what connections pass before a door sees them. Several listeners share one.
type Gate struct {
	options HandshakeOptions
	busy    chan struct{} // a token per handshake that computes
	pending atomic.Int64
	refused atomic.Int64
	notify  tandem.Notify
}

// ConnectionsRefused is the notice that a storm was cut: the gate was full. It is sent at the first and
// whenever the total has doubled.
type ConnectionsRefused struct{ Total int64 }

// NoticeName is "connections refused".
func (ConnectionsRefused) NoticeName() string { return "connections refused" }

// NewGate returns a gate; notify may be nil.
func NewGate(options HandshakeOptions, notify tandem.Notify) *Gate {
	options = options.withDefaults()
	return &Gate{options: options, busy: make(chan struct{}, options.Busy), notify: notify}
}

// Refused is how many connections were closed because the gate was full.
func (g *Gate) Refused() int64 { return g.refused.Load() }

// Pending is how many connections are in their handshake or wait for it.
func (g *Gate) Pending() int64 { return g.pending.Load() }

// TLSConfig is the configuration of every TLS port: 1.2 or newer, and the certificate asked for at each handshake, so
// that a new one is used without a restart.
func TLSConfig(certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error), protocols ...string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certificate, NextProtos: protocols}
}

// Serve accepts connections until ctx ends and calls serve for each, on a goroutine of its own that has a small stack:
// the handshake ran on another. With config nil the connections are plain. A connection comes with its read and write
// deadline set to Options.Within after accept; serve moves it once the peer has said who it is, and closes the
// connection. serve has to return soon after ctx ends. Writing to a connection never waits for the peer: what its socket
// does not take is kept, and a peer that leaves too much unread is cut off with ErrNotReading.
//
// Serve closes l and returns when all that it started has ended: nil after ctx ended, else why accepting failed.
func (g *Gate) Serve(ctx context.Context, l net.Listener, config *tls.Config, serve func(context.Context, net.Conn)) error {
	var group sync.WaitGroup
	defer group.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer func() {
		if stop() {
			_ = l.Close()
		}
	}()
	for {
		conn, err := g.accept(ctx, l)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return &tandem.Error{Op: "accept connections", Kind: tandem.Internal, On: l.Addr().String(), Err: err}
		}
		_ = conn.SetDeadline(g.options.Now().Add(g.options.Within))
		conn = prompt(conn)
		if config == nil {
			group.Go(func() { serve(ctx, conn) })
			continue
		}
		if g.pending.Add(1) > int64(g.options.Pending) {
			g.pending.Add(-1)
			g.refuse(conn)
			continue
		}
		group.Go(func() {
			secure := g.handshake(ctx, conn, config)
			g.pending.Add(-1)
			if secure != nil {
				group.Go(func() { serve(ctx, secure) })
			}
		})
	}
}

// accept waits out what passes: no file descriptor left, a peer that has gone again.
func (g *Gate) accept(ctx context.Context, l net.Listener) (net.Conn, error) {
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		conn, err := l.Accept()
		if err == nil || errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
			return conn, err
		}
		var passing net.Error
		if !errors.As(err, &passing) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
	}
}

func (g *Gate) refuse(conn net.Conn) {
	_ = conn.Close()
	if total := g.refused.Add(1); total&(total-1) == 0 {
		g.notify.Send(ConnectionsRefused{Total: total})
	}
}

// handshake returns the secured connection, or nil after closing it.
func (g *Gate) handshake(ctx context.Context, conn net.Conn, config *tls.Config) net.Conn {
	paced := &pacedConn{Conn: conn, busy: g.busy, done: ctx.Done()}
	secure := tls.Server(paced, config)
	err := paced.take()
	if err == nil {
		err = secure.HandshakeContext(ctx)
		paced.give()
	}
	if err != nil {
		_ = conn.Close()
		return nil
	}
	paced.busy = nil
	return secure
}

// A pacedConn holds one of the gate's tokens except while it waits for the peer: who is slow to answer, or never does,
// keeps nobody else from being served. After the handshake it only passes on.
type pacedConn struct {
	net.Conn
	busy chan struct{} // nil after the handshake
	done <-chan struct{}
	held bool
}

func (c *pacedConn) Read(b []byte) (int, error) {
	if c.busy == nil {
		return c.Conn.Read(b)
	}
	c.give()
	n, err := c.Conn.Read(b)
	if failed := c.take(); failed != nil && err == nil {
		err = failed
	}
	return n, err
}

func (c *pacedConn) take() error {
	select {
	case c.busy <- struct{}{}:
		c.held = true
		return nil
	case <-c.done:
		return net.ErrClosed
	}
}

func (c *pacedConn) give() {
	if c.held {
		<-c.busy
		c.held = false
	}
}
