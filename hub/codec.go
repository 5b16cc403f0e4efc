package hub

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"tandem"
	"tandem/pairlog"
)

// Limits of identities.
const (
	MaxDeviceID     = 128     // characters (specs/iothub-service-dataplane-2021-04-12.json, Device.deviceId)
	MaxStatusReason = 128     // characters (…, Device.statusReason)
	MaxBulk         = 100     // changes in one OpBulk
	maxIdentity     = 4 << 10 // bytes of one encoded identity
)

// The encodings of identities. Each of the outer ones begins with identityVersion; text is a uvarint length and bytes.
//
//	identity = flags (1 disabled, 2 edge), authentication type, uvarint set, the texts of the set in order
//	           (reason, primary key, secondary key, primary thumbprint, secondary thumbprint, scope),
//	           if parents are in the set: their uvarint count and texts
//	change   = version, op, text id, text etag of If-Match, identity                           in commands
//	bulk     = version, uvarint count, for each change its uvarint length and bytes            in commands
//	put      = version, flags (1 revokes), text id, identity                                   in the log
//	delete   = version, text id                                                                in the log
//	stored   = version, etag (12), generation (12), status updated in µs (8, 0 never), identity in the view
const (
	identityVersion = 1
	putRevokes      = 1 // something that let the device in yesterday does not any more

	flagDisabled = 1
	flagEdge     = 2

	identityTexts  = 6
	identityParent = 1 << identityTexts
	storedHead     = 1 + 2*len(origin{}) + 8
	maxParents     = 256
)

var authTypes = [...]AuthType{AuthSAS, AuthSelfSigned, AuthCA, AuthNone}

// An origin is a position packed into 12 bytes: epoch (4), record number (6), entry index (2).
type origin [12]byte

func makeOrigin(p pairlog.Position) (o origin) {
	binary.BigEndian.PutUint32(o[:], uint32(p.Epoch))
	binary.BigEndian.PutUint16(o[4:], uint16(p.Number>>32))
	binary.BigEndian.PutUint32(o[6:], uint32(p.Number))
	binary.BigEndian.PutUint16(o[10:], uint16(p.Index))
	return o
}

func (o origin) position() pairlog.Position {
	return pairlog.Position{
		Epoch:  tandem.Epoch(binary.BigEndian.Uint32(o[:])),
		Number: uint64(binary.BigEndian.Uint16(o[4:]))<<32 | uint64(binary.BigEndian.Uint32(o[6:])),
		Index:  uint32(binary.BigEndian.Uint16(o[10:])),
	}
}

// etag is an opaque text without quotes.
func (o origin) etag() string { return base64.StdEncoding.EncodeToString(o[:]) }

// appendGeneration appends the origin as decimal digits, eighteen as on Azure while the epoch has two: epoch, record
// number (13 digits, three hundred years at a thousand records a second), index (3).
func (o origin) appendGeneration(dst []byte) []byte {
	p := o.position()
	dst = appendDigits(dst, uint64(p.Epoch), 2)
	dst = appendDigits(dst, p.Number, 13)
	return appendDigits(dst, uint64(p.Index), 3)
}

func appendDigits(dst []byte, n uint64, width int) []byte {
	var digits [20]byte
	at := len(digits)
	for n > 0 || len(digits)-at < width {
		at--
		digits[at] = byte('0' + n%10)
		n /= 10
	}
	return append(dst, digits[at:]...)
}

// Check returns an error of kind Invalid for a change that no hub takes: a malformed id, a long reason, an unknown
// status or authentication type. Decide checks the same of what can still be seen in the encoding.
func (c *DeviceChange) Check() error {
	if c.Status != "" && c.Status != Enabled && c.Status != Disabled {
		return invalidChange("the status is neither enabled nor disabled")
	}
	if authByte(c.Auth.Type) == len(authTypes) {
		return invalidChange("the authentication type is unknown")
	}
	if !validDeviceID(c.ID) {
		return invalidChange("the device id is empty, too long or has a character that ids may not have")
	}
	_, err := splitIdentity(appendIdentity(nil, c))
	return err
}

func invalidChange(what string) error {
	return &tandem.Error{Op: "change the device", Kind: tandem.Invalid, Err: errors.New(what)}
}

