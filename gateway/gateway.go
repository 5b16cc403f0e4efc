// Package gateway holds what the doors for devices share: SAS tokens, the forms of a device's user name, the property
// bag, and the gate that connections pass before they have said who they are. The doors themselves are the packages
// below it (mqtt, https, amqp); none of them imports another.
//
// It maps Azure's wire forms (specs/wire-facts.md §2 and §3, specs/clients.md) to the domain's words and back. It opens
// no listener and knows no hub: which hubs exist, and which keys a device has, is asked of package hub by the doors.
package gateway

import "strings"

// Host cuts the port off a host name and folds its case: the form under which hubs are looked up. SDKs put the port
// into user names and tokens when the connection string has one (specs/clients.md §1).
func Host(s string) string {
	i := strings.LastIndexByte(s, ':')
	if i > 0 && (strings.IndexByte(s, ':') == i || s[i-1] == ']') { // an IPv6 address has colons of its own
		s = s[:i]
	}
	return strings.ToLower(s)
}

// unescape decodes percent-encoding; '+' stays '+'. ok is false when an escape is broken, and s comes back as it was.
func unescape(s string) (decoded string, ok bool) {
	if strings.IndexByte(s, '%') < 0 {
		return s, true
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			out = append(out, s[i])
			continue
		}
		if i+2 >= len(s) || unhex(s[i+1]) < 0 || unhex(s[i+2]) < 0 {
			return s, false
		}
		out = append(out, byte(unhex(s[i+1])<<4|unhex(s[i+2])))
		i += 2
	}
	return string(out), true
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// appendEscaped percent-encodes everything but letters, digits and -_.!~*'(), as encodeURIComponent does.
func appendEscaped(dst []byte, s string) []byte {
	const digits = "0123456789ABCDEF"
	for i := range len(s) {
		c := s[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-_.!~*'()", c) >= 0 {
			dst = append(dst, c)
			continue
		}
		dst = append(dst, '%', digits[c>>4], digits[c&15])
	}
	return dst
}
