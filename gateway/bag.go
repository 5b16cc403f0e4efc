package gateway

import (
	"strings"
	"unicode/utf8"

	"tandem/hub"
)

// ParseBag reads a property bag, the last part of an MQTT topic, into m's system and user properties
// (specs/wire-facts.md §3.3). A bag never fails to parse: text that is not percent-encoded UTF-8 is kept as it came,
// and a "$." name that is not known stays a user property. Only the number of properties is limited: beyond
// hub.MaxMessageProperties it returns hub.ErrMessageTooLarge.
func ParseBag(bag string, m *hub.Message) error {
	bag = strings.TrimSuffix(strings.TrimPrefix(bag, "?"), "/")
	for bag != "" {
		var piece string
		piece, bag, _ = strings.Cut(bag, "&")
		if piece == "" {
			continue
		}
		name, value, hasValue := strings.Cut(piece, "=")
		name, value = decodeText(name), decodeText(value)
		if field := systemField(m, name); field != nil {
			*field = value
			continue
		}
		if len(m.Properties) == hub.MaxMessageProperties {
			return hub.ErrMessageTooLarge
		}
		m.Properties = append(m.Properties, hub.Property{Name: name, Value: value, Null: !hasValue})
	}
	return nil
}

// decodeText decodes percent-encoding where that gives text, else returns s.
func decodeText(s string) string {
	if decoded, ok := unescape(s); ok && utf8.ValidString(decoded) {
		return decoded
	}
	return s
}

// systemNames are the bag's names of system properties, in the order in which devices send them.
var systemNames = [...]string{
	"mid", "cid", "uid", "to", "ct", "ce", "exp", "ctime", "sub", "ifid", "schema", "on", "diagid", "diagctx",
}

// systemField returns the field that a bag's name means, or nil.
func systemField(m *hub.Message, name string) *string {
	if !strings.HasPrefix(name, "$.") {
		return nil
	}
	switch name[2:] {
	case "mid":
		return &m.MessageID
	case "cid":
		return &m.CorrelationID
	case "uid":
		return &m.UserID
	case "to":
		return &m.To
	case "ct":
		return &m.ContentType
	case "ce":
		return &m.ContentEncoding
	case "exp":
		return &m.Expiry
	case "ctime":
		return &m.CreationTime
	case "sub":
		return &m.Component
	case "ifid":
		return &m.InterfaceID
	case "schema":
		return &m.Schema
	case "on":
		return &m.Output
	case "diagid":
		return &m.DiagnosticID
	case "diagctx":
		return &m.DiagnosticContext
	}
	return nil
}

// AppendBag appends m's properties as a bag, system properties first. ParseBag reads them back, except that a user
// property with neither name nor value is left out: the bag has no form for it.
func AppendBag(dst []byte, m *hub.Message) []byte {
	start := len(dst)
	for _, name := range systemNames {
		if value := *systemField(m, "$."+name); value != "" {
			dst = appendPair(dst, start, "$."+name)
			dst = appendEscaped(append(dst, '='), value)
		}
	}
	for i := range m.Properties {
		p := &m.Properties[i]
		if p.Null && p.Name == "" {
			continue
		}
		dst = appendPair(dst, start, p.Name)
		if !p.Null {
			dst = appendEscaped(append(dst, '='), p.Value)
		}
	}
	return dst
}

func appendPair(dst []byte, start int, name string) []byte {
	if len(dst) > start {
		dst = append(dst, '&')
	}
	return appendEscaped(dst, name)
}