func validDeviceID[T ~string | ~[]byte](id T) bool {
	if len(id) == 0 || len(id) > MaxDeviceID {
		return false
	}
	for i := 0; i < len(id); i++ {
		c := id[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9') && strings.IndexByte("-:.+%_#*?!(),=@;$'", c) < 0 {
			return false
		}
	}
	return true
}

func authByte(t AuthType) int {
	if t == "" {
		return 0
	}
	for i, known := range authTypes {
		if t == known {
			return i
		}
	}
	return len(authTypes)
}

// AppendDeviceChange appends c's encoding to dst. An empty Status is Enabled, an empty Auth.Type is AuthSAS; others that
// Check refuses are encoded as Disabled and AuthNone.
func AppendDeviceChange(dst []byte, c *DeviceChange) []byte {
	dst = append(dst, identityVersion, byte(c.Op))
	dst = appendText(dst, c.ID)
	dst = appendText(dst, c.IfMatch)
	return appendIdentity(dst, c)
}

func appendIdentity(dst []byte, c *DeviceChange) []byte {
	var flags byte
	if c.Status != "" && c.Status != Enabled {
		flags |= flagDisabled
	}
	if c.EdgeCapable {
		flags |= flagEdge
	}
	dst = append(dst, flags, byte(min(authByte(c.Auth.Type), len(authTypes)-1)))
	lengths := [identityTexts]int{len(c.StatusReason), len(c.Auth.PrimaryKey), len(c.Auth.SecondaryKey),
		len(c.Auth.PrimaryThumbprint), len(c.Auth.SecondaryThumbprint), len(c.DeviceScope)}
	var set uint64
	for i, n := range lengths {
		if n > 0 {
			set |= 1 << i
		}
	}
	if len(c.ParentScopes) > 0 {
		set |= identityParent
	}
	dst = binary.AppendUvarint(dst, set)
	for _, text := range [...]string{c.StatusReason, string(c.Auth.PrimaryKey), string(c.Auth.SecondaryKey),
		c.Auth.PrimaryThumbprint, c.Auth.SecondaryThumbprint, c.DeviceScope} {
		if text != "" {
			dst = appendText(dst, text)
		}
	}
	if len(c.ParentScopes) > 0 {
		dst = binary.AppendUvarint(dst, uint64(len(c.ParentScopes)))
		for _, text := range c.ParentScopes {
			dst = appendText(dst, text)
		}
	}
	return dst
}

// An identity is an encoded identity taken apart; the texts alias it.
type identity struct {
	flags, auth byte
	texts       [identityTexts][]byte
	parents     int
	parentTexts []byte // their encoding
}

// The texts of an identity.
const (
	textReason = iota
	textPrimaryKey
	textSecondaryKey
	textPrimaryThumbprint
	textSecondaryThumbprint
	textScope
)

func (i *identity) disabled() bool { return i.flags&flagDisabled != 0 }

// splitIdentity takes all of b apart. It returns an error of kind Invalid for what appendIdentity does not write or
// what is over a limit, of kind Unsupported for what a newer version may have written.
func splitIdentity(b []byte) (identity, error) {
	if len(b) > maxIdentity {
		return identity{}, invalidChange("the identity is too large")
	}
	r := cutter{b: b}
	i := identity{flags: r.byte(), auth: r.byte()}
	set := r.uvarint()
	if set>>(identityTexts+1) != 0 || i.flags&^(flagDisabled|flagEdge) != 0 || int(i.auth) >= len(authTypes) {
		return identity{}, &tandem.Error{Op: "read a device", Kind: tandem.Unsupported, Hint: "it was written by a newer version"}
	}
	for n := range i.texts {
		if set>>n&1 == 1 {
			i.texts[n] = r.text()
			r.bad = r.bad || len(i.texts[n]) == 0
		}
	}
	if set&identityParent != 0 {
		count := r.uvarint()
		r.bad = r.bad || count == 0 || count > maxParents
		start := r.at
		for n := uint64(0); !r.bad && n < count; n++ {
			r.text()
		}
		if !r.bad {
			i.parents, i.parentTexts = int(count), b[start:r.at]
		}
	}
	if r.bad || r.at != len(b) {
		return identity{}, invalidChange("the encoding is damaged")
	}
	if reason := i.texts[textReason]; len(reason) > MaxStatusReason && utf8.RuneCount(reason) > MaxStatusReason {
		return identity{}, invalidChange("the status reason has more than 128 characters")
	}
	return i, nil
}

