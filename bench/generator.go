package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A client is what one MQTT connection says of itself.
type client struct {
	address, id, username, password string
	tls                             *tls.Config // nil: plain
	topic                           string
}

// A load is a number of MQTT connections that publish with QoS 1 for a while.
type load struct {
	clients  []client
	window   int     // unanswered messages per connection
	rate     float64 // messages a second in all; 0: as fast as answers come
	payload  int     // bytes, not compressible
	warm     time.Duration
	duration time.Duration
}

// A result is what a load saw after its warming up.
type result struct {
	acked    int64
	took     time.Duration
	latency  histogram
	gap      time.Duration // longest time without any acknowledgement
	failures int64         // connections that ended
}

func (r *result) perSecond() float64 { return float64(r.acked) / r.took.Seconds() }

// A histogram counts durations in steps of 2 %.
type histogram struct{ counts [1200]int64 }

func (h *histogram) add(d time.Duration) {
	micros := max(1, float64(d)/1e3)
	h.counts[min(len(h.counts)-1, int(math.Log(micros)/math.Log(1.02)))]++
}

func (h *histogram) merge(o *histogram) {
	for i, n := range o.counts {
		h.counts[i] += n
	}
}

// quantile is in milliseconds.
func (h *histogram) quantile(q float64) float64 {
	var all, seen int64
	for _, n := range h.counts {
		all += n
	}
	for i, n := range h.counts {
		if seen += n; all > 0 && float64(seen) >= q*float64(all) {
			return math.Pow(1.02, float64(i)+0.5) / 1e3
		}
	}
	return 0
}

// A connection is one open client.
type connection struct {
	net.Conn
	in      *bufio.Reader
	publish []byte // one PUBLISH without its packet identifier's value
	at      int    // where the identifier stands
	sent    [1 << 16]int64
	random  *rand.Rand
}

// connect opens one connection: TCP, TLS, CONNECT, CONNACK.
func (c *client) connect(ctx context.Context, keepAlive uint16) (net.Conn, *bufio.Reader, error) {
	var d net.Dialer
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	tcp, err := d.DialContext(ctx, "tcp", c.address)
	if err != nil {
		return nil, nil, err
	}
	conn := tcp
	if c.tls != nil {
		t := tls.Client(tcp, c.tls)
		if err := t.HandshakeContext(ctx); err != nil {
			_ = tcp.Close()
			return nil, nil, err
		}
		conn = t
	}
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	flags := byte(2) // clean session
	rest := appendText(nil, c.id)
	if c.username != "" {
		flags |= 0xc0
		rest = appendText(appendText(rest, c.username), c.password)
	}
	head := append(appendText(nil, "MQTT"), 4, flags, byte(keepAlive>>8), byte(keepAlive))
	body := append(head, rest...)
	if _, err := conn.Write(append(appendLength([]byte{0x10}, len(body)), body...)); err != nil {
		_ = conn.Close()
		return nil, nil, err
	}
	var answer [4]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		_ = conn.Close()
		return nil, nil, fmt.Errorf("read CONNACK: %w", err)
	}
	if answer[0] != 0x20 || answer[3] != 0 {
		_ = conn.Close()
		return nil, nil, fmt.Errorf("%s: the answer to CONNECT is % x", c.id, answer)
	}
	_ = conn.SetDeadline(time.Time{})
	return conn, bufio.NewReaderSize(conn, 4096), nil
}

