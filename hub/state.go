package hub

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"tandem"
	"tandem/pairlog"

	"github.com/cockroachdb/pebble/v2"
)

// MaxPartitions bounds a hub's event partitions (specs/arm-iothub-2021-07-02.json, EventHubProperties.partitionCount).
const MaxPartitions = 128

// The view's keys. None carries a hub or a region.
//
//	about            version, partitions, key of the root     written once
//	meta             meta, with every record
//	bucket n         a sum of the root, its devices' marks    (16 bits)
//	device id        stored
//	door id          mark
//	event record     an index point                           (64 bits)
const (
	keyAbout  = 'a'
	keyMeta   = 'm'
	keyBucket = 'b'
	keyDevice = 'd'
	keyDoor   = 'o'
	keyEvent  = 'e'

	stateVersion = 1
)

// JumpEvents is what a forced epoch adds to the event numbers of each partition, for each epoch since its fork's, and
// JumpVersions what it adds to the base of twin versions, so that numbers which a stranded tail used up are never given
// to something else.
const (
	JumpEvents   = 1 << 32
	JumpVersions = 1 << 20
)

// partition is the state of an event partition.
type partition struct {
	next     int64 // number of the next event
	first    int64 // smallest number kept; next when none is
	lastTime int64 // µs of the last event; 0: none yet
}

// meta is what changes with every record; it is written as one value.
type meta struct {
	fork pairlog.Fork // last record folded
	time int64        // its time, µs

	total, disabled int64
	versionBase     uint64
	day             int64 // days since 1970, UTC, by record time
	messages        int64 // telemetry on that day
	trimmed         uint64
	partitions      []partition

	pointByte uint64 // Header.FirstByte of the record with the newest index point
	points    bool   // there is an index point
}

// appendCommon appends what equal states have in common.
func (m *meta) appendCommon(dst []byte) []byte {
	be := binary.BigEndian
	for _, n := range [...]uint64{uint64(m.total), uint64(m.disabled), m.versionBase, uint64(m.day), uint64(m.messages),
		m.trimmed, uint64(len(m.partitions))} {
		dst = be.AppendUint64(dst, n)
	}
	for _, p := range m.partitions {
		dst = be.AppendUint64(dst, uint64(p.next))
		dst = be.AppendUint64(dst, uint64(p.first))
		dst = be.AppendUint64(dst, uint64(p.lastTime))
	}
	return dst
}

func (m *meta) append(dst []byte) []byte {
	be := binary.BigEndian
	dst = append(dst, stateVersion)
	dst = be.AppendUint64(dst, uint64(m.fork.Epoch))
	dst = be.AppendUint64(dst, m.fork.Number)
	dst = append(dst, m.fork.Hash[:]...)
	dst = be.AppendUint64(dst, uint64(m.time))
	dst = be.AppendUint64(dst, m.pointByte)
	points := byte(0)
	if m.points {
		points = 1
	}
	return m.appendCommon(append(dst, points))
}

func decodeMeta(b []byte) (m meta, ok bool) {
	r := cutter{b: b}
	if r.byte() != stateVersion {
		return m, false
	}
	m.fork.Epoch, m.fork.Number = tandem.Epoch(r.uint64()), r.uint64()
	copy(m.fork.Hash[:], r.take(32))
	m.time, m.pointByte = int64(r.uint64()), r.uint64()
	m.points = r.byte() != 0
	m.total, m.disabled, m.versionBase = int64(r.uint64()), int64(r.uint64()), r.uint64()
	m.day, m.messages, m.trimmed = int64(r.uint64()), int64(r.uint64()), r.uint64()
	count := r.uint64()
	if r.bad || count > MaxPartitions {
		return m, false
	}
	m.partitions = make([]partition, count)
	for i := range m.partitions {
		m.partitions[i] = partition{int64(r.uint64()), int64(r.uint64()), int64(r.uint64())}
	}
	return m, !r.bad && r.at == len(b)
}

// copyTo makes w equal to m and keeps w's memory.
func (m *meta) copyTo(w *meta) {
	partitions := append(w.partitions[:0], m.partitions...)
	*w = *m
	w.partitions = partitions
}

