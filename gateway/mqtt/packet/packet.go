// Package packet is MQTT 3.1.1 as bytes: a Reader that cuts a stream into control packets, parsers that look into a
// packet in place, and appenders that write one. It knows nothing of Tandem and imports only the standard library.
//
// Parsers copy nothing: the slices they return point into the packet's body and live as long as it does (until the
// Reader's next call). Everything a peer announces is checked against a limit before memory is taken for it.
//
// The package covers both directions, so that a simulated device speaks with the same code as the server. What topics
// mean, and which packets may come when, is decided by the session. Two rules of the standard are left to it on
// purpose: wildcards in topic names, because device ids may contain + and #, and their placement in filters.
package packet

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"unicode/utf8"
)

// A Type is the control packet type of the fixed header's first four bits (MQTT 3.1.1 §2.2.1).
type Type uint8

// The control packet types.
const (
	CONNECT Type = iota + 1
	CONNACK
	PUBLISH
	PUBACK
	PUBREC
	PUBREL
	PUBCOMP
	SUBSCRIBE
	SUBACK
	UNSUBSCRIBE
	UNSUBACK
	PINGREQ
	PINGRESP
	DISCONNECT
)

var typeNames = [...]string{
	"reserved packet 0", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBSCRIBE", "SUBACK",
	"UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "reserved packet 15",
}

// String is the type's name in the standard.
func (t Type) String() string {
	if int(t) < len(typeNames) {
		return typeNames[t]
	}
	return "unknown packet"
}

// A Packet is one control packet as it came: the fixed header taken apart, the rest untouched.
type Packet struct {
	Type  Type
	Flags byte   // the low four bits of the first byte; checked against the standard except for PUBLISH
	Body  []byte // variable header and payload
}

// MaxLength is the largest remaining length that four bytes can say (§2.2.3).
const MaxLength = 268_435_455

// An Error is a packet that breaks the standard: what is wrong and where the standard forbids it. The only answer is
// to close the connection (§4.8).
type Error struct {
	Type    Type   // zero when not even the type could be read
	What    string // "the topic name is empty"
	Section string // of MQTT 3.1.1, "4.7.3"
}

// Error says what is wrong in one line.
func (e *Error) Error() string {
	return fmt.Sprintf("malformed %v: %s (MQTT 3.1.1 §%s)", e.Type, e.What, e.Section)
}

// A SizeError is a packet whose fixed header announces more than the reader's limit. Nothing was allocated for it.
type SizeError struct {
	Type  Type
	Size  int // announced remaining length
	Limit int
}

// Error says both sizes.
func (e *SizeError) Error() string {
	return fmt.Sprintf("%v of %d bytes is over the limit of %d", e.Type, e.Size, e.Limit)
}

// A Header is a fixed header (§2.2).
type Header struct {
	Type   Type
	Flags  byte
	Length int // remaining length: bytes after the fixed header
}

// ParseHeader reads the fixed header at the start of b and returns how many bytes it takes. It returns 0 and no error
// when b is too short to tell. Types and flags that the standard reserves are errors (§2.2.2).
func ParseHeader(b []byte) (Header, int, error) {
	if len(b) == 0 {
		return Header{}, 0, nil
	}
	h := Header{Type: Type(b[0] >> 4), Flags: b[0] & 0x0f}
	if h.Type == 0 || h.Type > DISCONNECT {
		return h, 0, &Error{h.Type, "this packet type is reserved", "2.2.1"}
	}
	if h.Type != PUBLISH && h.Flags != requiredFlags(h.Type) {
		return h, 0, &Error{h.Type, "the reserved flags of the fixed header have other values", "2.2.2"}
	}
	for i := 1; i <= 4; i++ {
		if i >= len(b) {
			return h, 0, nil
		}
		h.Length |= int(b[i]&0x7f) << (7 * (i - 1))
		if b[i]&0x80 == 0 {
			return h, i + 1, nil
		}
	}
	return h, 0, &Error{h.Type, "the remaining length takes more than four bytes", "2.2.3"}
}

func requiredFlags(t Type) byte {
	switch t {
	case PUBREL, SUBSCRIBE, UNSUBSCRIBE:
		return 0b0010
	}
	return 0
}

// appendHeader appends a fixed header. The caller keeps length at or below MaxLength.
func appendHeader(dst []byte, t Type, flags byte, length int) []byte {
	dst = append(dst, byte(t)<<4|flags)
	for length >= 0x80 {
		dst = append(dst, byte(length)|0x80)
		length >>= 7
	}
	return append(dst, byte(length))
}

// takeUint16 cuts a two-byte integer off b; ok is false when b is too short.
func takeUint16(b []byte) (n uint16, rest []byte, ok bool) {
	if len(b) < 2 {
		return 0, nil, false
	}
	return binary.BigEndian.Uint16(b), b[2:], true
}

// takeBytes cuts a length-prefixed field off b.
func takeBytes(b []byte) (field, rest []byte, ok bool) {
	if len(b) < 2 {
		return nil, nil, false
	}
	end := 2 + int(binary.BigEndian.Uint16(b))
	if len(b) < end {
		return nil, nil, false
	}
	return b[2:end:end], b[end:], true
}

// validString checks what §1.5.3 demands of text: well-formed UTF-8 without surrogates and without U+0000.
func validString(s []byte) bool {
	return bytes.IndexByte(s, 0) < 0 && utf8.Valid(s)
}

// takeString cuts a UTF-8 string off b; what names it in the error.
func takeString(t Type, what string, b []byte) (field, rest []byte, err error) {
	field, rest, ok := takeBytes(b)
	if !ok {
		return nil, nil, &Error{t, "the packet ends inside the " + what, "1.5.3"}
	}
	if !validString(field) {
		return nil, nil, &Error{t, "the " + what + " is not UTF-8 text or holds a null character", "1.5.3"}
	}
	return field, rest, nil
}

// appendBytes appends a length-prefixed field; the caller keeps it within 65,535 bytes.
func appendBytes(dst, field []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(field)))
	return append(dst, field...)
}
