package gateway

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"strconv"
	"strings"
	"time"

	"tandem"
)

// What is wrong with a token. All are of kind Unauthorized.
var (
	ErrTokenMalformed = &tandem.Error{Op: "read SAS token", Kind: tandem.Unauthorized,
		Hint: "a token is SharedAccessSignature sr=…&sig=…&se=…[&skn=…]"}
	ErrTokenExpired = &tandem.Error{Op: "check SAS token: it has expired", Kind: tandem.Unauthorized,
		Hint: "make a new one; the clock of the device may be wrong"}
	ErrTokenSignature = &tandem.Error{Op: "check SAS token: it is signed with another key", Kind: tandem.Unauthorized}
	ErrTokenResource  = &tandem.Error{Op: "check SAS token: it is for another resource", Kind: tandem.Unauthorized}
)

// maxToken bounds what is looked at; real ones have a few hundred bytes.
const maxToken = 4096

// A Token is a SAS token taken apart (specs/wire-facts.md §2). Nothing in it is proven until SignedBy says so.
type Token struct {
	Host   string    // of the resource: folded, without port
	Path   string    // of the resource: "devices/d1", "" for the whole hub
	Policy string    // skn; empty for a device's or module's own key
	Expiry time.Time // se

	rawPath   string // Path without percent-decoding, for ids that hold a percent sign and were not encoded; may be empty
	signed    string // what the signature is over: sr and se exactly as they travel
	signature [sha256.Size]byte
}

const tokenPrefix = "SharedAccessSignature "

// ParseToken reads a token; its fields may come in any order. It returns ErrTokenMalformed or nil.
func ParseToken(s string) (Token, error) {
	var t Token
	if len(s) > maxToken || len(s) < len(tokenPrefix) || !strings.EqualFold(s[:len(tokenPrefix)], tokenPrefix) {
		return t, ErrTokenMalformed
	}
	var sr, sig, se, skn string
	for field := range strings.SplitSeq(s[len(tokenPrefix):], "&") {
		name, value, _ := strings.Cut(strings.TrimSpace(field), "=")
		var into *string
		switch name {
		case "sr":
			into = &sr
		case "sig":
			into = &sig
		case "se":
			into = &se
		case "skn":
			into = &skn
		default:
			continue
		}
		if *into != "" { // a second one could make two readers see two tokens
			return t, ErrTokenMalformed
		}
		*into = value
	}
	seconds, err := strconv.ParseUint(se, 10, 63)
	if err != nil || sr == "" || !t.parseSignature(sig) {
		return t, ErrTokenMalformed
	}
	policy, ok := unescape(skn)
	if !ok {
		return t, ErrTokenMalformed
	}
	t.Policy = policy
	t.Expiry = time.Unix(int64(min(seconds, maxExpiry)), 0).UTC()
	t.signed = sr + "\n" + se
	t.parseResource(sr)
	return t, nil
}

// maxExpiry is the end of the year 9999: what lies beyond is as good as never.
const maxExpiry = 253_402_300_799

func (t *Token) parseSignature(sig string) bool {
	text, ok := unescape(sig)
	if !ok {
		return false
	}
	b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "="))
	return err == nil && copy(t.signature[:], b) == sha256.Size && len(b) == sha256.Size
}

func (t *Token) parseResource(sr string) {
	decoded, _ := unescape(sr)
	host, path := splitResource(decoded)
	_, t.rawPath = splitResource(sr)
	t.Host, t.Path = Host(host), path
}

// splitResource cuts a resource into host and path, without scheme and without what old tools append.
func splitResource(s string) (host, path string) {
	if _, rest, ok := strings.Cut(s, "://"); ok {
		s = rest
	}
	host, path, _ = strings.Cut(s, "/")
	path = strings.TrimSuffix(path, "/")
	last := path[strings.LastIndexByte(path, '/')+1:]
	if strings.HasPrefix(strings.TrimPrefix(last, "?"), "api-version=") {
		path = strings.TrimSuffix(strings.TrimSuffix(path, last), "/")
	}
	return host, path
}

// SignedBy reports whether one of the keys made the signature, in constant time per key. Keys are the bytes that enter
// the HMAC: DecodeKey of the text on the hub's own host, the text's own bytes on the Event Hubs-compatible one. An
// empty key signs nothing.
func (t *Token) SignedBy(keys ...[]byte) bool {
	found := 0
	for _, key := range keys {
		if len(key) > 0 {
			sum := sign(key, t.signed)
			found |= subtle.ConstantTimeCompare(sum[:], t.signature[:])
		}
	}
	return found == 1
}

func sign(key []byte, text string) (sum [sha256.Size]byte) {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	mac.Sum(sum[:0])
	return sum
}

// Expired reports whether the token is no longer good at now.
func (t *Token) Expired(now time.Time) bool { return !now.Before(t.Expiry) }

// Covers reports whether the token's path is path or a prefix of it by segments: "devices/d1" covers
// "devices/d1/modules/m" and not "devices/d10". Some tools lower-case what they sign: a token made with a device's own
// key may differ in case, since the key says whose it is; a policy's may not. The host is for the caller to compare,
// who knows the hub's names.
func (t *Token) Covers(path string) bool {
	return t.covers(t.Path, path) || t.rawPath != "" && t.covers(t.rawPath, path)
}

func (t *Token) covers(prefix, path string) bool {
	if prefix == "" {
		return true
	}
	if len(path) < len(prefix) || len(path) > len(prefix) && path[len(prefix)] != '/' {
		return false
	}
	if t.Policy == "" {
		return strings.EqualFold(path[:len(prefix)], prefix)
	}
	return path[:len(prefix)] == prefix
}

// DevicePath is the resource of a device, or of a module when module is not empty.
func DevicePath(device tandem.DeviceID, module string) string {
	if module == "" {
		return "devices/" + string(device)
	}
	return "devices/" + string(device) + "/modules/" + module
}

// DecodeKey turns a key as people see it (base64) into the bytes that sign. It returns an error of kind Invalid for
// anything else, and for an empty key.
func DecodeKey(text string) ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(key) == 0 {
		return nil, &tandem.Error{Op: "read key", Kind: tandem.Invalid, Hint: "a key is base64 text"}
	}
	return key, nil
}

// MakeToken signs a token for resource ("host/devices/d1", not encoded) that is good until expiry. Policy is empty for a
// device's own key. The key is in the form that SignedBy takes.
func MakeToken(resource, policy string, key []byte, expiry time.Time) string {
	sr := string(appendEscaped(nil, resource))
	se := strconv.FormatInt(expiry.Unix(), 10)
	sum := sign(key, sr+"\n"+se)
	sig := appendEscaped(nil, base64.StdEncoding.EncodeToString(sum[:]))
	token := tokenPrefix + "sr=" + sr + "&sig=" + string(sig) + "&se=" + se
	if policy != "" {
		token += "&skn=" + string(appendEscaped(nil, policy))
	}
	return token
}