// telemetryDay counts n messages of a record on its day.
func (m *meta) telemetryDay(t time.Time, n int64) {
	if day := dayOf(t); day > m.day {
		m.day, m.messages = day, 0
	}
	m.messages += n
}

func dayOf(t time.Time) int64 { return t.Unix() / (24 * 60 * 60) }

// jump makes room for the numbers that stranded tails may have used. It goes over as many steps as there are epochs
// between the fork and the new one: those may each have jumped from the same place, and be stranded too.
func (m *meta) jump(epochs int64) {
	m.versionBase += JumpVersions * uint64(epochs)
	for i := range m.partitions {
		p := &m.partitions[i]
		if p.first == p.next {
			p.first += JumpEvents * epochs
		}
		p.next += JumpEvents * epochs
	}
}

// state is what the view keeps in memory besides caches: all but devices and the event index.
type state struct {
	rootKey string
	meta    meta
	buckets *buckets
	doors   map[DoorID]doorMark
}

// loadState reads the state of a database, or makes that of an empty one.
func loadState(db pebble.Reader, rootKey string, partitions int) (*state, error) {
	s := &state{rootKey: rootKey, buckets: new(buckets), doors: map[DoorID]doorMark{}}
	s.meta.partitions = make([]partition, partitions)
	about, err := getValue(db, []byte{keyAbout})
	if err != nil {
		return nil, err
	}
	if about == nil {
		return s, nil
	}
	if len(about) < 3 || about[0] != stateVersion {
		return nil, &tandem.Error{Op: "open the view", Kind: tandem.Unsupported, Hint: "it was written by a newer version"}
	}
	s.rootKey = string(about[3:])
	has := int(binary.BigEndian.Uint16(about[1:]))
	if partitions != 0 && has != partitions {
		return nil, &tandem.Error{Op: "open the view", Kind: tandem.Precondition,
			Err: fmt.Errorf("it has %d event partitions, not %d", has, partitions)}
	}
	s.meta.partitions = make([]partition, has)
	if value, err := getValue(db, []byte{keyMeta}); err != nil {
		return nil, err
	} else if value != nil {
		var ok bool
		if s.meta, ok = decodeMeta(value); !ok || len(s.meta.partitions) != has {
			return nil, damagedView("the position does not decode")
		}
	}
	if err := s.loadBuckets(db); err != nil {
		return nil, err
	}
	return s, s.loadDoors(db)
}

func (s *state) loadBuckets(db pebble.Reader) error {
	return scan(db, []byte{keyBucket}, []byte{keyBucket + 1}, func(key, value []byte) error {
		if len(key) != 3 || !s.buckets.decode(binary.BigEndian.Uint16(key[1:]), value) {
			return damagedView("a bucket does not decode")
		}
		return nil
	})
}

func (s *state) loadDoors(db pebble.Reader) error {
	return scan(db, []byte{keyDoor}, []byte{keyDoor + 1}, func(key, value []byte) error {
		mark, ok := decodeDoorMark(value)
		if !ok {
			return damagedView("a door mark does not decode")
		}
		s.doors[DoorID(key[1:])] = mark
		return nil
	})
}

func (s *state) about() []byte {
	b := binary.BigEndian.AppendUint16([]byte{stateVersion}, uint16(len(s.meta.partitions)))
	return append(b, s.rootKey...)
}

// getValue returns a copy of a value, nil when there is none.
func getValue(db pebble.Reader, key []byte) ([]byte, error) {
	value, closer, err := db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, readFailed(err)
	}
	value = append(make([]byte, 0, len(value)), value...)
	return value, closer.Close()
}

// scan calls fn for the keys in [from, to). What fn is given is good until it returns.
func scan(db pebble.Reader, from, to []byte, fn func(key, value []byte) error) error {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return readFailed(err)
	}
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		err = fn(it.Key(), it.Value())
	}
	if failed := it.Close(); failed != nil && err == nil {
		err = readFailed(failed)
	}
	return err
}

func damagedView(what string) error {
	return &tandem.Error{Op: "read the view", Kind: tandem.Damaged, Err: errors.New(what),
		Hint: "roll back to a snapshot, or reseed"}
}

func readFailed(err error) error {
	return &tandem.Error{Op: "read the view", Kind: tandem.Damaged, Err: err}
}
