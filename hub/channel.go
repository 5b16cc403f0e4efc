package hub

import (
	"encoding/binary"
	"encoding/json"
	"errors"

	"tandem"
	"tandem/pairlog"
)

// The door channel carries numbered commands from a door to the holder in another region, and outcomes back. Messages
// may be lost: the holder takes only the next number of each door, and the door only the next outcome; both say what they
// miss. A frame without commands is a question: what became of the numbers from First on, and are those before it there?

// Bounds of one door: how much may wait for an outcome. They also bound what a holder queues for one door.
const (
	windowCommands = 8192
	windowBytes    = 32 << 20
	frameBytes     = 256 << 10
	frameCommands  = 1000
)

// commandFrame is what a door sends: commands first, first+1, … at most frameCommands.
type commandFrame struct {
	Door     DoorID
	Epoch    tandem.Epoch // of the pen the door believes in
	Base     uint64       // smallest number the door still has; all below are resolved
	First    uint64
	Commands []Command
}

const frameVersion = 1

func appendCommandFrame(dst []byte, f *commandFrame) []byte {
	dst = append(dst, frameVersion)
	dst = appendText(dst, string(f.Door))
	dst = binary.AppendUvarint(dst, uint64(f.Epoch))
	dst = binary.AppendUvarint(dst, f.Base)
	dst = binary.AppendUvarint(dst, f.First)
	dst = binary.AppendUvarint(dst, uint64(len(f.Commands)))
	for i := range f.Commands {
		dst = appendCommand(dst, &f.Commands[i])
	}
	return dst
}

func appendCommand(dst []byte, c *Command) []byte {
	dst = append(dst, byte(c.Op))
	dst = appendText(dst, string(c.Device))
	dst = binary.AppendUvarint(dst, uint64(c.Session.Epoch))
	dst = binary.AppendUvarint(dst, c.Session.Counter)
	dst = appendText(dst, c.IfMatch)
	dst = binary.AppendUvarint(dst, uint64(len(c.Body)))
	return append(dst, c.Body...)
}

// decodeCommandFrame reads what appendCommandFrame wrote; the commands' bodies point into b.
func decodeCommandFrame(b []byte) (commandFrame, error) {
	r := frameReader{bytes: b}
	var f commandFrame
	r.version()
	f.Door = DoorID(r.text(64))
	f.Epoch = tandem.Epoch(r.uvarint())
	f.Base, f.First = r.uvarint(), r.uvarint()
	count := r.uvarint()
	if count > frameCommands || f.Base == 0 || f.First < f.Base || f.First+count < f.First {
		r.bad = true
	}
	if r.bad {
		return f, errBadFrame
	}
	f.Commands = make([]Command, count)
	for i := range f.Commands {
		r.command(&f.Commands[i])
	}
	if r.bad || len(r.bytes) != 0 {
		return f, errBadFrame
	}
	return f, nil
}

// answerFrame is what a holder sends to a door.
type answerFrame struct {
	Epoch tandem.Epoch
	// First to Upto: these numbers are decided; those not named in Details were applied. None when Upto < First. A door
	// that knows nothing of the numbers before First has missed an answer and asks again.
	First, Upto uint64
	Record      uint64 // the log record that decided Upto
	// Acked: the other region's copy has all records up to this one, so a door there may forget their commands.
	Acked uint64
	// Next is the number the holder takes next; a door that is ahead of it goes back.
	Next uint64
	// Full: the holder refuses writes for want of disk space.
	Full bool
	// Gap: commands are missing before those the holder just saw; the door goes back to Next.
	Gap bool
	// Again: this is what the log remembers of numbers that an earlier holder decided: applied, or the kind of refusal.
	Again   bool
	Details []answerDetail
}

const (
	flagFull = 1 << iota
	flagGap
	flagAgain
)

// answerDetail is an outcome that is more than "applied": a wireOutcome as JSON.
type answerDetail struct {
	Number uint64
	Body   []byte
}

func newDetail(number uint64, o *Outcome) answerDetail {
	body, err := json.Marshal(toWire(o))
	if err != nil {
		panic(err) // plain values
	}
	return answerDetail{number, body}
}

// outcome is what the detail says; one that cannot be read is an outcome that is not known.
func (d *answerDetail) outcome() Outcome {
	var w wireOutcome
	if err := json.Unmarshal(d.Body, &w); err != nil {
		return Outcome{Err: &tandem.Error{Op: "read an outcome", Kind: tandem.Timeout, Err: err}}
	}
	return w.outcome()
}

// wireOutcome is an Outcome as it travels; operations on identities are rare enough for JSON.
type wireOutcome struct {
	Position pairlog.Position  `json:"p"`
	Error    *wireError        `json:"e,omitempty"`
	Device   *Device           `json:"d,omitempty"`
	Bulk     []*wireError      `json:"b,omitempty"`
	Revokes  []tandem.DeviceID `json:"r,omitempty"`
}

type wireError struct {
	Kind tandem.Kind `json:"k"`
	Op   string      `json:"o,omitempty"`
	On   string      `json:"n,omitempty"`
	Text string      `json:"t,omitempty"`
	Hint string      `json:"h,omitempty"`
	Name string      `json:"c,omitempty"` // of a condition in namedConditions
}

