package gateway

import (
	"net"
	"sync"
	"syscall"
	"time"

	"tandem"
)

// Limits of what waits for a peer that does not read.
const (
	maxUnwritten = 1 << 20
	unreadFor    = 30 * time.Second
)

// ErrNotReading is a peer that leaves more than 1 MiB of answers unread, or anything for 30 s.
var ErrNotReading = &tandem.Error{Op: "write to the connection: the peer does not read", Kind: tandem.Timeout}

// A promptConn's Write never waits for the peer, so that whoever acknowledges for thousands of connections is not held
// up by one. What the socket does not take at once is kept, up to maxUnwritten, and written by a goroutine that exists
// only meanwhile.
type promptConn struct {
	net.Conn
	raw syscall.RawConn

	mu       sync.Mutex
	rest     []byte // accepted and not yet in the socket
	draining bool
	failed   error
}

// prompt wraps a connection whose socket can be written without waiting; others come back as they are.
func prompt(conn net.Conn) net.Conn {
	if s, ok := conn.(syscall.Conn); ok && canTryWrite {
		if raw, err := s.SyscallConn(); err == nil {
			return &promptConn{Conn: conn, raw: raw}
		}
	}
	return conn
}

// Write takes all of b or fails for good.
func (c *promptConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed != nil {
		return 0, c.failed
	}
	n := 0
	if !c.draining {
		var err error
		if n, err = tryWrite(c.raw, b); err != nil {
			c.failed = err
			return n, err
		}
		if n == len(b) {
			return n, nil
		}
	}
	if len(c.rest)+len(b)-n > maxUnwritten {
		c.failed = ErrNotReading
		_ = c.Conn.Close()
		return n, c.failed
	}
	c.rest = append(c.rest, b[n:]...)
	if !c.draining {
		c.draining = true
		go c.drain()
	}
	return len(b), nil
}

// drain writes what was kept; it ends when nothing is left, when the peer takes too long, or when the connection is closed.
func (c *promptConn) drain() {
	for {
		c.mu.Lock()
		b := c.rest
		c.rest = nil
		c.draining = len(b) > 0
		c.mu.Unlock()
		if len(b) == 0 {
			return
		}
		_ = c.Conn.SetWriteDeadline(time.Now().Add(unreadFor))
		_, err := c.Conn.Write(b)
		if err != nil {
			c.mu.Lock()
			c.failed, c.rest = ErrNotReading, nil
			c.mu.Unlock()
			_ = c.Conn.Close()
			return
		}
		_ = c.Conn.SetWriteDeadline(time.Time{})
	}
}
