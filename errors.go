package tandem

import (
	"errors"
	"strings"
)

// A Kind says what sort of failure an Error is. Every door maps each kind to its own wire answer, once.
type Kind uint8

// The kinds of failure. Retriable says which of them a client may try again.
const (
	Internal     Kind = iota // our own code or its surroundings failed in a way nobody foresaw
	Invalid                  // the request is malformed or out of range; trying again is useless
	Unauthorized             // no or wrong credentials
	Forbidden                // known, but not allowed
	NotFound                 // there is no such thing
	Exists                   // there is one already
	Precondition             // an etag or state named by the caller no longer holds
	Conflict                 // another operation is in the way
	TooLarge                 // over a size limit
	Throttled                // over a rate or quota
	Full                     // the disk or another store has no room
	Fenced                   // a newer epoch exists; this node may not answer for it
	Unavailable              // not possible now: moving, isolated, starting, peer dark
	Timeout                  // no answer in time; whether it happened is unknown
	Damaged                  // stored data failed its check
	Unsupported              // not built, or not offered
)

var kindNames = [...]string{
	"internal error", "invalid", "unauthorized", "forbidden", "not found", "exists already", "precondition failed", "conflict",
	"too large", "throttled", "full", "fenced", "unavailable", "timed out", "damaged", "not supported",
}

// String is the kind in words.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "unknown kind"
}

// Retriable reports whether the same request may succeed later without a change.
func (k Kind) Retriable() bool {
	switch k {
	case Throttled, Full, Fenced, Unavailable, Timeout:
		return true
	}
	return false
}

// Error is the one error type of Tandem: what was attempted, which kind of failure, on what, and the cause.
//
// Exact conditions that callers act on are package variables of type *Error (pairlog.ErrFenced); wrap them with %w or
// as Err and test with errors.Is. KindOf reads the kind of any chain.
type Error struct {
	Op   string // what was attempted, in a few words: "append telemetry"
	Kind Kind
	On   string // the device, hub, region or vault; may be empty
	Err  error  // the cause; may be nil
	Hint string // what the user can do about it; may be empty
}

// Error joins the parts into one line: "append telemetry: hub fab-17: fenced: …".
func (e *Error) Error() string {
	parts := make([]string, 0, 4)
	if e.Op != "" {
		parts = append(parts, e.Op)
	}
	if e.On != "" {
		parts = append(parts, e.On)
	}
	if e.Err != nil {
		parts = append(parts, e.Err.Error())
	} else {
		parts = append(parts, e.Kind.String())
	}
	text := strings.Join(parts, ": ")
	if e.Hint != "" {
		text += " (" + e.Hint + ")"
	}
	return text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// KindOf returns the kind of the first *Error in err's chain, and Internal when there is none.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Internal
}

// HintOf returns the first non-empty hint in err's chain.
func HintOf(err error) string {
	for err != nil {
		var e *Error
		if !errors.As(err, &e) {
			return ""
		}
		if e.Hint != "" {
			return e.Hint
		}
		err = e.Err
	}
	return ""
}