// namedConditions keep their identity across the link.
var namedConditions = map[string]*tandem.Error{
	"device-not-found": ErrDeviceNotFound, "device-exists": ErrDeviceExists, "device-disabled": ErrDeviceDisabled,
	"etag": ErrEtag, "session-taken": ErrSessionTaken, "quota": ErrQuota, "too-many-devices": ErrTooManyDevices,
	"revocations-full": ErrRevocationsFull, "full": pairlog.ErrFull,
}

func newWireError(err error) *wireError {
	if err == nil {
		return nil
	}
	w := &wireError{Kind: tandem.KindOf(err), Text: err.Error(), Hint: tandem.HintOf(err)}
	var e *tandem.Error
	if errors.As(err, &e) {
		w.Op, w.On = e.Op, e.On
		w.Text = ""
		if e.Err != nil {
			w.Text = e.Err.Error()
		}
	}
	for name, condition := range namedConditions {
		if errors.Is(err, condition) {
			w.Name = name
		}
	}
	return w
}

func (w *wireError) error() error {
	if w == nil {
		return nil
	}
	e := &tandem.Error{Op: w.Op, Kind: w.Kind, On: w.On, Hint: w.Hint}
	if condition, ok := namedConditions[w.Name]; ok {
		if w.On == "" {
			return condition
		}
		e.Err = condition
	} else if w.Text != "" {
		e.Err = errors.New(w.Text)
	}
	return e
}

func toWire(o *Outcome) wireOutcome {
	w := wireOutcome{Position: o.Position, Error: newWireError(o.Err), Device: o.Device, Revokes: o.revokes}
	for _, err := range o.Bulk {
		w.Bulk = append(w.Bulk, newWireError(err))
	}
	return w
}

func (w *wireOutcome) outcome() Outcome {
	o := Outcome{Err: w.Error.error(), Position: w.Position, Device: w.Device, revokes: w.Revokes}
	for _, e := range w.Bulk {
		o.Bulk = append(o.Bulk, e.error())
	}
	return o
}

// plain reports whether an outcome says nothing but "applied".
func (o *Outcome) plain() bool {
	return o.Err == nil && o.Device == nil && o.Bulk == nil && o.revokes == nil
}

func appendAnswerFrame(dst []byte, f *answerFrame) []byte {
	dst = append(dst, frameVersion)
	dst = binary.AppendUvarint(dst, uint64(f.Epoch))
	for _, v := range [...]uint64{f.First, f.Upto, f.Record, f.Acked, f.Next} {
		dst = binary.AppendUvarint(dst, v)
	}
	var flags byte
	if f.Full {
		flags |= flagFull
	}
	if f.Gap {
		flags |= flagGap
	}
	if f.Again {
		flags |= flagAgain
	}
	dst = append(dst, flags)
	dst = binary.AppendUvarint(dst, uint64(len(f.Details)))
	for i := range f.Details {
		d := &f.Details[i]
		dst = binary.AppendUvarint(dst, d.Number)
		dst = binary.AppendUvarint(dst, uint64(len(d.Body)))
		dst = append(dst, d.Body...)
	}
	return dst
}

func decodeAnswerFrame(b []byte) (answerFrame, error) {
	r := frameReader{bytes: b}
	var f answerFrame
	r.version()
	f.Epoch = tandem.Epoch(r.uvarint())
	f.First, f.Upto, f.Record, f.Acked, f.Next = r.uvarint(), r.uvarint(), r.uvarint(), r.uvarint(), r.uvarint()
	flags := r.byte()
	f.Full, f.Gap, f.Again = flags&flagFull != 0, flags&flagGap != 0, flags&flagAgain != 0
	count := r.uvarint()
	if count > windowCommands || r.bad {
		return f, errBadFrame
	}
	for range count {
		var d answerDetail
		d.Number = r.uvarint()
		if d.Body = r.take(r.uvarint()); r.bad {
			return f, errBadFrame
		}
		f.Details = append(f.Details, d)
	}
	if r.bad || len(r.bytes) != 0 {
		return f, errBadFrame
	}
	return f, nil
}

var errBadFrame = &tandem.Error{Op: "read a frame of the door channel", Kind: tandem.Invalid}

// frameReader takes a frame apart; once bad it stays bad.
type frameReader struct {
	bytes []byte
	bad   bool
}

func (r *frameReader) version() {
	if r.byte() != frameVersion {
		r.bad = true
	}
}

func (r *frameReader) byte() byte {
	b := r.take(1)
	if r.bad {
		return 0
	}
	return b[0]
}

func (r *frameReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.bytes)
	if n <= 0 || r.bad {
		r.bad = true
		return 0
	}
	r.bytes = r.bytes[n:]
	return v
}

func (r *frameReader) take(n uint64) []byte {
	if r.bad || n > uint64(len(r.bytes)) {
		r.bad = true
		return nil
	}
	b := r.bytes[:n:n]
	r.bytes = r.bytes[n:]
	return b
}

func (r *frameReader) text(limit uint64) string {
	n := r.uvarint()
	if n > limit {
		r.bad = true
	}
	return string(r.take(n))
}

func (r *frameReader) command(c *Command) {
	c.Op = Op(r.byte())
	c.Device = tandem.DeviceID(r.text(128))
	c.Session = SessionNumber{Epoch: tandem.Epoch(r.uvarint()), Counter: r.uvarint()}
	c.IfMatch = r.text(256)
	c.Body = r.take(r.uvarint())
}
