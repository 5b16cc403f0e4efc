package mqtt

import (
	"context"
	"sync"
	"time"

	"tandem/gateway/mqtt/packet"
	"tandem/hub"
)

const (
	outBuffer   = 512  // what a burst of answers usually takes
	keepOut     = 8192 // larger ones are left to the collector
	maxLateAcks = 64
	roomWithin  = 30 * time.Second
)

var outBuffers = sync.Pool{New: func() any { b := make([]byte, 0, outBuffer); return &b }}

// An out is what goes to one device: answers gathered in a buffer and written at once, and the account of telemetry
// that is not acknowledged yet. The session's goroutine and the hub's use it. An idle out holds no buffer.
type out struct {
	session *session

	mu       sync.Mutex
	buf      *[]byte // borrowed while there is something to write
	mute     bool    // no acknowledgement may follow: a message failed, or the session is over
	pending  int     // bytes submitted and not resolved
	sent     uint64  // messages submitted
	resolved uint64  // of them
	late     []lateAck
	room     chan struct{} // made when the reader waits for room
}

// A lateAck is the PUBACK of a message that needed no commit, held until the telemetry before it is acknowledged:
// PUBACKs keep the order of PUBLISHes (MQTT 3.1.1 §4.6).
type lateAck struct {
	after uint64 // resolved
	id    uint16
}

// admit counts a message of n bytes in and waits while too much is under way. It returns ErrNoRoom after 30 s.
func (o *out) admit(ctx context.Context, n int) error {
	limit := o.session.server.options.Unacknowledged
	for {
		o.mu.Lock()
		if o.pending == 0 || o.pending+n <= limit {
			o.pending += n
			o.sent++
			o.mu.Unlock()
			return nil
		}
		if o.room == nil {
			o.room = make(chan struct{}, 1)
		}
		room := o.room
		o.mu.Unlock()
		o.Flush()
		if err := o.session.reason(); err != nil {
			return err
		}
		timer := time.NewTimer(roomWithin)
		select {
		case <-room:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return ErrClosing
		case <-timer.C:
			return ErrNoRoom
		}
	}
}

// withdraw takes back an admit whose message was not submitted.
func (o *out) withdraw(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pending -= n
	o.sent--
}

// tagOf packs what Resolved has to know: the bytes counted and the packet id, 0 at QoS 0.
func tagOf(n int, id uint16) uint64 { return uint64(n)<<16 | uint64(id) }

// Resolved notes one outcome (hub.Waiter). The first failure ends the session: what follows it may be durable, but
// acknowledging past a gap would break the order, and the device sends everything unacknowledged again.
func (o *out) Resolved(tag uint64, outcome *hub.Outcome) {
	o.mu.Lock()
	o.pending -= int(tag >> 16)
	o.resolved++
	failed := outcome.Err != nil && !o.mute
	o.mute = o.mute || failed
	if id := uint16(tag); !o.mute {
		if id != 0 {
			o.puback(id)
		}
		for len(o.late) > 0 && o.late[0].after <= o.resolved {
			o.puback(o.late[0].id)
			o.late = o.late[1:]
		}
	}
	if o.room != nil {
		select {
		case o.room <- struct{}{}:
		default:
		}
	}
	o.mu.Unlock()
	if failed {
		o.session.end(outcome.Err)
	}
}

func (o *out) puback(id uint16) {
	b := o.buffer()
	*b = packet.AppendPuback(*b, id)
	o.session.server.counts.acknowledged.Add(1)
}

// acknowledge sends the PUBACK of a message that needs no commit, in its turn.
func (o *out) acknowledge(id uint16) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.mute:
	case o.resolved == o.sent:
		o.puback(id)
	case len(o.late) == maxLateAcks:
		return ErrNoRoom
	default:
		o.late = append(o.late, lateAck{o.sent, id})
	}
	return nil
}

// add appends to what is written next.
func (o *out) add(appendTo func([]byte) []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	b := o.buffer()
	*b = appendTo(*b)
}

func (o *out) buffer() *[]byte {
	if o.buf == nil {
		o.buf = outBuffers.Get().(*[]byte)
	}
	return o.buf
}

// Flush writes what was gathered, at once (hub.Waiter). Connections from gateway.Gate take it without waiting.
func (o *out) Flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.buf == nil {
		return
	}
	b := *o.buf
	if _, err := o.session.conn.Write(b); err != nil {
		o.mute = true
		o.session.end(err)
	}
	if cap(b) <= keepOut {
		*o.buf = b[:0]
		outBuffers.Put(o.buf)
	}
	o.buf = nil
}

// close makes every later outcome go nowhere.
func (o *out) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.mute, o.late = true, nil
}
