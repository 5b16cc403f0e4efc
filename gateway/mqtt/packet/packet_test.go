package packet_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"tandem/gateway/mqtt/packet"
)

// read returns the only packet in b.
func read(t *testing.T, b []byte) packet.Packet {
	t.Helper()
	p, err := packet.NewReader(bytes.NewReader(b), packet.MaxLength).Next()
	if err != nil {
		t.Fatalf("read % x: %v", b, err)
	}
	return p
}

func TestConnectRoundTrip(t *testing.T) {
	for name, c := range map[string]packet.Connect{
		"bare":  {CleanSession: true},
		"node":  {KeepAlive: 180, ClientID: []byte("d1"), HasUsername: true, Username: []byte("h/d1/?api-version=1"), HasPassword: true, Password: []byte("SharedAccessSignature sr=h")},
		"will":  {KeepAlive: 65535, ClientID: []byte("d1"), HasWill: true, WillQoS: 1, WillRetain: true, WillTopic: []byte("devices/d1/messages/events/"), WillMessage: []byte{0, 1, 255}},
		"empty": {ClientID: []byte("d1"), HasUsername: true, HasPassword: true, HasWill: true, WillTopic: []byte("t")},
	} {
		t.Run(name, func(t *testing.T) {
			wire := packet.AppendConnect(nil, &c)
			got, err := packet.ParseConnect(read(t, wire).Body)
			if err != nil {
				t.Fatal(err)
			}
			if again := packet.AppendConnect(nil, &got); !bytes.Equal(wire, again) {
				t.Errorf("came back as\n% x, was\n% x", again, wire)
			}
			if got.CleanSession != c.CleanSession || got.KeepAlive != c.KeepAlive || got.WillRetain != c.WillRetain ||
				got.WillQoS != c.WillQoS || !bytes.Equal(got.Password, c.Password) || !bytes.Equal(got.WillMessage, c.WillMessage) {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestAnswersOnTheWire(t *testing.T) {
	for name, c := range map[string]struct{ got, want []byte }{
		"connack":       {packet.AppendConnack(nil, false, packet.RefusedNotAuthorized), []byte{0x20, 2, 0, 5}},
		"present":       {packet.AppendConnack(nil, true, packet.Accepted), []byte{0x20, 2, 1, 0}},
		"never present": {packet.AppendConnack(nil, true, packet.RefusedUnavailable), []byte{0x20, 2, 0, 3}},
		"pubacks":       {packet.AppendPuback(packet.AppendPuback(nil, 0x1234), 1), []byte{0x40, 2, 0x12, 0x34, 0x40, 2, 0, 1}},
		"suback":        {packet.AppendSuback(nil, 7, []byte{1, 0x80}), []byte{0x90, 4, 0, 7, 1, 0x80}},
		"unsuback":      {packet.AppendAck(nil, packet.UNSUBACK, 7), []byte{0xb0, 2, 0, 7}},
		"pubrel":        {packet.AppendAck(nil, packet.PUBREL, 7), []byte{0x62, 2, 0, 7}},
		"pingresp":      {packet.AppendEmpty(nil, packet.PINGRESP), []byte{0xd0, 0}},
		"publish": {packet.AppendPublish(nil, &packet.Publish{QoS: 1, Dup: true, Retain: true, ID: 9, Topic: []byte("a"), Payload: []byte("xy")}),
			[]byte{0x3b, 7, 0, 1, 'a', 0, 9, 'x', 'y'}},
	} {
		if !bytes.Equal(c.got, c.want) {
			t.Errorf("%s: got % x, want % x", name, c.got, c.want)
		}
	}
}

func TestMalformed(t *testing.T) {
	connect := func(flags byte, payload ...byte) []byte {
		return append([]byte{0x10, byte(10 + len(payload)), 0, 4, 'M', 'Q', 'T', 'T', 4, flags, 0, 60}, payload...)
	}
	for _, c := range []struct {
		name    string
		wire    []byte
		section string
	}{
		{"type 0", []byte{0x00, 0}, "2.2.1"},
		{"type 15", []byte{0xf0, 0}, "2.2.1"},
		{"flags of SUBSCRIBE", []byte{0x80, 0}, "2.2.2"},
		{"flags of PUBACK", []byte{0x42, 2, 0, 1}, "2.2.2"},
		{"endless length", []byte{0x30, 0xff, 0xff, 0xff, 0xff, 1}, "2.2.3"},
		{"protocol name", []byte{0x10, 6, 0, 4, 'm', 'q', 't', 't'}, "3.1.2.1"},
		{"level 5", append([]byte{0x10, 10, 0, 4, 'M', 'Q', 'T', 'T', 5}, 2, 0, 60), "3.1.2.2"},
		{"MQTT 3.1", append([]byte{0x10, 14, 0, 6}, "MQIsdp\x03\x02\x00\x3c\x00\x00"...), "3.1.2.2"},
		{"short header", []byte{0x10, 8, 0, 4, 'M', 'Q', 'T', 'T', 4, 2}, "3.1.2"},
		{"reserved connect flag", connect(3, 0, 0), "3.1.2.3"},
		{"will flags without will", connect(1<<3, 0, 0), "3.1.2.5"},
		{"will QoS 3", connect(4|3<<3, 0, 0), "3.1.2.6"},
		{"password alone", connect(1<<6, 0, 0), "3.1.2.9"},
		{"cut client id", connect(2, 0, 3, 'a'), "1.5.3"},
		{"null in client id", connect(2, 0, 1, 0), "1.5.3"},
		{"surrogate in client id", connect(2, 0, 3, 0xed, 0xa0, 0x80), "1.5.3"},
		{"empty will topic", connect(4, 0, 0, 0, 0, 0, 0), "4.7.3"},
		{"cut will message", connect(4, 0, 0, 0, 1, 'a', 0, 5), "3.1.3.3"},
		{"cut password", connect(0xc0, 0, 0, 0, 0, 0, 9), "3.1.3.5"},
		{"trailing bytes", connect(2, 0, 0, 1), "3.1.3"},
		{"QoS 3", []byte{0x36, 3, 0, 1, 'a'}, "3.3.1.2"},
		{"DUP at QoS 0", []byte{0x38, 3, 0, 1, 'a'}, "3.3.1.1"},
		{"no topic", []byte{0x30, 2, 0, 0}, "4.7.3"},
		{"cut topic", []byte{0x30, 3, 0, 9, 'a'}, "1.5.3"},
		{"no id", []byte{0x32, 4, 0, 1, 'a', 0}, "3.3.2.2"},
		{"id 0", []byte{0x32, 5, 0, 1, 'a', 0, 0}, "2.3.1"},
		{"PUBACK of 3", []byte{0x40, 3, 0, 1, 0}, "2.3.1"},
		{"PUBACK of 0", []byte{0x40, 2, 0, 0}, "2.3.1"},
		{"subscribe to nothing", []byte{0x82, 2, 0, 1}, "3.8.3"},
		{"subscribe without QoS", []byte{0x82, 5, 0, 1, 0, 1, 'a'}, "3.8.3"},
		{"subscribe at QoS 3", []byte{0x82, 6, 0, 1, 0, 1, 'a', 3}, "3.8.3"},
		{"subscribe id 0", []byte{0x82, 6, 0, 0, 0, 1, 'a', 0}, "2.3.1"},
		{"empty filter", []byte{0x82, 5, 0, 1, 0, 0, 0}, "4.7.3"},
		{"unsubscribe from nothing", []byte{0xa2, 2, 0, 1}, "3.10.3"},
		{"ping with body", []byte{0xc0, 1, 0}, "2.2.3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := packet.NewReader(bytes.NewReader(c.wire), packet.MaxLength).Next()
			if err == nil {
				_, err = recode(p)
			}
			var malformed *packet.Error
			if !errors.As(err, &malformed) {
				t.Fatalf("got %v, want *packet.Error", err)
			}
			if malformed.Section != c.section || !strings.Contains(err.Error(), "§"+c.section) {
				t.Errorf("got %q, want section %s", err, c.section)
			}
		})
	}
}

func TestFiltersAreWalkedInOrder(t *testing.T) {
	wire := packet.AppendSubscribe(nil, 3, packet.Filter{Topic: []byte("a/#"), QoS: 1}, packet.Filter{Topic: []byte("b")})
	id, filters, err := packet.ParseSubscribe(read(t, wire).Body)
	if err != nil || id != 3 {
		t.Fatal(id, err)
	}
	first, ok1 := filters.Next()
	second, ok2 := filters.Next()
	if _, ok := filters.Next(); ok || !ok1 || !ok2 {
		t.Fatal("not two filters")
	}
	if string(first.Topic) != "a/#" || first.QoS != 1 || string(second.Topic) != "b" || second.QoS != 0 {
		t.Errorf("got %q %d, %q %d", first.Topic, first.QoS, second.Topic, second.QoS)
	}
}

// recode parses p and writes it again.
func recode(p packet.Packet) ([]byte, error) {
	switch p.Type {
	case packet.CONNECT:
		c, err := packet.ParseConnect(p.Body)
		return packet.AppendConnect(nil, &c), err
	case packet.CONNACK:
		present, code, err := packet.ParseConnack(p.Body)
		return packet.AppendConnack(nil, present, code), err
	case packet.PUBLISH:
		m, err := packet.ParsePublish(p.Flags, p.Body)
		return packet.AppendPublish(nil, &m), err
	case packet.SUBSCRIBE:
		id, filters, err := packet.ParseSubscribe(p.Body)
		return packet.AppendSubscribe(nil, id, all(&filters)...), err
	case packet.UNSUBSCRIBE:
		id, filters, err := packet.ParseUnsubscribe(p.Body)
		return packet.AppendUnsubscribe(nil, id, all(&filters)...), err
	case packet.SUBACK:
		id, codes, err := packet.ParseSuback(p.Body)
		return packet.AppendSuback(nil, id, codes), err
	case packet.PINGREQ, packet.PINGRESP, packet.DISCONNECT:
		return packet.AppendEmpty(nil, p.Type), packet.CheckEmpty(p.Type, p.Body)
	default:
		id, err := packet.ParseAck(p.Type, p.Body)
		return packet.AppendAck(nil, p.Type, id), err
	}
}

func all(filters *packet.Filters) (list []packet.Filter) {
	for f, ok := filters.Next(); ok; f, ok = filters.Next() {
		list = append(list, f)
	}
	return list
}

func TestPublishParsesWithoutAllocating(t *testing.T) {
	p := read(t, telemetry(256))
	allocs := testing.AllocsPerRun(100, func() {
		if _, err := packet.ParsePublish(p.Flags, p.Body); err != nil {
			t.Fatal(err)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations, want none", allocs)
	}
}

// telemetry is one PUBLISH as a device sends it.
func telemetry(payload int) []byte {
	return packet.AppendPublish(nil, &packet.Publish{QoS: 1, ID: 7, Payload: make([]byte, payload),
		Topic: []byte("devices/device-000017/messages/events/%24.ct=application%2Fjson&level=warning")})
}

func BenchmarkParsePublish(b *testing.B) {
	p, _ := packet.NewReader(bytes.NewReader(telemetry(256)), packet.MaxLength).Next()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := packet.ParsePublish(p.Flags, p.Body); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadPublish(b *testing.B) {
	r := packet.NewReader(&endless{data: telemetry(256)}, packet.MaxLength)
	b.ReportAllocs()
	for b.Loop() {
		p, err := r.Next()
		if err != nil {
			b.Fatal(err)
		}
		if _, err := packet.ParsePublish(p.Flags, p.Body); err != nil {
			b.Fatal(err)
		}
	}
}

// endless repeats data for ever and fills every read.
type endless struct {
	data []byte
	at   int
}

func (e *endless) Read(b []byte) (int, error) {
	for n := 0; n < len(b); {
		c := copy(b[n:], e.data[e.at:])
		n += c
		e.at = (e.at + c) % len(e.data)
	}
	return len(b), nil
}

var _ io.Reader = (*endless)(nil)
