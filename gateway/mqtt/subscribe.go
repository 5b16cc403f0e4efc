package mqtt

import "tandem/gateway/mqtt/packet"

// subscribe grants the documented filters, QoS 2 as 1. When one is refused the device gets its SUBACK and is closed:
// SDKs do not read the codes of a SUBACK.
func (s *session) subscribe(body []byte) error {
	id, filters, err := packet.ParseSubscribe(body)
	if err != nil {
		return err
	}
	var codes []byte
	var refused error
	for f, ok := filters.Next(); ok; f, ok = filters.Next() {
		if len(codes) == maxSubscriptions {
			return ErrSubscriptions
		}
		bit := subscriptionOf(f.Topic, string(s.device))
		if bit == 0 {
			refused = ErrFilter
			codes = append(codes, packet.SubackFailure)
			continue
		}
		s.subscriptions |= bit
		codes = append(codes, min(f.QoS, 1))
	}
	s.out.add(func(b []byte) []byte { return packet.AppendSuback(b, id, codes) })
	return refused
}

// unsubscribe ends subscriptions; filters that were never subscribed to are fine (MQTT 3.1.1 §3.10.4).
func (s *session) unsubscribe(body []byte) error {
	id, filters, err := packet.ParseUnsubscribe(body)
	if err != nil {
		return err
	}
	for f, ok := filters.Next(); ok; f, ok = filters.Next() {
		s.subscriptions &^= subscriptionOf(f.Topic, string(s.device))
	}
	s.out.add(func(b []byte) []byte { return packet.AppendAck(b, packet.UNSUBACK, id) })
	return nil
}
