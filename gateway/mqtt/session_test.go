package mqtt_test

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"tandem"
	"tandem/gateway/mqtt"
	"tandem/gateway/mqtt/packet"
	"tandem/hub"
)

// eventually waits for what other goroutines do.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestPubackComesAfterTheCommit(t *testing.T) {
	h := newFakeHub(t)
	c := connect(t, listen(t, newServer(t, h, nil)))
	release := h.hold()
	c.send(publish(events, 7, "21.5"))
	c.ping() // answered at once, the message is not
	c.ping()
	release()
	c.puback(7)
	if got := h.messages(); len(got) != 1 || string(got[0].Body) != "21.5" {
		t.Errorf("the hub has %+v", got)
	}
}

func TestPubacksKeepTheOrderOfPublishes(t *testing.T) {
	h := newFakeHub(t)
	c := connect(t, listen(t, newServer(t, h, nil)))
	c.send(subscribe(1, 0, "$iothub/twin/res/#"))
	c.next(packet.SUBACK)
	release := h.hold()
	var burst []byte
	for id := uint16(1); id <= 200; id++ {
		topic := events
		if id%50 == 0 {
			topic = "$iothub/methods/res/200/?$rid=1" // needs no commit, and yet its turn
		}
		burst = append(burst, publish(topic, id, fmt.Sprint(id))...)
	}
	c.send(burst)
	c.ping()
	release()
	for id := uint16(1); id <= 200; id++ {
		c.puback(id)
	}
	for i, m := range h.messages() {
		if i > 0 && len(m.Body) == len(h.messages()[i-1].Body) && bytes.Compare(m.Body, h.messages()[i-1].Body) <= 0 {
			t.Fatalf("message %d is %s after %s", i, m.Body, h.messages()[i-1].Body)
		}
	}
}

func TestMessagesAreMapped(t *testing.T) {
	h := newFakeHub(t)
	c := connect(t, listen(t, newServer(t, h, nil)))
	topic := events + "%24.mid=m1&%24.ct=application%2Fjson&level=warning&gone"
	c.send(packet.AppendPublish(nil, &packet.Publish{QoS: 1, ID: 1, Retain: true, Topic: []byte(topic), Payload: []byte("{}")}))
	c.puback(1)
	c.send(publish(strings.TrimSuffix(events, "/"), 2, "second"))
	c.puback(2)
	want := []hub.Message{
		{MessageID: "m1", ContentType: "application/json", Body: []byte("{}"),
			Properties: []hub.Property{{Name: "level", Value: "warning"}, {Name: "gone", Null: true}, {Name: "mqtt-retain", Value: "true"}}},
		{Body: []byte("second")},
	}
	if got := h.messages(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if c := h.commands[0]; c.Device != "d1" || c.Op != hub.OpTelemetry || c.Session != (hub.SessionNumber{Epoch: 1, Counter: 1}) {
		t.Errorf("the command is %+v", c)
	}
}

func TestQoS0IsNotAcknowledged(t *testing.T) {
	h := newFakeHub(t)
	c := connect(t, listen(t, newServer(t, h, nil)))
	c.send(publish(events, 0, "a"))
	c.send(publish(events, 1, "b"))
	c.puback(1)
	if len(h.messages()) != 2 {
		t.Errorf("%d messages, want 2", len(h.messages()))
	}
}

// A message that failed is not acknowledged, nor is anything after it: the device sends them all again.
func TestAFailedCommitEndsTheSession(t *testing.T) {
	for _, failure := range []error{hub.ErrMoving, hub.ErrQuota, hub.ErrDeviceDisabled, &tandem.Error{Kind: tandem.Timeout}} {
		h := newFakeHub(t)
		h.failing = func(c *hub.Command) error {
			if bytes.HasSuffix(c.Body, []byte("bad")) {
				return failure
			}
			return nil
		}
		c := connect(t, listen(t, newServer(t, h, nil)))
		release := h.hold()
		c.send(append(append(publish(events, 1, "good"), publish(events, 2, "bad")...), publish(events, 3, "good")...))
		c.ping()
		release()
		c.puback(1)
		c.closed()
		eventually(t, "the hub is told of the end", func() bool { h.mu.Lock(); defer h.mu.Unlock(); return h.ended == 1 })
	}
}

func TestWhatClosesTheConnection(t *testing.T) {
	again := hello()
	for name, bytes := range map[string][]byte{
		"QoS 2":                  packet.AppendPublish(nil, &packet.Publish{QoS: 2, ID: 1, Topic: []byte(events)}),
		"an unknown topic":       publish("devices/d1/state", 1, ""),
		"another device's topic": publish("devices/d2/messages/events/", 1, ""),
		"a module's topic":       publish("devices/d1/modules/m/messages/events/", 1, ""),
		"a twin get without rid": publish("$iothub/twin/GET/", 0, ""),
		"a second CONNECT":       packet.AppendConnect(nil, &again),
		"PUBREL":                 packet.AppendAck(nil, packet.PUBREL, 1),
		"PUBREC":                 packet.AppendAck(nil, packet.PUBREC, 1),
		"SUBACK":                 packet.AppendSuback(nil, 1, []byte{0}),
		"six filters":            subscribe(1, 0, strings.Split(strings.Repeat("$iothub/twin/res/# ", 5)+"$iothub/twin/res/#", " ")...),
		"a malformed packet":     {0x36, 3, 0, 1, 'a'},
		"a packet over 260 KiB":  {0x30, 0x81, 0xa0, 0x10},
		"a message over 256 KiB": publish(events+"a=b", 1, strings.Repeat("x", hub.MaxMessageSize-1)),
		"1,025 properties":       publish(events+strings.Repeat("a&", 1025), 1, ""),
		"a ping with a body":     {0xc0, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			h := newFakeHub(t)
			s := newServer(t, h, nil)
			c := connect(t, listen(t, s))
			c.send(bytes)
			if name == "a ping with a body" {
				c.next(packet.PINGRESP)
			}
			c.closed()
			eventually(t, "no session is open", func() bool { return s.Stats().Open == 0 })
			if len(h.messages()) != 0 {
				t.Errorf("the hub has %d messages", len(h.messages()))
			}
		})
	}
}

