package mqtt

import (
	"context"
	"sync"

	"tandem/gateway"
	"tandem/gateway/mqtt/packet"
	"tandem/hub"
)

// retained is what RETAIN becomes: the hub keeps no retained messages (specs/wire-facts.md §3.2).
var retained = hub.Property{Name: "mqtt-retain", Value: "true"}

// A draft is the memory that one message needs on its way from packet to command; sessions share a pool of them.
type draft struct {
	message hub.Message
	command hub.Command
	body    []byte
}

var drafts = sync.Pool{New: func() any { return new(draft) }}

// keepDraft is the largest body that a draft keeps in the pool.
const keepDraft = 16 << 10

func (d *draft) free() {
	d.message.Reset()
	if cap(d.body) > keepDraft {
		d.body = nil
	}
	d.command = hub.Command{}
	drafts.Put(d)
}

// publish does what a device's PUBLISH means by its topic.
func (s *session) publish(ctx context.Context, p *packet.Publish) error {
	if p.QoS == 2 {
		return ErrQoS2
	}
	kind, rest := classify(p.Topic, string(s.device))
	switch kind {
	case telemetryTopic:
		return s.telemetry(ctx, p, rest)
	case twinGet, twinPatch:
		s.answerTwin(kind, rest)
	case methodResult: // nobody asked for it
	default:
		return ErrTopic
	}
	if p.QoS == 0 {
		return nil
	}
	return s.out.acknowledge(p.ID)
}

// messageOverhead is counted for each message under way besides its bytes, so that empty ones are bounded too.
const messageOverhead = 128

// telemetry hands a message to the hub. Its PUBACK comes from out.Resolved, once it is durable.
func (s *session) telemetry(ctx context.Context, p *packet.Publish, bag []byte) error {
	d := drafts.Get().(*draft)
	defer d.free()
	m := &d.message
	if len(bag) > 0 {
		if err := gateway.ParseBag(string(bag), m); err != nil {
			return err
		}
	}
	if p.Retain {
		m.Properties = append(m.Properties, retained)
	}
	m.Body = p.Payload
	if err := m.Check(); err != nil {
		return err
	}
	d.body = hub.AppendMessage(d.body[:0], m)
	d.command = hub.Command{Op: hub.OpTelemetry, Device: s.device, Session: s.number, Body: d.body}
	size := len(d.body) + messageOverhead
	if err := s.out.admit(ctx, size); err != nil {
		return err
	}
	if err := s.hub.Submit(ctx, &d.command, &s.out, tagOf(size, p.ID)); err != nil {
		s.out.withdraw(size)
		return err
	}
	s.server.counts.messages.Add(1)
	return nil
}

// The answers of a hub that keeps no twins: every device's is empty, and what it reports is refused with a status that
// SDKs hand to the application without trying again. 501 is honest; 503 would make devices send for ever.
const (
	emptyTwin   = `{"desired":{"$version":1},"reported":{"$version":1}}`
	noReporting = `{"errorCode":501000,"message":"This hub does not keep reported properties yet."}`
)

// answerTwin answers a twin request, if the device subscribed to answers.
func (s *session) answerTwin(kind topicKind, rid []byte) {
	if s.subscriptions&toTwinAnswers == 0 {
		return
	}
	status, body := "200", emptyTwin
	if kind == twinPatch {
		status, body = "501", noReporting
	}
	answer := packet.Publish{Topic: append([]byte("$iothub/twin/res/"+status+"/?$rid="), rid...), Payload: []byte(body)}
	s.out.add(func(b []byte) []byte { return packet.AppendPublish(b, &answer) })
}
