package hub

import (
	"encoding/binary"
	"math/bits"

	"tandem"
)

// MaxMessageSize is the largest Message.Size of telemetry (specs/wire-facts.md §3.3).
const MaxMessageSize = 262_144

// MaxMessageProperties bounds the user properties of one message; beyond it a door refuses the message.
const MaxMessageProperties = 1024

// ErrMessageTooLarge is a message over MaxMessageSize or MaxMessageProperties.
var ErrMessageTooLarge = &tandem.Error{Op: "check message", Kind: tandem.TooLarge,
	Hint: "body, property names and property values together may take 262,144 bytes"}

// A Message is what a device says, in no protocol's words: the body, the system properties that Azure IoT Hub knows
// and the sender's own properties. An empty system property is an absent one. Times are kept as the text that came.
type Message struct {
	MessageID         string
	CorrelationID     string
	UserID            string
	ContentType       string
	ContentEncoding   string
	To                string
	Expiry            string // ISO 8601
	CreationTime      string // iothub-creation-time-utc
	Component         string // dt-subject
	InterfaceID       string // iothub-interface-id
	Schema            string // iothub-message-schema
	Output            string // a module's output name
	DiagnosticID      string
	DiagnosticContext string

	Properties []Property // in the sender's order; names may repeat
	Body       []byte
}

// A Property is one user property. Null is a property that came as a name alone.
type Property struct {
	Name, Value string
	Null        bool
}

// Size is what MaxMessageSize limits: the body, the values of system properties, names and values of user properties.
func (m *Message) Size() int {
	n := len(m.Body)
	for _, field := range m.system() {
		n += len(*field)
	}
	for i := range m.Properties {
		n += len(m.Properties[i].Name) + len(m.Properties[i].Value)
	}
	return n
}

// Check returns ErrMessageTooLarge for a message that a hub does not take, else nil.
func (m *Message) Check() error {
	if m.Size() > MaxMessageSize || len(m.Properties) > MaxMessageProperties {
		return ErrMessageTooLarge
	}
	return nil
}

// Reset empties m and keeps the memory of Properties.
func (m *Message) Reset() { *m = Message{Properties: m.Properties[:0]} }

// systemCount is the number of system properties. Their order below is the encoding's: add at the end only.
const systemCount = 14

func (m *Message) system() [systemCount]*string {
	return [systemCount]*string{
		&m.MessageID, &m.CorrelationID, &m.UserID, &m.ContentType, &m.ContentEncoding, &m.To, &m.Expiry, &m.CreationTime,
		&m.Component, &m.InterfaceID, &m.Schema, &m.Output, &m.DiagnosticID, &m.DiagnosticContext,
	}
}

// messageVersion is the first byte of an encoded message.
//
//	message  = version, uvarint length of head, head, body (all that is left)
//	head     = nothing, when there are no properties of either sort
//	         | uvarint set of system properties, their texts in order, user properties until its end
//	property = text name, uvarint 0 for null or 1 + length of the value, value
//	text     = uvarint length, bytes
const messageVersion = 1

// AppendMessage appends m's encoding to dst. The encoding of one message is always the same bytes.
func AppendMessage(dst []byte, m *Message) []byte {
	dst = append(dst, messageVersion)
	set, length := m.head()
	dst = binary.AppendUvarint(dst, uint64(length))
	if length > 0 {
		dst = binary.AppendUvarint(dst, set)
		for _, field := range m.system() {
			if *field != "" {
				dst = appendText(dst, *field)
			}
		}
		for i := range m.Properties {
			p := &m.Properties[i]
			dst = appendText(dst, p.Name)
			if p.Null {
				dst = append(dst, 0)
				continue
			}
			dst = binary.AppendUvarint(dst, uint64(len(p.Value))+1)
			dst = append(dst, p.Value...)
		}
	}
	return append(dst, m.Body...)
}

// head returns the set of system properties that m has and the length of its encoded head.
func (m *Message) head() (set uint64, length int) {
	for i, field := range m.system() {
		if n := len(*field); n > 0 {
			set |= 1 << i
			length += uvarintLen(uint64(n)) + n
		}
	}
	for i := range m.Properties {
		p := &m.Properties[i]
		length += uvarintLen(uint64(len(p.Name))) + len(p.Name)
		if p.Null {
			length++
			continue
		}
		length += uvarintLen(uint64(len(p.Value))+1) + len(p.Value)
	}
	if length > 0 {
		length += uvarintLen(set)
	}
	return set, length
}

func uvarintLen(n uint64) int { return (bits.Len64(n|1) + 6) / 7 }

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// DecodeMessage reads what AppendMessage wrote. Body points into b; the properties share one copy. It returns an error
// of kind Damaged for bytes that AppendMessage does not write, and of kind Unsupported for a newer version.
func DecodeMessage(b []byte) (Message, error) {
	var m Message
	if len(b) == 0 {
		return m, damagedMessage("it is empty")
	}
	if b[0] != messageVersion {
		return m, &tandem.Error{Op: "decode message", Kind: tandem.Unsupported, Hint: "it was written by a newer version"}
	}
	length, n := binary.Uvarint(b[1:])
	if n <= 0 || length > uint64(len(b)-1-n) {
		return m, damagedMessage("the head is cut short")
	}
	start := 1 + n
	end := start + int(length)
	m.Body = b[end:len(b):len(b)]
	if length == 0 {
		return m, nil
	}
	head := headReader{bytes: b[start:end], text: string(b[start:end])}
	return m, m.decodeHead(&head)
}

func (m *Message) decodeHead(head *headReader) error {
	set := head.uvarint()
	if set>>systemCount != 0 {
		return &tandem.Error{Op: "decode message", Kind: tandem.Unsupported, Hint: "it holds a system property of a newer version"}
	}
	for i, field := range m.system() {
		if set>>i&1 == 1 {
			*field = head.take(head.uvarint())
			if *field == "" {
				head.bad = true
			}
		}
	}
	for !head.bad && len(head.bytes) > head.at {
		p := Property{Name: head.take(head.uvarint())}
		if n := head.uvarint(); n == 0 {
			p.Null = true
		} else {
			p.Value = head.take(n - 1)
		}
		m.Properties = append(m.Properties, p)
	}
	if head.bad {
		return damagedMessage("a property does not fit the head")
	}
	return nil
}

// headReader walks the head; once bad it stays bad.
type headReader struct {
	bytes []byte
	text  string // the same bytes
	at    int
	bad   bool
}

func (r *headReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.bytes[r.at:])
	if n <= 0 || n != uvarintLen(v) { // only the shortest form, so that equal messages are equal bytes
		r.bad = true
		return 0
	}
	r.at += n
	return v
}

func (r *headReader) take(n uint64) string {
	if r.bad || n > uint64(len(r.text)-r.at) {
		r.bad = true
		return ""
	}
	s := r.text[r.at : r.at+int(n)]
	r.at += int(n)
	return s
}

func damagedMessage(what string) error {
	return &tandem.Error{Op: "decode message: " + what, Kind: tandem.Damaged}
}