func TestTheLargestMessageIsTaken(t *testing.T) {
	h := newFakeHub(t)
	c := connect(t, listen(t, newServer(t, h, nil)))
	c.send(publish(events+"a=b", 1, strings.Repeat("x", hub.MaxMessageSize-2)))
	c.puback(1)
}

func TestSubscribing(t *testing.T) {
	c := connect(t, listen(t, newServer(t, newFakeHub(t), nil)))
	c.send(subscribe(5, 2, "devices/d1/messages/devicebound/#", "$iothub/methods/POST/#"))
	if id, codes, err := packet.ParseSuback(c.next(packet.SUBACK)); err != nil || id != 5 || !bytes.Equal(codes, []byte{1, 1}) {
		t.Errorf("SUBACK of %d: % x, %v", id, codes, err)
	}
	c.send(packet.AppendUnsubscribe(nil, 6, packet.Filter{Topic: []byte("$iothub/methods/POST/#")}, packet.Filter{Topic: []byte("never")}))
	if id, err := packet.ParseAck(packet.UNSUBACK, c.next(packet.UNSUBACK)); err != nil || id != 6 {
		t.Errorf("UNSUBACK of %d, %v", id, err)
	}
	c.send(subscribe(7, 1, "$iothub/twin/res/#", "somebody/else/#"))
	if _, codes, err := packet.ParseSuback(c.next(packet.SUBACK)); err != nil || !bytes.Equal(codes, []byte{1, 0x80}) {
		t.Errorf("SUBACK % x, %v", codes, err)
	}
	c.closed()
}

func TestTwinsAreAnsweredAsByAHubWithoutAny(t *testing.T) {
	c := connect(t, listen(t, newServer(t, newFakeHub(t), nil)))
	c.send(publish("$iothub/twin/GET/?$rid=0", 0, "")) // no subscription, no answer
	c.ping()
	c.send(subscribe(1, 0, "$iothub/twin/res/#"))
	c.next(packet.SUBACK)
	c.send(publish("$iothub/twin/GET/?$rid=a%2F7", 9, ""))
	p, err := packet.ParsePublish(0, c.next(packet.PUBLISH))
	if err != nil || string(p.Topic) != "$iothub/twin/res/200/?$rid=a%2F7" || string(p.Payload) != `{"desired":{"$version":1},"reported":{"$version":1}}` {
		t.Errorf("got %s %s, %v", p.Topic, p.Payload, err)
	}
	c.puback(9)
	c.send(publish("$iothub/twin/PATCH/properties/reported/?$rid=2", 0, `{"a":1}`))
	p, err = packet.ParsePublish(0, c.next(packet.PUBLISH))
	if err != nil || string(p.Topic) != "$iothub/twin/res/501/?$rid=2" {
		t.Errorf("got %s %s, %v", p.Topic, p.Payload, err)
	}
}

