package packet

import "encoding/binary"

// A Filter is one topic filter of a SUBSCRIBE or UNSUBSCRIBE with the QoS asked for (zero in UNSUBSCRIBE).
type Filter struct {
	Topic []byte // not empty
	QoS   byte
}

// Filters walks the topic filters of a SUBSCRIBE or UNSUBSCRIBE in place.
//
//	id, filters, err := ParseSubscribe(body)
//	for f, ok := filters.Next(); ok; f, ok = filters.Next() { … }
type Filters struct {
	rest    []byte
	withQoS bool
}

// Next returns the next filter and false after the last one.
func (f *Filters) Next() (Filter, bool) {
	if len(f.rest) == 0 {
		return Filter{}, false
	}
	topic, rest, _ := takeBytes(f.rest)
	filter := Filter{Topic: topic}
	if f.withQoS {
		filter.QoS, rest = rest[0], rest[1:]
	}
	f.rest = rest
	return filter, true
}

// ParseSubscribe reads the body of a SUBSCRIBE (§3.8): at least one filter, every one checked before it returns.
func ParseSubscribe(body []byte) (id uint16, filters Filters, err error) {
	return parseFilters(SUBSCRIBE, body)
}

// ParseUnsubscribe reads the body of an UNSUBSCRIBE (§3.10) like ParseSubscribe.
func ParseUnsubscribe(body []byte) (id uint16, filters Filters, err error) {
	return parseFilters(UNSUBSCRIBE, body)
}

func parseFilters(t Type, body []byte) (uint16, Filters, error) {
	id, b, ok := takeUint16(body)
	if !ok {
		return 0, Filters{}, &Error{t, "the packet ends inside the packet identifier", "2.3.1"}
	}
	if id == 0 {
		return 0, Filters{}, &Error{t, "the packet identifier is zero", "2.3.1"}
	}
	if len(b) == 0 {
		return 0, Filters{}, &Error{t, "it names no topic filter", sectionOf(t)}
	}
	filters := Filters{rest: b, withQoS: t == SUBSCRIBE}
	for len(b) > 0 {
		topic, rest, err := takeString(t, "topic filter", b)
		if err != nil {
			return 0, Filters{}, err
		}
		if len(topic) == 0 {
			return 0, Filters{}, &Error{t, "a topic filter is empty", "4.7.3"}
		}
		if filters.withQoS {
			if len(rest) == 0 {
				return 0, Filters{}, &Error{t, "the packet ends before the requested QoS", "3.8.3"}
			}
			if rest[0] > 2 {
				return 0, Filters{}, &Error{t, "the requested QoS is over 2 or has reserved bits set", "3.8.3"}
			}
			rest = rest[1:]
		}
		b = rest
	}
	return id, filters, nil
}

func sectionOf(t Type) string {
	if t == SUBSCRIBE {
		return "3.8.3"
	}
	return "3.10.3"
}

// AppendSubscribe appends a SUBSCRIBE.
func AppendSubscribe(dst []byte, id uint16, filters ...Filter) []byte {
	length := 2
	for _, f := range filters {
		length += 3 + len(f.Topic)
	}
	dst = appendHeader(dst, SUBSCRIBE, requiredFlags(SUBSCRIBE), length)
	dst = binary.BigEndian.AppendUint16(dst, id)
	for _, f := range filters {
		dst = append(appendBytes(dst, f.Topic), f.QoS)
	}
	return dst
}

// AppendUnsubscribe appends an UNSUBSCRIBE; the filters' QoS is not written.
func AppendUnsubscribe(dst []byte, id uint16, filters ...Filter) []byte {
	length := 2
	for _, f := range filters {
		length += 2 + len(f.Topic)
	}
	dst = appendHeader(dst, UNSUBSCRIBE, requiredFlags(UNSUBSCRIBE), length)
	dst = binary.BigEndian.AppendUint16(dst, id)
	for _, f := range filters {
		dst = appendBytes(dst, f.Topic)
	}
	return dst
}

// SubackFailure is the code of a filter that was refused (§3.9.3).
const SubackFailure = 0x80

// AppendSuback appends a SUBACK with one code per filter of the SUBSCRIBE: the QoS granted, or SubackFailure.
func AppendSuback(dst []byte, id uint16, codes []byte) []byte {
	dst = appendHeader(dst, SUBACK, 0, 2+len(codes))
	dst = binary.BigEndian.AppendUint16(dst, id)
	return append(dst, codes...)
}

// ParseSuback reads the body of a SUBACK.
func ParseSuback(body []byte) (id uint16, codes []byte, err error) {
	id, codes, ok := takeUint16(body)
	if !ok || id == 0 || len(codes) == 0 {
		return 0, nil, &Error{SUBACK, "it has no packet identifier or no code", "3.9"}
	}
	for _, code := range codes {
		if code > 2 && code != SubackFailure {
			return 0, nil, &Error{SUBACK, "a code is reserved", "3.9.3"}
		}
	}
	return id, codes, nil
}