// revokes reports whether something that old accepts is not accepted by i: the device is disabled, or a key, a thumbprint
// or the kind of proof is gone. Keys that change places revoke nothing.
func (i *identity) revokes(old *identity) bool {
	if i.disabled() && !old.disabled() || i.auth != old.auth {
		return true
	}
	for _, pair := range [][2]int{{textPrimaryKey, textSecondaryKey}, {textPrimaryThumbprint, textSecondaryThumbprint}} {
		for _, n := range pair {
			was := string(old.texts[n])
			if was != "" && was != string(i.texts[pair[0]]) && was != string(i.texts[pair[1]]) {
				return true
			}
		}
	}
	return false
}

// credentials copies the credentials.
func (i *identity) credentials() Auth {
	return Auth{Type: authTypes[i.auth],
		PrimaryKey: cloneBytes(i.texts[textPrimaryKey]), SecondaryKey: cloneBytes(i.texts[textSecondaryKey]),
		PrimaryThumbprint: string(i.texts[textPrimaryThumbprint]), SecondaryThumbprint: string(i.texts[textSecondaryThumbprint])}
}

func (i *identity) status() Status {
	if i.disabled() {
		return Disabled
	}
	return Enabled
}

func (i *identity) parentScopes() []string {
	if i.parents == 0 {
		return nil
	}
	scopes := make([]string, i.parents)
	r := cutter{b: i.parentTexts}
	for n := range scopes {
		scopes[n] = string(r.text())
	}
	return scopes
}

func cloneBytes(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return append([]byte(nil), b...)
}

// change is an encoded DeviceChange taken apart; its fields alias it.
type change struct {
	op          Op
	id, ifMatch []byte
	identity    []byte
}

func splitChange(b []byte) (change, error) {
	r := cutter{b: b}
	if !r.version() {
		return change{}, r.wrongVersion("decode a device change")
	}
	c := change{op: Op(r.byte()), id: r.text(), ifMatch: r.text()}
	if r.bad {
		return change{}, invalidChange("the encoding is cut short")
	}
	c.identity = b[r.at:]
	return c, nil
}

// DecodeDeviceChange reads what AppendDeviceChange wrote, and copies it. An error of kind Invalid, or Unsupported for a
// newer version.
func DecodeDeviceChange(b []byte) (DeviceChange, error) {
	c, err := splitChange(b)
	if err != nil {
		return DeviceChange{}, err
	}
	i, err := splitIdentity(c.identity)
	if err != nil {
		return DeviceChange{}, err
	}
	return DeviceChange{Op: c.op, ID: string(c.id), IfMatch: string(c.ifMatch), Status: i.status(),
		StatusReason: string(i.texts[textReason]), Auth: i.credentials(), EdgeCapable: i.flags&flagEdge != 0,
		DeviceScope: string(i.texts[textScope]), ParentScopes: i.parentScopes()}, nil
}

// AppendBulk appends the encoding of several changes to dst.
func AppendBulk(dst []byte, changes []DeviceChange) []byte {
	dst = append(dst, identityVersion)
	dst = binary.AppendUvarint(dst, uint64(len(changes)))
	var one []byte
	for n := range changes {
		one = AppendDeviceChange(one[:0], &changes[n])
		dst = binary.AppendUvarint(dst, uint64(len(one)))
		dst = append(dst, one...)
	}
	return dst
}

// splitBulk calls each for every change of a bulk, undecoded. ErrTooManyDevices over MaxBulk.
func splitBulk(b []byte, each func(n int, change []byte) error) (count int, err error) {
	r := cutter{b: b}
	if !r.version() {
		return 0, r.wrongVersion("decode device changes")
	}
	total := r.uvarint()
	if !r.bad && total > MaxBulk {
		return 0, ErrTooManyDevices
	}
	for n := 0; n < int(total) && !r.bad; n++ {
		if one := r.text(); !r.bad {
			if err := each(n, one); err != nil {
				return 0, err
			}
		}
	}
	if r.bad || r.at != len(b) {
		return 0, invalidChange("the encoding is damaged")
	}
	return int(total), nil
}