func TestTheNewerConnectionWins(t *testing.T) {
	h := newFakeHub(t)
	s := newServer(t, h, nil)
	addr := listen(t, s)
	first := connect(t, addr)
	second := connect(t, addr)
	first.closed()
	second.ping()
	if got := s.Stats(); got.Admitted != 2 {
		t.Errorf("%+v", got)
	}
}

func TestTheHubCanDropASession(t *testing.T) {
	h := newFakeHub(t)
	c := connect(t, listen(t, newServer(t, h, nil)))
	h.drop("d1", hub.ErrDeviceDisabled)
	c.closed()
}

func TestWills(t *testing.T) {
	will := hello()
	will.HasWill, will.WillTopic, will.WillMessage = true, []byte(events+"%24.ct=text%2Fplain&a=b"), []byte("gone")
	t.Run("sent when the connection breaks", func(t *testing.T) {
		h := newFakeHub(t)
		c := dial(t, listen(t, newServer(t, h, nil)))
		c.login(will)
		c.conn.Close()
		eventually(t, "the will arrives", func() bool { return len(h.messages()) == 1 })
		want := hub.Message{ContentType: "text/plain", Body: []byte("gone"),
			Properties: []hub.Property{{Name: "a", Value: "b"}, {Name: "iothub-MessageType", Value: "Will"}}}
		if got := h.messages()[0]; !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("sent when a newer connection takes over", func(t *testing.T) {
		h := newFakeHub(t)
		addr := listen(t, newServer(t, h, nil))
		c := dial(t, addr)
		c.login(will)
		connect(t, addr)
		eventually(t, "the will arrives", func() bool { return len(h.messages()) == 1 })
	})
	t.Run("not sent after DISCONNECT", func(t *testing.T) {
		h := newFakeHub(t)
		c := dial(t, listen(t, newServer(t, h, nil)))
		c.login(will)
		c.send(packet.AppendEmpty(nil, packet.DISCONNECT))
		c.closed()
		eventually(t, "the session ends", func() bool { h.mu.Lock(); defer h.mu.Unlock(); return h.ended == 1 })
		if len(h.messages()) != 0 {
			t.Errorf("got %+v", h.messages())
		}
	})
}

func TestReadingStopsWhileTooMuchIsUnderWay(t *testing.T) {
	h := newFakeHub(t)
	const limit = 64 << 10
	s := newServer(t, h, func(o *mqtt.Options) { o.Unacknowledged = limit })
	c := connect(t, listen(t, s))
	release := h.hold()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for id := uint16(1); id <= 200; id++ {
			if _, err := c.conn.Write(publish(events, id, strings.Repeat("x", 10_000))); err != nil {
				return
			}
		}
	}()
	eventually(t, "the limit is reached", func() bool { return h.queuedBytes() > limit-11_000 })
	time.Sleep(20 * time.Millisecond)
	if got := h.queuedBytes(); got > limit {
		t.Errorf("%d bytes under way, the limit is %d", got, limit)
	}
	release()
	for id := uint16(1); id <= 200; id++ {
		c.puback(id)
	}
	<-sent
}

func TestStats(t *testing.T) {
	h := newFakeHub(t)
	s := newServer(t, h, nil)
	addr := listen(t, s)
	c := connect(t, addr)
	c.send(append(publish(events, 1, ""), publish(events, 0, "")...))
	c.puback(1)
	wrong := dial(t, addr)
	wrong.send([]byte("GET / HTTP/1.1\r\n\r\n"))
	wrong.closed()
	eventually(t, "both are counted", func() bool {
		return s.Stats() == mqtt.Stats{Open: 1, Admitted: 1, Refused: 1, Messages: 2, Acknowledged: 1}
	})
}
