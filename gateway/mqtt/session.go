package mqtt

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"time"

	"tandem"
	"tandem/gateway"
	"tandem/gateway/mqtt/packet"
	"tandem/hub"
)

// A session is one device's connection, from CONNECT to its end.
type session struct {
	server *Server
	conn   net.Conn
	reader *packet.Reader
	out    out

	group        *group // under the server's mu, with its neighbours
	next, before *session

	hub           hub.Handle
	device        tandem.DeviceID
	number        hub.SessionNumber
	until         time.Time     // when the token ends
	silence       time.Duration // how long the device may say nothing; 0 before CONNACK
	heard         time.Time     // when we last began to wait for it
	subscriptions subscription
	will          []byte // encoded; nil when there is none
	ended         atomic.Pointer[error]
}

func newSession(server *Server, conn net.Conn) *session {
	s := &session{server: server, conn: conn}
	s.out.session = s
	s.reader = packet.NewReader(s, maxConnect)
	return s
}

// end makes the session's goroutine end it for this reason; the first one counts. It never blocks and may be called
// from anywhere, more than once.
func (s *session) end(reason error) {
	if s.ended.CompareAndSwap(nil, &reason) {
		_ = s.conn.SetReadDeadline(time.Unix(1, 0)) // wakes the reader
	}
}

// reason is why the session must end, or nil.
func (s *session) reason() error {
	if reason := s.ended.Load(); reason != nil {
		return *reason
	}
	return nil
}

// Read reads from the connection for the packet reader. It sets a deadline only when one has passed, that is about
// once per keep-alive period, and returns why the session ends when one did.
func (s *session) Read(b []byte) (int, error) {
	if s.silence > 0 { // from here on the device is silent; while a hub that moves kept us from reading, it was not
		s.heard = s.server.options.Clock.Now()
	}
	for {
		n, err := s.conn.Read(b)
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		if err := s.watch(); err != nil {
			return 0, err
		}
	}
}

// watch sets the deadline for the first thing that can end a quiet session, or returns that it has come. Before CONNACK
// the deadline is the gate's, and has passed.
func (s *session) watch() error {
	if err := s.reason(); err != nil {
		return err
	}
	if s.silence == 0 {
		return ErrNoConnect
	}
	now := s.server.options.Clock.Now()
	quiet, left := now.Sub(s.heard), s.until.Sub(now)
	switch {
	case left <= 0:
		return gateway.ErrTokenExpired
	case quiet >= s.silence:
		return ErrSilent
	}
	if err := s.conn.SetReadDeadline(time.Now().Add(min(left, s.silence-quiet))); err != nil {
		return err
	}
	return s.reason() // end may have set its deadline just before ours
}

// run handles packets until the session ends and says why: errBye after DISCONNECT.
func (s *session) run(ctx context.Context) error {
	s.heard = s.server.options.Clock.Now()
	if err := s.watch(); err != nil {
		return err
	}
	for {
		if !s.reader.Ready() {
			s.out.Flush()
		}
		p, err := s.reader.Next()
		if err == nil {
			err = s.handle(ctx, p)
		}
		if err != nil {
			return err
		}
	}
}

// handle does what one packet asks for.
func (s *session) handle(ctx context.Context, p packet.Packet) error {
	switch p.Type {
	case packet.PUBLISH:
		m, err := packet.ParsePublish(p.Flags, p.Body)
		if err != nil {
			return err
		}
		return s.publish(ctx, &m)
	case packet.PUBACK: // nothing is sent at QoS 1 yet
		_, err := packet.ParseAck(p.Type, p.Body)
		return err
	case packet.SUBSCRIBE:
		return s.subscribe(p.Body)
	case packet.UNSUBSCRIBE:
		return s.unsubscribe(p.Body)
	case packet.PINGREQ:
		s.out.add(func(b []byte) []byte { return packet.AppendEmpty(b, packet.PINGRESP) })
		return packet.CheckEmpty(p.Type, p.Body)
	case packet.DISCONNECT:
		if err := packet.CheckEmpty(p.Type, p.Body); err != nil {
			return err
		}
		return errBye
	}
	return ErrUnexpected
}

// close writes what is due, ends the session with the hub, and sends the will unless the device said goodbye or this
// node is stopping.
func (s *session) close(ctx context.Context, err error) {
	s.out.Flush()
	s.out.close()
	_ = s.conn.Close()
	if s.will != nil && err != errBye && ctx.Err() == nil {
		if err := s.sendWill(ctx); err != nil {
			s.log(ctx, "will lost", err)
		}
	}
	s.hub.Disconnect(s.device, s.number)
}

// log tells why a session did not begin or go on: at a level that a broken device cannot fill a log with.
func (s *session) log(ctx context.Context, what string, err error) {
	logger, level := s.server.options.Logger, slog.LevelDebug
	var ours *tandem.Error
	if errors.As(err, &ours) {
		level = answerTo(err).level
	}
	if !logger.Enabled(ctx, level) {
		return
	}
	if errors.Is(err, io.EOF) {
		err = &tandem.Error{Op: "the device closed the connection", Kind: tandem.Invalid, Err: err}
	}
	attrs := []any{"remote", s.conn.RemoteAddr(), "err", err}
	if s.device != "" {
		attrs = append(attrs, "device", s.device)
	}
	if s.hub != nil {
		attrs = append(attrs, "hub", s.hub.Info().ID)
	}
	logger.Log(ctx, level, what, attrs...)
}
