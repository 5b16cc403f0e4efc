package mqtt_test

import (
	"encoding/base64"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"tandem/gateway"
	"tandem/gateway/mqtt/packet"
)

func base64Of(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// patience is how long a test waits for what has to come.
const patience = 10 * time.Second

// client is a device in raw packets.
type client struct {
	t    testing.TB
	conn net.Conn
	read *packet.Reader
}

func dial(t testing.TB, addr string) *client {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return newClient(t, conn)
}

func newClient(t testing.TB, conn net.Conn) *client {
	t.Cleanup(func() { conn.Close() })
	return &client{t, conn, packet.NewReader(conn, packet.MaxLength)}
}

// hello is a CONNECT of d1 that is let in.
func hello() packet.Connect {
	return packet.Connect{KeepAlive: 60, ClientID: []byte("d1"), HasUsername: true, Username: []byte("fab.example/d1/?api-version=2021-04-12"),
		HasPassword: true, Password: []byte(tokenFor(time.Now().Add(time.Hour)))}
}

func tokenFor(expiry time.Time) string {
	return gateway.MakeToken("fab.example/devices/d1", "", deviceKey, expiry)
}

// connect dials and logs in as d1.
func connect(t testing.TB, addr string) *client {
	t.Helper()
	c := dial(t, addr)
	c.login(hello())
	return c
}

func (c *client) login(hello packet.Connect) {
	c.t.Helper()
	c.send(packet.AppendConnect(nil, &hello))
	if present, code, err := packet.ParseConnack(c.next(packet.CONNACK)); err != nil || code != packet.Accepted || present {
		c.t.Fatalf("CONNACK %d, present %v, %v", code, present, err)
	}
}

func (c *client) send(b []byte) {
	c.t.Helper()
	_ = c.conn.SetWriteDeadline(time.Now().Add(patience))
	if _, err := c.conn.Write(b); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

// next returns the body of the next packet, which has to be of this type.
func (c *client) next(want packet.Type) []byte {
	c.t.Helper()
	_ = c.conn.SetReadDeadline(time.Now().Add(patience))
	p, err := c.read.Next()
	if err != nil {
		c.t.Fatalf("waiting for %v: %v", want, err)
	}
	if p.Type != want {
		c.t.Fatalf("got %v % x, want %v", p.Type, p.Body, want)
	}
	return p.Body
}

// closed waits until the server closes the connection, and fails on any packet before.
func (c *client) closed() {
	c.t.Helper()
	_ = c.conn.SetReadDeadline(time.Now().Add(patience))
	p, err := c.read.Next()
	if err == nil {
		c.t.Fatalf("got %v, want the connection closed", p.Type)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatal("the connection stayed open")
	}
	if err != io.EOF && !errors.Is(err, io.ErrClosedPipe) {
		c.t.Logf("closed with %v", err)
	}
}

func (c *client) ping() {
	c.t.Helper()
	c.send(packet.AppendEmpty(nil, packet.PINGREQ))
	c.next(packet.PINGRESP)
}

func (c *client) puback(want uint16) {
	c.t.Helper()
	if id, err := packet.ParseAck(packet.PUBACK, c.next(packet.PUBACK)); err != nil || id != want {
		c.t.Fatalf("PUBACK of %d (%v), want %d", id, err, want)
	}
}

func publish(topic string, id uint16, payload string) []byte {
	p := packet.Publish{Topic: []byte(topic), ID: id, Payload: []byte(payload)}
	if id != 0 {
		p.QoS = 1
	}
	return packet.AppendPublish(nil, &p)
}

func subscribe(id uint16, qos byte, filters ...string) []byte {
	var list []packet.Filter
	for _, f := range filters {
		list = append(list, packet.Filter{Topic: []byte(f), QoS: qos})
	}
	return packet.AppendSubscribe(nil, id, list...)
}

const events = "devices/d1/messages/events/"
