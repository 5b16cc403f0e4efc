package mqtt_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"syscall"
	"testing"
	"time"

	"tandem/gateway"
	"tandem/gateway/mqtt/packet"
)

// An idle connection costs at most 6 KiB: its goroutine's stack, the session, the reader's small buffer, the socket's
// Go side. The clients here are bare file descriptors, so that what is measured is the server's.
func TestIdleConnectionsAreSmall(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector has memory of its own")
	}
	const count, limit = 1500, 6 << 10
	h := newFakeHub(t)
	h.forget = true
	for i := range count {
		h.add(fmt.Sprintf("d%d", i))
	}
	s := newServer(t, h, nil)
	addr := listen(t, s)
	token := gateway.MakeToken("fab.example", "device", policyKey, time.Now().Add(time.Hour))
	clients := make([]int, 0, count)
	defer func() {
		for _, fd := range clients {
			syscall.Close(fd)
		}
	}()
	open := func(from, to int) {
		for i := from; i < to; i++ {
			id := fmt.Sprintf("d%d", i)
			hello := packet.Connect{KeepAlive: 600, ClientID: []byte(id), HasUsername: true,
				Username: []byte("fab.example/" + id + "/?api-version=2021-04-12"), HasPassword: true, Password: []byte(token)}
			// a message too, so that nothing that telemetry took is kept
			wire := append(packet.AppendConnect(nil, &hello), publish("devices/"+id+"/messages/events/a=b", 1, "x")...)
			clients = append(clients, converse(t, addr, wire, packet.PubackSize*2))
		}
	}
	open(0, 100) // pools and tables have grown
	heap, stack := inUse()
	open(100, count)
	heapAfter, stackAfter := inUse()
	heap, stack = (heapAfter-heap)/(count-100), (stackAfter-stack)/(count-100)
	if got := s.Stats().Open; got != count {
		t.Fatalf("%d sessions open, want %d", got, count)
	}
	t.Logf("%d bytes of heap and %d of stack each", heap, stack)
	if heap+stack > limit {
		t.Errorf("an idle connection takes %d bytes, want at most %d", heap+stack, limit)
	}
}

// inUse is what heap and stacks take after collection.
func inUse() (heap, stack int) {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc), int(m.StackInuse)
}

// converse opens a connection as a bare descriptor, writes wire, and waits for an answer of n bytes.
func converse(t *testing.T, addr string, wire []byte, n int) int {
	t.Helper()
	tcp, err := net.ResolveTCPAddr("tcp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Connect(fd, &syscall.SockaddrInet4{Port: tcp.Port, Addr: [4]byte(tcp.IP.To4())}); err != nil {
		t.Fatal(err)
	}
	if _, err := syscall.Write(fd, wire); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, n)
	for got := 0; got < n; {
		m, err := syscall.Read(fd, answer[got:])
		if err != nil || m == 0 {
			t.Fatalf("after %d bytes of the answer: %v", got, err)
		}
		got += m
	}
	return fd
}

// FuzzSession holds that a device which logged in may send anything: the session ends, the process does not.
func FuzzSession(f *testing.F) {
	f.Add(append(subscribe(1, 0, "$iothub/twin/res/#"), publish("$iothub/twin/GET/?$rid=1", 2, "")...))
	f.Add(append(publish(events+"%24.mid=1&a=%zz", 1, "x"), packet.AppendEmpty(nil, packet.DISCONNECT)...))
	f.Add(packet.AppendUnsubscribe(nil, 1, packet.Filter{Topic: []byte("x")}))
	f.Fuzz(func(t *testing.T, wire []byte) {
		h := newFakeHub(t)
		s := newServer(t, h, nil)
		hello := hello()
		conn := &script{input: append(packet.AppendConnect(nil, &hello), wire...)}
		s.Serve(context.Background(), conn)
		if s.Stats().Open != 0 || s.Stats().Admitted != 1 || !conn.closed {
			t.Fatalf("after the end: %+v, closed %v", s.Stats(), conn.closed)
		}
		for _, m := range h.messages() {
			if m.Check() != nil || m.Size() > len(wire)+len("mqtt-retaintrue") {
				t.Fatalf("the hub got %+v", m)
			}
		}
	})
}

// script is a connection whose peer has said everything already and reads nothing.
type script struct {
	net.Conn
	input  []byte
	closed bool
}

func (s *script) Read(b []byte) (int, error) {
	if len(s.input) == 0 {
		return 0, io.EOF
	}
	n := copy(b, s.input)
	s.input = s.input[n:]
	return n, nil
}

func (s *script) Write(b []byte) (int, error)     { return len(b), nil }
func (s *script) Close() error                    { s.closed = true; return nil }
func (s *script) SetDeadline(time.Time) error     { return nil }
func (s *script) SetReadDeadline(time.Time) error { return nil }
func (s *script) RemoteAddr() net.Addr            { return &net.TCPAddr{} }

// BenchmarkTelemetry is one connection with a window of 32 over loopback, into a hub that answers from memory; the
// client's work is in it too.
func BenchmarkTelemetry(b *testing.B) {
	h := newFakeHub(b)
	h.forget = true
	c := connect(b, listen(b, newServer(b, h, nil)))
	one := publish(events+"level=warning", 1, string(make([]byte, 256)))
	var burst []byte
	for range 32 {
		burst = append(burst, one...)
	}
	b.ReportAllocs()
	for done := 0; done < b.N; done += 32 {
		c.send(burst)
		for range 32 {
			c.next(packet.PUBACK)
		}
	}
}
