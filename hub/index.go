package hub

import (
	"encoding/binary"
	"time"

	"tandem"

	"github.com/cockroachdb/pebble/v2"
)

// indexEvery is how many bytes of log lie between two points of the event index, at least.
const indexEvery = 256 << 10

// ErrPartitionNotFound: the hub has no event partition of that number.
var ErrPartitionNotFound = &tandem.Error{Op: "find the event partition", Kind: tandem.NotFound}

// A point of the event index belongs to a record: its time, and for each partition the next event number before it.
// So an event with that number or a larger one lies in that record or a later one.
//
//	value = time in µs (8), for each partition its next number (8)
type point []byte

func (p point) time() int64      { return int64(binary.BigEndian.Uint64(p)) }
func (p point) next(n int) int64 { return int64(binary.BigEndian.Uint64(p[8+8*n:])) }

func (m *meta) appendPoint(dst []byte, at int64) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(at))
	for i := range m.partitions {
		dst = binary.BigEndian.AppendUint64(dst, uint64(m.partitions[i].next))
	}
	return dst
}

func eventKey(record uint64) []byte { return binary.BigEndian.AppendUint64([]byte{keyEvent}, record) }

// FindEvent returns a record to read from so as to meet the event with that number, or the first larger one: neither lies
// in an older record. At most 256 KiB of log lie between the two. It is Applied().Number+1 for a number not yet given.
// ErrPartitionNotFound.
func (v *View) FindEvent(partition int, number int64) (record uint64, err error) {
	var next int64
	applied, trimmed := v.extent(func(s *state) {
		if partition >= 0 && partition < len(s.meta.partitions) {
			next = s.meta.partitions[partition].next
		} else {
			err = &tandem.Error{Op: "find the event", Kind: tandem.NotFound, Err: ErrPartitionNotFound}
		}
	})
	if err != nil {
		return 0, err
	}
	if number >= next {
		return applied + 1, nil
	}
	record, err = v.lastPoint(func(p point) bool { return p.next(partition) <= number })
	return min(max(record, trimmed+1), applied+1), err
}

// FindTime returns a record to read from so as to meet every event that is not older than t; Applied().Number+1 when t is
// later than everything folded. The record before it is a good place to trim up to: the index is exact there.
func (v *View) FindTime(t time.Time) (record uint64, err error) {
	var last int64
	applied, trimmed := v.extent(func(s *state) { last = s.meta.time })
	at := t.UnixMicro()
	if at > last {
		return applied + 1, nil
	}
	record, err = v.lastPoint(func(p point) bool { return p.time() < at })
	return min(max(record, trimmed+1), applied+1), err
}

func (v *View) extent(look func(s *state)) (applied, trimmed uint64) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	look(v.s)
	return v.s.meta.fork.Number, v.s.meta.trimmed
}

// lastPoint returns the record of the newest point for which good holds, else that of the oldest, else 0. good holds for
// the points up to some record and not beyond.
func (v *View) lastPoint(good func(point) bool) (uint64, error) {
	v.open.RLock()
	defer v.open.RUnlock()
	if err := v.usable(); err != nil {
		return 0, err
	}
	return lastPoint(v.db, good)
}

func lastPoint(db pebble.Reader, good func(point) bool) (uint64, error) {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyEvent}, UpperBound: []byte{keyEvent + 1}})
	if err != nil {
		return 0, readFailed(err)
	}
	defer it.Close()
	record := func() uint64 { return binary.BigEndian.Uint64(it.Key()[1:]) }
	if !it.First() {
		return 0, it.Error()
	}
	low := record()
	if !good(it.Value()) {
		return low, nil
	}
	it.Last()
	high := record()
	if good(it.Value()) {
		return high, nil
	}
	for { // good at low, not at high; both are points
		middle := low + (high-low)/2
		if it.SeekLT(eventKey(middle + 1)); record() == low {
			if it.SeekGE(eventKey(middle + 1)); record() == high {
				return low, it.Error()
			}
		}
		if !it.Valid() {
			return low, it.Error()
		}
		if good(it.Value()) {
			low = record()
		} else {
			high = record()
		}
	}
}
