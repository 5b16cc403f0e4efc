package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"tandem"
	"tandem/gateway"
	"tandem/gateway/mqtt/packet"
)

// A ConnectionString is the text that devices and services are given, taken apart.
type ConnectionString struct {
	HostName, DeviceID, SharedAccessKey, SharedAccessKeyName, GatewayHostName string
}

// ParseConnectionString reads "HostName=…;DeviceId=…;SharedAccessKey=…". Kind Invalid.
func ParseConnectionString(s string) (c ConnectionString, err error) {
	for part := range strings.SplitSeq(s, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch strings.ToLower(name) {
		case "hostname":
			c.HostName = value
		case "deviceid":
			c.DeviceID = value
		case "sharedaccesskey":
			c.SharedAccessKey = value
		case "sharedaccesskeyname":
			c.SharedAccessKeyName = value
		case "gatewayhostname":
			c.GatewayHostName = value
		}
	}
	if c.HostName == "" || c.SharedAccessKey == "" {
		return c, &tandem.Error{Op: "read the connection string", Kind: tandem.Invalid, Err: errors.New("HostName and SharedAccessKey are needed")}
	}
	return c, nil
}

// String writes what ParseConnectionString reads.
func (c ConnectionString) String() string {
	var parts []string
	for _, p := range [...][2]string{{"HostName", c.HostName}, {"DeviceId", c.DeviceID}, {"SharedAccessKeyName", c.SharedAccessKeyName},
		{"SharedAccessKey", c.SharedAccessKey}, {"GatewayHostName", c.GatewayHostName}} {
		if p[1] != "" {
			parts = append(parts, p[0]+"="+p[1])
		}
	}
	return strings.Join(parts, ";")
}

// DeviceOptions are what a device connects with.
type DeviceOptions struct {
	Addresses []string // "host:port" of MQTT over TLS, tried in turn
	Host      string   // the hub's host name
	ID, Key   string   // key in base64
	KeepAlive time.Duration
}

// MQTTAddresses are the addresses of MQTT over TLS that belong to the client's data doors.
func (c *Client) MQTTAddresses() []string {
	var list []string
	for _, base := range c.target.DataURLs {
		hostPort := strings.TrimPrefix(base, "https://")
		host, port, err := net.SplitHostPort(hostPort)
		var n int
		if err == nil {
			_, err = fmt.Sscan(port, &n)
		}
		if err != nil {
			host, n = hostPort, httpsPort
		}
		list = append(list, net.JoinHostPort(host, fmt.Sprint(n-httpsPort+mqttPort)))
	}
	return list
}

// A Conn is one device's MQTT connection. One goroutine publishes, one reads.
type Conn struct {
	tcp    net.Conn
	reader *packet.Reader

	mu  sync.Mutex // guards out, and writes to tcp
	out []byte
}

// ErrRefused is a CONNACK that says no.
var ErrRefused = &tandem.Error{Op: "connect the device", Kind: tandem.Unauthorized}

// Connect opens a device's connection: TLS, CONNECT, CONNACK.
func (c *Client) Connect(ctx context.Context, o DeviceOptions) (*Conn, error) {
	key, err := gateway.DecodeKey(o.Key)
	if err != nil {
		return nil, err
	}
	var last error
	for _, address := range o.Addresses {
		var conn *Conn
		if conn, last = c.connect(ctx, address, o, key); last == nil {
			return conn, nil
		}
		if tandem.KindOf(last) == tandem.Unauthorized {
			break
		}
	}
	return nil, last
}

func (c *Client) connect(ctx context.Context, address string, o DeviceOptions, key []byte) (*Conn, error) {
	const op = "connect the device"
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, &tandem.Error{Op: op, Kind: tandem.Invalid, On: o.ID, Err: err}
	}
	dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: 5 * time.Second}, Config: c.tls(host)}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	tcp, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, &tandem.Error{Op: op, Kind: tandem.Unavailable, On: o.ID, Err: err}
	}
	stop := context.AfterFunc(ctx, func() { _ = tcp.SetDeadline(time.Unix(1, 0)) })
	resource := o.Host + "/" + gateway.DevicePath(tandem.DeviceID(o.ID), "")
	connect := packet.Connect{
		ClientID: []byte(o.ID), CleanSession: true, KeepAlive: uint16(o.KeepAlive / time.Second),
		HasUsername: true, Username: []byte(o.Host + "/" + o.ID + "/?api-version=2021-04-12&DeviceClientType=tandem"),
		HasPassword: true, Password: []byte(gateway.MakeToken(resource, "", key, time.Now().Add(24*time.Hour))),
	}
	conn := &Conn{tcp: tcp, reader: packet.NewReader(tcp, 256<<10)}
	fail := func(kind tandem.Kind, err error) (*Conn, error) {
		_ = tcp.Close()
		return nil, &tandem.Error{Op: op, Kind: kind, On: o.ID, Err: err}
	}
	if _, err := tcp.Write(packet.AppendConnect(nil, &connect)); err != nil {
		return fail(tandem.Unavailable, err)
	}
	p, err := conn.reader.Next()
	if err != nil {
		return fail(tandem.Unavailable, err)
	}
	if p.Type != packet.CONNACK {
		return fail(tandem.Internal, fmt.Errorf("the answer to CONNECT is %v", p.Type))
	}
	_, code, err := packet.ParseConnack(p.Body)
	switch {
	case err != nil:
		return fail(tandem.Internal, err)
	case code == packet.RefusedUnavailable:
		return fail(tandem.Unavailable, errors.New("the hub is not available now"))
	case code != packet.Accepted:
		return fail(tandem.Unauthorized, fmt.Errorf("refused with code %d", code))
	}
	if !stop() {
		return fail(tandem.Timeout, ctx.Err())
	}
	return conn, nil
}

// Publish sends one telemetry message with QoS 1. Topic is EventsTopic's. It returns when the bytes are with the kernel.
func (d *Conn) Publish(topic, payload []byte, id uint16, dup bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.out = packet.AppendPublish(d.out[:0], &packet.Publish{Topic: topic, QoS: 1, ID: id, Dup: dup, Payload: payload})
	return d.write()
}

// Ping sends PINGREQ.
func (d *Conn) Ping() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.out = packet.AppendEmpty(d.out[:0], packet.PINGREQ)
	return d.write()
}

func (d *Conn) write() error {
	_ = d.tcp.SetWriteDeadline(time.Now().Add(30 * time.Second))
	_, err := d.tcp.Write(d.out)
	return err
}

// EventsTopic is the topic of a device's telemetry with properties already encoded ("a=1&b=2"), or none.
func EventsTopic(device, properties string) []byte {
	return []byte("devices/" + device + "/messages/events/" + properties)
}

// Acknowledged waits for the next PUBACK and returns its packet identifier. Answers to Ping are taken silently.
func (d *Conn) Acknowledged() (uint16, error) {
	for {
		p, err := d.reader.Next()
		if err != nil {
			return 0, err
		}
		if p.Type == packet.PUBACK {
			return packet.ParseAck(packet.PUBACK, p.Body)
		}
	}
}

// Close ends the connection; DISCONNECT is sent first when it can be.
func (d *Conn) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	_ = d.tcp.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = d.tcp.Write(packet.AppendEmpty(nil, packet.DISCONNECT))
	_ = d.tcp.Close()
}