func appendText(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

func appendLength(b []byte, n int) []byte {
	for ; n > 127; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

// publishPacket is a PUBLISH with QoS 1, and where its packet identifier is.
func publishPacket(topic string, payload []byte) (packet []byte, at int) {
	body := appendText(nil, topic)
	at = len(body)
	body = append(append(body, 0, 0), payload...)
	packet = appendLength([]byte{0x32}, len(body))
	at += len(packet)
	return append(packet, body...), at
}

// A meter gathers what all connections see.
type meter struct {
	began    atomic.Int64 // nanoseconds; 0: warming up
	ended    atomic.Bool
	acked    atomic.Int64
	last     atomic.Int64 // when the newest acknowledgement came
	longest  atomic.Int64
	failures atomic.Int64

	mu      sync.Mutex // guards latency
	latency histogram
}

func (m *meter) answered(n int, now int64, local *histogram, latencies []time.Duration) {
	last := m.last.Swap(now)
	if m.began.Load() == 0 || m.ended.Load() {
		return
	}
	m.acked.Add(int64(n))
	for _, d := range latencies {
		local.add(d)
	}
	if last > 0 {
		for gap := now - last; ; {
			old := m.longest.Load()
			if gap <= old || m.longest.CompareAndSwap(old, gap) {
				break
			}
		}
	}
}

var epoch = time.Now()

func nanos() int64 { return int64(time.Since(epoch)) }

// run opens all connections, lets them publish, and returns what was seen after the warming up. During is called when the
// measuring begins and may return early; nil means sleeping for the duration. Nothing acknowledged is a result too.
func (l load) run(ctx context.Context, during func(m *meter)) (result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	connections, err := l.open(ctx)
	defer func() {
		for _, c := range connections {
			if c != nil {
				_ = c.Close()
			}
		}
	}()
	if err != nil {
		return result{}, err
	}
	m := &meter{}
	var workers sync.WaitGroup
	for i, c := range connections {
		workers.Go(func() {
			var err error
			if l.rate > 0 {
				err = c.paced(ctx, m, float64(len(connections))/l.rate, float64(i)/l.rate)
			} else {
				err = c.windowed(ctx, m, l.window)
			}
			if err != nil && ctx.Err() == nil && !m.ended.Load() {
				m.failures.Add(1)
			}
		})
	}
	time.Sleep(l.warm)
	m.longest.Store(0)
	began := nanos()
	m.began.Store(began)
	if during == nil {
		time.Sleep(l.duration)
	} else {
		during(m)
	}
	m.ended.Store(true)
	took := time.Duration(nanos() - began)
	cancel()
	for _, c := range connections {
		_ = c.SetDeadline(time.Unix(1, 0))
	}
	workers.Wait()
	r := result{acked: m.acked.Load(), took: took, latency: m.latency, gap: time.Duration(m.longest.Load()), failures: m.failures.Load()}
	return r, nil
}

func (l load) open(ctx context.Context) ([]*connection, error) {
	connections := make([]*connection, len(l.clients))
	gate := make(chan struct{}, 16)
	errs := make([]error, len(l.clients))
	var opening sync.WaitGroup
	for i := range l.clients {
		gate <- struct{}{}
		opening.Go(func() {
			defer func() { <-gate }()
			conn, in, err := l.clients[i].connect(ctx, 300)
			if err != nil {
				errs[i] = err
				return
			}
			random := rand.New(rand.NewPCG(uint64(i), 7))
			payload := make([]byte, l.payload)
			for j := range payload {
				payload[j] = byte(random.Uint32())
			}
			c := &connection{Conn: conn, in: in, random: random}
			c.publish, c.at = publishPacket(l.clients[i].topic, payload)
			connections[i] = c
		})
	}
	opening.Wait()
	return connections, errors.Join(errs[:min(3, len(errs))]...)
}

// add appends the next PUBLISH to b. Every payload differs in its first bytes and none can be compressed.
func (c *connection) add(b []byte, id uint16, now int64) []byte {
	from := len(b)
	b = append(b, c.publish...)
	binary.BigEndian.PutUint16(b[from+c.at:], id)
	for payload := b[from+c.at+2:]; len(payload) >= 8; payload = payload[8:] {
		binary.LittleEndian.PutUint64(payload, c.random.Uint64())
	}
	atomic.StoreInt64(&c.sent[id], now)
	return b
}

// acks reads one acknowledgement and those that have come with it.
func (c *connection) acks(ids []uint16) ([]uint16, error) {
	for len(ids) == 0 || c.in.Buffered() >= 4 {
		var p [4]byte
		if _, err := io.ReadFull(c.in, p[:]); err != nil {
			return ids, err
		}
		if p[0] != 0x40 || p[1] != 2 {
			return ids, fmt.Errorf("expected PUBACK, got % x", p)
		}
		ids = append(ids, binary.BigEndian.Uint16(p[2:]))
	}
	return ids, nil
}

func (c *connection) windowed(ctx context.Context, m *meter, window int) error {
	var local histogram
	defer m.keep(&local)
	next := uint16(1)
	out := make([]byte, 0, window*len(c.publish))
	ids := make([]uint16, 0, window)
	latencies := make([]time.Duration, 0, window)
	for owed := window; ctx.Err() == nil; owed = len(ids) {
		out = out[:0]
		now := nanos()
		for range owed {
			out = c.add(out, next, now)
			if next++; next == 0 {
				next = 1
			}
		}
		if _, err := c.Write(out); err != nil {
			return err
		}
		var err error
		if ids, err = c.acks(ids[:0]); err != nil {
			return err
		}
		now = nanos()
		latencies = latencies[:0]
		for _, id := range ids {
			latencies = append(latencies, time.Duration(now-atomic.LoadInt64(&c.sent[id])))
		}
		m.answered(len(ids), now, &local, latencies)
	}
	return nil
}

// paced publishes every interval seconds, whatever the answers do.
func (c *connection) paced(ctx context.Context, m *meter, interval, offset float64) error {
	done := make(chan error, 1)
	go func() {
		var local histogram
		defer m.keep(&local)
		var ids []uint16
		for {
			var err error
			if ids, err = c.acks(ids[:0]); err != nil {
				done <- err
				return
			}
			now := nanos()
			latencies := make([]time.Duration, 0, len(ids))
			for _, id := range ids {
				latencies = append(latencies, time.Duration(now-atomic.LoadInt64(&c.sent[id])))
			}
			m.answered(len(ids), now, &local, latencies)
		}
	}()
	next := uint16(1)
	var out []byte
	start := time.Now()
	for i := 0; ctx.Err() == nil; i++ {
		due := start.Add(time.Duration((float64(i)*interval + offset) * float64(time.Second)))
		time.Sleep(time.Until(due))
		out = c.add(out[:0], next, nanos())
		if next++; next == 0 {
			next = 1
		}
		if _, err := c.Write(out); err != nil {
			break
		}
	}
	_ = c.SetReadDeadline(time.Unix(1, 0))
	return <-done
}

func (m *meter) keep(local *histogram) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.latency.merge(local)
}
