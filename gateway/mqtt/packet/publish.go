package packet

import "encoding/binary"

// Publish is a PUBLISH packet (§3.3).
type Publish struct {
	Dup     bool
	QoS     byte
	Retain  bool
	Topic   []byte // not empty; may hold wildcard characters, see the package comment
	ID      uint16 // zero exactly when QoS is 0
	Payload []byte
}

// ParsePublish reads the flags and body of a PUBLISH without allocating.
func ParsePublish(flags byte, body []byte) (Publish, error) {
	p := Publish{Dup: flags&8 != 0, QoS: flags >> 1 & 3, Retain: flags&1 != 0}
	if p.QoS == 3 {
		return p, &Error{PUBLISH, "the QoS is 3", "3.3.1.2"}
	}
	if p.QoS == 0 && p.Dup {
		return p, &Error{PUBLISH, "DUP is set at QoS 0", "3.3.1.1"}
	}
	var err error
	if p.Topic, p.Payload, err = takeString(PUBLISH, "topic name", body); err != nil {
		return p, err
	}
	if len(p.Topic) == 0 {
		return p, &Error{PUBLISH, "the topic name is empty", "4.7.3"}
	}
	if p.QoS > 0 {
		var ok bool
		if p.ID, p.Payload, ok = takeUint16(p.Payload); !ok {
			return p, &Error{PUBLISH, "the packet ends inside the packet identifier", "3.3.2.2"}
		}
		if p.ID == 0 {
			return p, &Error{PUBLISH, "the packet identifier is zero", "2.3.1"}
		}
	}
	return p, nil
}

// AppendPublish appends p as a packet. The topic has to fit 65,535 bytes and the whole MaxLength.
func AppendPublish(dst []byte, p *Publish) []byte {
	flags := p.QoS << 1
	length := 2 + len(p.Topic) + len(p.Payload)
	if p.Dup {
		flags |= 8
	}
	if p.Retain {
		flags |= 1
	}
	if p.QoS > 0 {
		length += 2
	}
	dst = appendHeader(dst, PUBLISH, flags, length)
	dst = appendBytes(dst, p.Topic)
	if p.QoS > 0 {
		dst = binary.BigEndian.AppendUint16(dst, p.ID)
	}
	return append(dst, p.Payload...)
}

// ParseAck reads the packet identifier that is the whole body of PUBACK, PUBREC, PUBREL, PUBCOMP and UNSUBACK.
func ParseAck(t Type, body []byte) (id uint16, err error) {
	id, rest, ok := takeUint16(body)
	if !ok || len(rest) > 0 {
		return 0, &Error{t, "it is not two bytes long", "2.3.1"}
	}
	if id == 0 {
		return 0, &Error{t, "the packet identifier is zero", "2.3.1"}
	}
	return id, nil
}

// PubackSize is the length of a PUBACK on the wire.
const PubackSize = 4

// AppendPuback appends a PUBACK.
func AppendPuback(dst []byte, id uint16) []byte {
	return append(dst, byte(PUBACK)<<4, 2, byte(id>>8), byte(id))
}

// AppendAck appends any of the packets that ParseAck reads.
func AppendAck(dst []byte, t Type, id uint16) []byte {
	return append(dst, byte(t)<<4|requiredFlags(t), 2, byte(id>>8), byte(id))
}

// AppendEmpty appends one of the packets without a body: PINGREQ, PINGRESP, DISCONNECT.
func AppendEmpty(dst []byte, t Type) []byte {
	return append(dst, byte(t)<<4, 0)
}

// CheckEmpty reports a PINGREQ, PINGRESP or DISCONNECT that has a body.
func CheckEmpty(t Type, body []byte) error {
	if len(body) > 0 {
		return &Error{t, "it has a body", "2.2.3"}
	}
	return nil
}
