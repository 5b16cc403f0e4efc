package pairlog

import (
	"bytes"
	"context"
	"errors"
	"sync"

	"tandem"
)

// Memory is a Store in memory for tests and simulations: it survives the Logs that use it, and can be told to fail.
// It starts no goroutine and reads no clock.
type Memory struct {
	mu       sync.Mutex
	segments map[SegmentID]*memorySegment
	space    Space
	full     bool
	lazy     bool
	fail     int
	failWith error
	hang     int
	hangKeep bool
}

type memorySegment struct {
	first   uint64   // sequence of records[0]
	records [][]byte // nil: a hole
	synced  int      // how many of records are on disk
	sealed  bool
}

// NewMemory returns an empty store with 1 GiB of room, all of it free.
func NewMemory() *Memory {
	return &Memory{segments: make(map[SegmentID]*memorySegment), space: Space{Total: 1 << 30, Free: 1 << 30}}
}

var _ Store = (*Memory)(nil)

// FailAppends lets the next n appends return err; nothing is stored.
func (m *Memory) FailAppends(n int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail, m.failWith = n, err
}

// HangAppends leaves the next n appends unanswered until their context ends; keep says whether they are stored.
func (m *Memory) HangAppends(n int, keep bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hang, m.hangKeep = n, keep
}

// SetSpace sets what Space tells.
func (m *Memory) SetSpace(s Space) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.space = s
}

// SetFull makes the disk full or not: while it is, appends are neither stored nor answered, as the engine does.
func (m *Memory) SetFull(full bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.full = full
}

// SetLazy stops (true) or restores the sync of every append: what is appended while lazy is gone after LoseUnsynced.
func (m *Memory) SetLazy(lazy bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lazy = lazy
}

// LoseUnsynced is a power cut: every segment loses what was appended while lazy, at its end.
func (m *Memory) LoseUnsynced() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.segments {
		s.records = s.records[:s.synced]
	}
}

// Corrupt flips a bit of a stored record, or, with hole, takes the record away. It reports whether there was one.
func (m *Memory) Corrupt(id SegmentID, sequence uint64, hole bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.segments[id]
	if s == nil || sequence < s.first || sequence >= s.first+uint64(len(s.records)) {
		return false
	}
	at := &s.records[sequence-s.first]
	if hole {
		*at = nil
		return true
	}
	*at = bytes.Clone(*at)
	(*at)[len(*at)/2] ^= 0x10
	return true
}

// Clone is a copy of everything stored, as an image of the disk would be.
func (m *Memory) Clone() *Memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := NewMemory()
	for id, s := range m.segments {
		c.segments[id] = &memorySegment{first: s.first, records: append([][]byte(nil), s.records...), synced: s.synced, sealed: s.sealed}
	}
	return c
}

// Create is Store.Create.
func (m *Memory) Create(ctx context.Context, id SegmentID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.segments[id] == nil {
		m.segments[id] = &memorySegment{first: 1}
	}
	return nil
}

// Append is Store.Append.
func (m *Memory) Append(ctx context.Context, id SegmentID, after uint64, record []byte) error {
	err, answered := m.append(id, after, record)
	if answered {
		return err
	}
	<-ctx.Done()
	return &tandem.Error{Op: "append", Kind: tandem.Timeout, Err: context.Cause(ctx)}
}

func (m *Memory) append(id SegmentID, after uint64, record []byte) (err error, answered bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.full {
		return nil, false
	}
	if m.fail > 0 {
		m.fail--
		return m.failWith, true
	}
	answered = true
	if m.hang > 0 {
		m.hang--
		if answered = false; !m.hangKeep {
			return nil, false
		}
	}
	s := m.segments[id]
	switch {
	case s == nil:
		return ErrNoSegment, answered
	case s.sealed:
		return ErrSealed, answered
	case s.first+uint64(len(s.records)) != after+1:
		return ErrSequence, answered
	}
	s.records = append(s.records, bytes.Clone(record))
	if !m.lazy {
		s.synced = len(s.records)
	}
	m.space.Free -= int64(len(record))
	return nil, answered
}

// Read is Store.Read.
func (m *Memory) Read(ctx context.Context, id SegmentID, from uint64, maxBytes int, fn func(uint64, []byte) error) error {
	m.mu.Lock()
	s := m.segments[id]
	if s == nil {
		m.mu.Unlock()
		return ErrNoSegment
	}
	from = max(from, 1)
	if from < s.first {
		m.mu.Unlock()
		return damaged("", errors.New("the first records are trimmed"))
	}
	var records [][]byte
	given := 0
	for i := from - s.first; i < uint64(len(s.records)); i++ {
		r := s.records[i]
		if given > 0 && given+len(r) > maxBytes {
			break
		}
		given += len(r)
		records = append(records, bytes.Clone(r))
	}
	m.mu.Unlock()
	for i, r := range records {
		if r == nil {
			return damaged("", errors.New("a sequence is missing"))
		}
		if err := fn(from+uint64(i), r); err != nil {
			return err
		}
	}
	return nil
}

// Seal is Store.Seal.
func (m *Memory) Seal(ctx context.Context, id SegmentID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.segments[id]
	if s == nil {
		return ErrNoSegment
	}
	s.sealed = true
	return nil
}

// State is Store.State.
func (m *Memory) State(ctx context.Context, id SegmentID) (SegmentState, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.segments[id]
	if s == nil {
		return SegmentState{}, ErrNoSegment
	}
	st := SegmentState{First: s.first, Last: s.first + uint64(len(s.records)) - 1, Sealed: s.sealed}
	for _, r := range s.records {
		st.Bytes += int64(len(r))
	}
	return st, nil
}

// Segments is Store.Segments.
func (m *Memory) Segments(ctx context.Context, hub tandem.HubID) ([]SegmentID, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var ids []SegmentID
	for id := range m.segments {
		if hub == "" || id.Hub == hub {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// Trim is Store.Trim.
func (m *Memory) Trim(ctx context.Context, id SegmentID, first uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.segments[id]
	switch {
	case s == nil:
		return ErrNoSegment
	case s.sealed:
		return &tandem.Error{Op: "trim a segment", Kind: tandem.Unsupported}
	case first <= s.first:
		return nil
	}
	n := min(first-s.first, uint64(len(s.records)))
	s.records = append([][]byte(nil), s.records[n:]...)
	s.synced = max(0, s.synced-int(n))
	s.first += n
	return nil
}

// Delete is Store.Delete.
func (m *Memory) Delete(ctx context.Context, id SegmentID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.segments, id)
	return nil
}

// Space is Store.Space.
func (m *Memory) Space() Space {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.space
}
