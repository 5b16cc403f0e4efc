package mqtt_test

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"tandem/gateway"
	"tandem/gateway/mqtt/packet"
	"tandem/hub"
)

// inBubble runs a session over a pipe in a bubble, where time passes at once, and logs in with the change made. It
// calls test with the client and a channel that is closed when the server closed its end.
func inBubble(t *testing.T, change func(*packet.Connect), test func(c *client, h *fakeHub, ended <-chan struct{})) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHub(t)
		s := newServer(t, h, nil)
		ours, theirs := net.Pipe()
		ended := make(chan struct{})
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		_ = theirs.SetDeadline(time.Now().Add(15 * time.Second)) // as gateway.Gate does
		go func() {
			defer close(ended)
			s.Serve(ctx, theirs)
		}()
		c := newClient(t, ours)
		if change != nil {
			hello := hello()
			change(&hello)
			c.login(hello)
		}
		test(c, h, ended)
		cancel()
		<-ended
	})
}

// after fails unless ended is closed at about this time from start.
func after(t *testing.T, start time.Time, ended <-chan struct{}, want time.Duration) {
	t.Helper()
	<-ended
	if got := time.Since(start); got < want || got > want+time.Second {
		t.Errorf("ended after %v, want %v", got, want)
	}
}

func TestAConnectionWithoutConnectEnds(t *testing.T) {
	inBubble(t, nil, func(c *client, h *fakeHub, ended <-chan struct{}) {
		after(t, time.Now(), ended, 15*time.Second)
	})
}

func TestAHalfConnectEnds(t *testing.T) {
	inBubble(t, nil, func(c *client, h *fakeHub, ended <-chan struct{}) {
		start := time.Now()
		hello := hello()
		c.send(packet.AppendConnect(nil, &hello)[:20])
		after(t, start, ended, 15*time.Second)
	})
}

func TestASilentDeviceEndsAfterOneAndAHalfKeepAlives(t *testing.T) {
	for keepAlive, want := range map[uint16]time.Duration{60: 90 * time.Second, 1000: 1500 * time.Second, 0: 1767 * time.Second, 65535: 1767 * time.Second} {
		inBubble(t, func(hello *packet.Connect) {
			hello.KeepAlive = keepAlive
			hello.Password = []byte(tokenFor(time.Now().Add(24 * time.Hour)))
		}, func(c *client, h *fakeHub, ended <-chan struct{}) {
			after(t, time.Now(), ended, want)
		})
	}
}

func TestAnyPacketCountsAsLife(t *testing.T) {
	inBubble(t, func(hello *packet.Connect) {
		hello.KeepAlive = 60
		hello.Password = []byte(tokenFor(time.Now().Add(24 * time.Hour)))
	}, func(c *client, h *fakeHub, ended <-chan struct{}) {
		for range 20 {
			time.Sleep(85 * time.Second)
			c.ping()
		}
		time.Sleep(85 * time.Second)
		c.send(publish(events, 0, "x"))
		start := time.Now()
		after(t, start, ended, 90*time.Second)
	})
}

// While a hub moves, handing a message over may take longer than the device's keep-alive. What the device said
// meanwhile counts.
func TestAWaitOfOursIsNotTheDevicesSilence(t *testing.T) {
	inBubble(t, func(hello *packet.Connect) { hello.KeepAlive = 10 }, func(c *client, h *fakeHub, ended <-chan struct{}) {
		h.slow = 25 * time.Second
		c.send(publish(events, 1, "x"))
		_ = c.conn.SetWriteDeadline(time.Now().Add(time.Minute))
		if _, err := c.conn.Write(packet.AppendEmpty(nil, packet.PINGREQ)); err != nil {
			t.Fatal(err)
		}
		answers := map[packet.Type]bool{}
		for range 2 { // in either order
			_ = c.conn.SetReadDeadline(time.Now().Add(time.Minute))
			p, err := c.read.Next()
			if err != nil {
				t.Fatal(err)
			}
			answers[p.Type] = true
		}
		if !answers[packet.PUBACK] || !answers[packet.PINGRESP] {
			t.Errorf("got %v", answers)
		}
		after(t, time.Now(), ended, 15*time.Second)
	})
}

func TestTheSessionEndsWithItsToken(t *testing.T) {
	inBubble(t, func(hello *packet.Connect) {
		hello.KeepAlive = 60
		hello.Password = []byte(tokenFor(time.Now().Add(10 * time.Minute)))
	}, func(c *client, h *fakeHub, ended <-chan struct{}) {
		start := time.Now()
		_ = c.conn.SetDeadline(time.Time{})
		pinged := make(chan struct{})
		go func() {
			defer close(pinged)
			for {
				if _, err := c.conn.Write(packet.AppendEmpty(nil, packet.PINGREQ)); err != nil {
					return
				}
				if _, err := c.read.Next(); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}()
		after(t, start, ended, 10*time.Minute)
		<-pinged
	})
}

func TestAnEndIsSeenByABusyReader(t *testing.T) {
	inBubble(t, func(hello *packet.Connect) {}, func(c *client, h *fakeHub, ended <-chan struct{}) {
		start := time.Now()
		c.ping()
		h.drop("d1", hub.ErrKeysChanged)
		after(t, start, ended, 0)
	})
}

func TestTheGateSetsTheDeadlineOfConnect(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(t, newFakeHub(t), nil)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	gate := gateway.NewGate(gateway.HandshakeOptions{Within: 30 * time.Millisecond}, nil)
	go func() { served <- gate.Serve(ctx, l, nil, s.Serve) }()
	dial(t, l.Addr().String()).closed()
	c := connect(t, l.Addr().String())
	time.Sleep(60 * time.Millisecond) // past it: CONNECT has come, so it is over
	c.ping()
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	c.closed()
}
