package mqtt

import (
	"context"
	"strings"
	"time"

	"tandem"
	"tandem/gateway"
	"tandem/gateway/mqtt/packet"
	"tandem/hub"
)

// maxSilence is the longest time a connection may say nothing (specs/wire-facts.md §3.1).
const maxSilence = 1767 * time.Second

// silenceOf is how long a device with a keep-alive may say nothing: 1.5 times it, at most maxSilence; that is also
// what a keep-alive of 0 gets.
func silenceOf(keepAlive uint16) time.Duration {
	if keepAlive == 0 {
		return maxSilence
	}
	return min(time.Duration(keepAlive)*1500*time.Millisecond, maxSilence)
}

// open takes the connection from its first byte to CONNACK. After an error that CONNECT has an answer for, the answer
// was written.
func (s *session) open(ctx context.Context) error {
	p, err := s.reader.Next()
	if err != nil {
		return err
	}
	if p.Type != packet.CONNECT {
		return ErrNotConnect
	}
	c, err := packet.ParseConnect(p.Body)
	if err != nil && err != packet.ErrLevel {
		return err
	}
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, s.server.options.LoginWithin)
		err = s.login(ctx, &c)
		cancel()
	}
	code := packet.Accepted
	if err != nil {
		code = answerTo(err).connack
	}
	s.out.add(func(b []byte) []byte { return packet.AppendConnack(b, false, code) })
	if err == nil { // the deadline for CONNECT is over
		err = s.conn.SetDeadline(time.Time{})
	}
	s.out.Flush()
	return err
}

// login finds out who the device is and begins its session with the hub.
func (s *session) login(ctx context.Context, c *packet.Connect) error {
	name, err := gateway.ParseUsername(string(c.Username))
	if err != nil {
		return err
	}
	s.device = tandem.DeviceID(strings.Clone(string(name.Device))) // the rest of the name need not stay in memory
	if string(c.ClientID) != clientID(&name) {
		return ErrClientID
	}
	login := gateway.Login{Host: name.Host, Device: name.Device, Module: name.Module, Token: string(c.Password)}
	admitted, err := gateway.Admit(ctx, s.server.options.Hubs, login, s.server.options.Clock.Now())
	if err != nil {
		return err
	}
	if err := s.keepWill(c); err != nil {
		return err
	}
	number, err := admitted.Hub.Handle.Connect(ctx, s.device, s.end)
	if err != nil {
		return err
	}
	s.hub, s.number, s.until = admitted.Hub.Handle, number, admitted.Until
	s.silence = silenceOf(c.KeepAlive)
	s.reader.SetLimit(s.server.options.MaxPacket)
	return nil
}

func clientID(name *gateway.Username) string {
	if name.Module == "" {
		return string(name.Device)
	}
	return string(name.Device) + "/" + name.Module
}

// keepWill encodes the will now, so that a wrong one is refused while there is an answer for it.
func (s *session) keepWill(c *packet.Connect) error {
	if !c.HasWill {
		return nil
	}
	kind, bag := classify(c.WillTopic, string(s.device))
	if kind != telemetryTopic {
		return ErrWillTopic
	}
	var m hub.Message
	if err := gateway.ParseBag(string(bag), &m); err != nil {
		return err
	}
	m.Properties = append(m.Properties, hub.Property{Name: "iothub-MessageType", Value: "Will"})
	if c.WillRetain {
		m.Properties = append(m.Properties, retained)
	}
	m.Body = c.WillMessage
	if err := m.Check(); err != nil {
		return err
	}
	s.will = hub.AppendMessage(nil, &m)
	return nil
}

// sendWill appends the will as telemetry of no session: the device's own may have been taken by a newer one.
func (s *session) sendWill(ctx context.Context) error {
	_, err := s.hub.Do(ctx, &hub.Command{Op: hub.OpTelemetry, Device: s.device, Body: s.will})
	if err != nil {
		return &tandem.Error{Op: "send the will", Kind: tandem.KindOf(err), On: string(s.device), Err: err}
	}
	return nil
}
