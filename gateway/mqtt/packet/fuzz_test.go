package packet_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"tandem/gateway/mqtt/packet"
)

func seeds() [][]byte {
	connect := packet.Connect{KeepAlive: 60, ClientID: []byte("d"), HasWill: true, WillQoS: 1, WillTopic: []byte("devices/d/messages/events/"),
		WillMessage: []byte("gone"), HasUsername: true, Username: []byte("h/d/?api-version=2021-04-12"), HasPassword: true, Password: []byte("p")}
	return [][]byte{
		packet.AppendConnect(nil, &connect),
		telemetry(3),
		telemetry(600),
		packet.AppendSubscribe(nil, 1, packet.Filter{Topic: []byte("devices/d/messages/devicebound/#"), QoS: 1}, packet.Filter{Topic: []byte("x")}),
		packet.AppendUnsubscribe(nil, 2, packet.Filter{Topic: []byte("x")}),
		packet.AppendSuback(nil, 3, []byte{0, 0x80}),
		packet.AppendAck(nil, packet.PUBREL, 4),
		packet.AppendConnack(nil, true, packet.Accepted),
		packet.AppendEmpty(packet.AppendEmpty(nil, packet.PINGREQ), packet.DISCONNECT),
		{0x30, 0xff, 0xff, 0xff, 0x7f},
	}
}

// FuzzStream reads any bytes as a stream: no panic, no read beyond the limit, and whatever parses is a fixpoint of
// writing and parsing.
func FuzzStream(f *testing.F) {
	for _, s := range seeds() {
		f.Add(s, uint8(7))
	}
	f.Fuzz(func(t *testing.T, wire []byte, chunk uint8) {
		const limit = 2000
		src := &counting{src: &chunks{bytes.NewReader(wire), int(chunk) + 1}}
		r := packet.NewReader(src, limit)
		for {
			p, err := r.Next()
			if err != nil {
				checkEnd(t, err)
				break
			}
			if len(p.Body) > limit {
				t.Fatalf("a body of %d bytes passed the limit", len(p.Body))
			}
			checkFixpoint(t, p)
		}
		if src.largest > 16<<10 {
			t.Fatalf("took a buffer of %d bytes under a limit of %d", src.largest, limit)
		}
	})
}

func checkEnd(t *testing.T, err error) {
	var malformed *packet.Error
	var size *packet.SizeError
	if err != io.EOF && err != io.ErrUnexpectedEOF && !errors.As(err, &malformed) && !errors.As(err, &size) {
		t.Fatalf("unexpected error %v", err)
	}
}

func checkFixpoint(t *testing.T, p packet.Packet) {
	once, err := recode(p)
	if err != nil {
		checkEnd(t, err)
		return
	}
	q, err := packet.NewReader(bytes.NewReader(once), packet.MaxLength).Next()
	if err != nil {
		t.Fatalf("own bytes % x: %v", once, err)
	}
	twice, err := recode(q)
	if err != nil || !bytes.Equal(once, twice) {
		t.Fatalf("% x became % x (%v)", once, twice, err)
	}
	if q.Type != p.Type || !bytes.Equal(q.Body, p.Body) {
		t.Fatalf("body % x became % x", p.Body, q.Body)
	}
}

// chunks hands out at most n bytes a read.
type chunks struct {
	src io.Reader
	n   int
}

func (c *chunks) Read(b []byte) (int, error) { return c.src.Read(b[:min(len(b), c.n)]) }