// DecodeBulk reads what AppendBulk wrote, and copies it. ErrTooManyDevices over MaxBulk, else as DecodeDeviceChange.
func DecodeBulk(b []byte) ([]DeviceChange, error) {
	changes := make([]DeviceChange, 0, 8)
	_, err := splitBulk(b, func(_ int, one []byte) error {
		c, err := DecodeDeviceChange(one)
		changes = append(changes, c)
		return err
	})
	if err != nil {
		return nil, err
	}
	return changes, nil
}

// appendStored builds the view's value of a device.
func appendStored(dst []byte, etag, generation origin, statusUpdated int64, identity []byte) []byte {
	dst = append(dst, identityVersion)
	dst = append(dst, etag[:]...)
	dst = append(dst, generation[:]...)
	dst = binary.BigEndian.AppendUint64(dst, uint64(statusUpdated))
	return append(dst, identity...)
}

// stored is the view's value of a device: what appendStored wrote. Only whole ones are ever made into one.
type stored []byte

func (s stored) ok() bool             { return len(s) >= storedHead+3 && s[0] == identityVersion }
func (s stored) etag() origin         { return origin(s[1:13]) }
func (s stored) generation() origin   { return origin(s[13:25]) }
func (s stored) statusUpdated() int64 { return int64(binary.BigEndian.Uint64(s[25:33])) }
func (s stored) identity() []byte     { return s[storedHead:] }
func (s stored) disabled() bool       { return s[storedHead]&flagDisabled != 0 }

// device decodes the value of one device.
func (s stored) device(id string) (Device, error) {
	if !s.ok() {
		return Device{}, &tandem.Error{Op: "read a device", Kind: tandem.Damaged, On: id}
	}
	i, err := splitIdentity(s.identity())
	if err != nil {
		return Device{}, &tandem.Error{Op: "read a device", Kind: tandem.Damaged, On: id, Err: err}
	}
	d := Device{ID: id, Generation: string(s.generation().appendGeneration(nil)), Etag: s.etag().etag(), Status: i.status(),
		StatusReason: string(i.texts[textReason]), Auth: i.credentials(), EdgeCapable: i.flags&flagEdge != 0,
		DeviceScope: string(i.texts[textScope]), ParentScopes: i.parentScopes()}
	if t := s.statusUpdated(); t != 0 {
		d.StatusUpdated = time.UnixMicro(t).UTC()
	}
	return d, nil
}

// cutter takes encoded fields off a slice without copying; once bad it stays bad.
type cutter struct {
	b   []byte
	at  int
	bad bool
}

func (r *cutter) byte() byte {
	if r.bad || r.at >= len(r.b) {
		r.bad = true
		return 0
	}
	r.at++
	return r.b[r.at-1]
}

func (r *cutter) uvarint() uint64 {
	if r.bad {
		return 0
	}
	v, n := binary.Uvarint(r.b[r.at:])
	if n <= 0 || n != uvarintLen(v) { // only the shortest form, so that equal values are equal bytes
		r.bad = true
		return 0
	}
	r.at += n
	return v
}

func (r *cutter) take(n uint64) []byte {
	if r.bad || n > uint64(len(r.b)-r.at) {
		r.bad = true
		return nil
	}
	start := r.at
	r.at += int(n)
	return r.b[start:r.at:r.at]
}

func (r *cutter) text() []byte { return r.take(r.uvarint()) }

func (r *cutter) uint64() uint64 {
	if b := r.take(8); !r.bad {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *cutter) version() bool { return r.byte() == identityVersion && !r.bad }

func (r *cutter) wrongVersion(op string) error {
	if len(r.b) == 0 {
		return &tandem.Error{Op: op, Kind: tandem.Invalid, Err: errors.New("it is empty")}
	}
	return &tandem.Error{Op: op, Kind: tandem.Unsupported, Hint: "it was written by a newer version"}
}
