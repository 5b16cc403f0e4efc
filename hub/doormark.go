package hub

import (
	"cmp"
	"encoding/binary"
	"slices"

	"tandem"
)

// DoorID is one incarnation of a node's door.
type DoorID string

// A DoorMark is what the log says about a door's numbered commands, so that one that is sent again gets its first answer.
type DoorMark struct {
	Applied  uint64                 // highest number decided
	Resolved uint64                 // the door has the outcomes up to here
	Refused  map[uint64]tandem.Kind // numbers in (Resolved, Applied] that were refused; the others were carried out
}

// A Refusal is the outcome of one numbered command that changed nothing.
type Refusal struct {
	Number uint64
	Kind   tandem.Kind
}

// A DoorEntry is the data of a KindDoor entry: the record decides the door's numbers First to First+Count-1, and the
// door has seen the outcomes up to Resolved.
type DoorEntry struct {
	Door     DoorID
	First    uint64
	Count    uint32
	Resolved uint64
	Refused  []Refusal // ascending numbers
}

// Limits of door entries.
const (
	maxDoorID  = 128
	maxRefused = 2 * windowCommands // a door has no more than its window in flight
)

// doorVersion is the first byte of a door entry and of a stored mark.
//
//	entry = version, text door, uvarints: first, count, resolved, refusals, for each its distance from the one before
//	        (from 0) and kind
//	mark  = version, uvarints: applied, resolved, refusals, the same
const doorVersion = 1

// AppendDoorEntry appends the data of a KindDoor entry to dst. refused must be in ascending order of numbers.
// The data of a KindDoorGone entry is the door's id and nothing else.
func AppendDoorEntry(dst []byte, id DoorID, first uint64, count uint32, resolved uint64, refused []Refusal) []byte {
	dst = appendText(append(dst, doorVersion), string(id))
	dst = binary.AppendUvarint(dst, first)
	dst = binary.AppendUvarint(dst, uint64(count))
	dst = binary.AppendUvarint(dst, resolved)
	return appendRefusals(dst, refused)
}

func appendRefusals(dst []byte, refused []Refusal) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(refused)))
	last := uint64(0)
	for _, r := range refused {
		dst = binary.AppendUvarint(dst, r.Number-last)
		dst = append(dst, byte(r.Kind))
		last = r.Number
	}
	return dst
}

// DecodeDoorEntry reads what AppendDoorEntry wrote, and copies it. An error of kind Damaged, or Unsupported for a newer
// version.
func DecodeDoorEntry(b []byte) (DoorEntry, error) {
	r := cutter{b: b}
	if len(b) > 0 && b[0] != doorVersion {
		return DoorEntry{}, r.wrongVersion("decode a door's numbers")
	}
	r.byte()
	e := DoorEntry{Door: DoorID(r.text()), First: r.uvarint()}
	count := r.uvarint()
	e.Count, e.Resolved = uint32(count), r.uvarint()
	e.Refused = r.refusals()
	if r.bad || r.at != len(b) || count>>32 != 0 || e.Door == "" || len(e.Door) > maxDoorID || e.First+count < e.First {
		return DoorEntry{}, &tandem.Error{Op: "decode a door's numbers", Kind: tandem.Damaged}
	}
	return e, nil
}

func (r *cutter) refusals() []Refusal {
	count := r.uvarint()
	if r.bad || count == 0 || count > maxRefused {
		r.bad = r.bad || count > maxRefused
		return nil
	}
	refused := make([]Refusal, 0, min(count, 256))
	last := uint64(0)
	for range count {
		step := r.uvarint()
		kind := r.byte()
		if r.bad || step == 0 && len(refused) > 0 || last+step < last {
			r.bad = true
			return nil
		}
		last += step
		refused = append(refused, Refusal{last, tandem.Kind(kind)})
	}
	return refused
}

// doorMark is a DoorMark as the view keeps it.
type doorMark struct {
	applied, resolved uint64
	refused           []Refusal // ascending; replaced as a whole, never changed in place
}

// with folds an entry into the mark. Marks never go back.
func (m doorMark) with(e DoorEntry) doorMark {
	if e.Count > 0 {
		m.applied = max(m.applied, e.First+uint64(e.Count)-1)
	}
	m.resolved = max(m.resolved, e.Resolved)
	done := 0
	for done < len(m.refused) && m.refused[done].Number <= m.resolved {
		done++
	}
	m.refused = m.refused[done:]
	for _, r := range e.Refused {
		if r.Number <= m.resolved {
			continue
		}
		at, found := slices.BinarySearchFunc(m.refused, r.Number, func(r Refusal, n uint64) int { return cmp.Compare(r.Number, n) })
		if !found {
			m.refused = slices.Insert(slices.Clip(m.refused), at, r)
		}
	}
	return m
}

func (m doorMark) append(dst []byte) []byte {
	dst = binary.AppendUvarint(append(dst, doorVersion), m.applied)
	dst = binary.AppendUvarint(dst, m.resolved)
	return appendRefusals(dst, m.refused)
}

func decodeDoorMark(b []byte) (m doorMark, ok bool) {
	r := cutter{b: b}
	if r.byte() != doorVersion {
		return m, false
	}
	m.applied, m.resolved, m.refused = r.uvarint(), r.uvarint(), r.refusals()
	return m, !r.bad && r.at == len(b)
}

func (m doorMark) public() DoorMark {
	mark := DoorMark{Applied: m.applied, Resolved: m.resolved}
	if len(m.refused) > 0 {
		mark.Refused = make(map[uint64]tandem.Kind, len(m.refused))
		for _, r := range m.refused {
			mark.Refused[r.Number] = r.Kind
		}
	}
	return mark
}

// Door tells what the applied log says about a door; the zero mark for one that it does not know.
func (v *View) Door(id DoorID) DoorMark {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.s.doors[id].public()
}
