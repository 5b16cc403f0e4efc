package pairlog

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"tandem"
)

// A mark is the end of a record: what the next one goes on from.
type mark struct {
	Fork
	time    time.Time
	entries uint64 // in the chain up to here
	bytes   uint64
	closed  bool // the record ends with CLOSE
	loose   bool // entries and bytes are not known (after a reseed)
}

func markOf(r *Record) mark {
	h := &r.Header
	return mark{
		Fork: Fork{Epoch: h.Epoch, Number: h.Number, Hash: h.Hash}, time: h.Time,
		entries: h.FirstEntry + uint64(h.Count), bytes: h.FirstByte + uint64(len(r.Bytes)),
		closed: r.last().Kind == KindClose,
	}
}

// before is the mark that the record goes on from, as far as its header tells.
func before(h *Header) mark {
	return mark{Fork: Fork{Number: h.Number - 1, Hash: h.Prev}, entries: h.FirstEntry, bytes: h.FirstByte}
}

// A part is one segment of the store: the holder's own, or a part of a copy of it.
type part struct {
	id     SegmentID
	base   uint64 // number = base + sequence; known once there is a record
	first  uint64 // numbers kept; 0 when empty
	last   uint64
	start  mark // before first
	end    mark // of last
	pen    *Pen // when the first record kept is a PEN
	sealed bool
	dead   bool // an append was left unanswered: take a new part
}

func (p *part) empty() bool { return p.first == 0 }

// grew notes a record that was stored at the part's end.
func (p *part) grew(r *Record) {
	if p.empty() {
		p.first, p.base, p.start = r.Header.Number, r.Header.Number-1, before(&r.Header)
		p.pen = penOf(r)
	}
	p.last, p.end = r.Header.Number, markOf(r)
}

// become takes over what the store was found to have. id and, once there is a record, base never change: readers use
// them without the lock.
func (p *part) become(fresh *part) {
	if p.empty() {
		p.base = fresh.base
	}
	p.first, p.last, p.start, p.end, p.pen, p.sealed, p.dead = fresh.first, fresh.last, fresh.start, fresh.end, fresh.pen, fresh.sealed, false
}

func penOf(r *Record) *Pen {
	if e := r.first(); e.Kind == KindPen {
		var pen Pen
		if json.Unmarshal(e.Data, &pen) == nil && pen.Epoch == r.Header.Epoch {
			return &pen
		}
	}
	return nil
}

// A span is a range of numbers that a part holds for the chain.
type span struct {
	part     *part
	from, to uint64
}

// limitOf is the last number that may belong to branch i of the chain.
func limitOf(chain []Branch, i int) uint64 {
	if i+1 < len(chain) {
		return chain[i+1].Fork.Number
	}
	return 1<<64 - 1
}

// branchAt is the branch that number belongs to, or -1.
func branchAt(chain []Branch, number uint64) int {
	for i := len(chain) - 1; i >= 0; i-- {
		if chain[i].Fork.Number < number {
			return i
		}
	}
	return -1
}

// spansOf lays the parts along the chain and returns the newest run of numbers without a hole.
func spansOf(chain []Branch, parts []*part) []span {
	var run []span
	for i, b := range chain {
		limit := limitOf(chain, i)
		mine := slices.DeleteFunc(slices.Clone(parts), func(p *part) bool {
			return p.empty() || p.id.Epoch != b.Epoch || p.id.Holder != b.Holder
		})
		slices.SortFunc(mine, func(a, b *part) int { return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(a.id.Part, b.id.Part)) })
		for _, p := range mine {
			s := span{p, max(p.first, b.Fork.Number+1), min(p.last, limit)}
			if n := len(run); n > 0 {
				end := run[n-1].to
				if s.from > end+1 {
					run = nil // a hole: what is older cannot be read on from
				}
				s.from = max(s.from, end+1)
			}
			if s.from <= s.to {
				run = append(run, s)
			}
		}
	}
	return run
}

// chainOf is the chain as the newest part with records tells it.
func chainOf(parts []*part) []Branch {
	var newest *part
	for _, p := range parts {
		if p.empty() {
			continue
		}
		if newest == nil || p.id.Epoch > newest.id.Epoch || p.id.Epoch == newest.id.Epoch && p.first < newest.first {
			newest = p
		}
	}
	switch {
	case newest == nil:
		return nil
	case newest.pen != nil && len(newest.pen.Forks) > 0:
		return slices.Clone(newest.pen.Forks)
	case newest.pen != nil:
		return []Branch{{Epoch: newest.id.Epoch, Holder: newest.id.Holder, Forced: newest.pen.Forced, Fork: newest.pen.Fork}}
	}
	// The PEN is trimmed away, and with it all that was older.
	return []Branch{{Epoch: newest.id.Epoch, Holder: newest.id.Holder, Fork: newest.start.Fork}}
}

// Extend returns the chain that goes on with next: branches as far as next.Fork reaches, then next. Pen.Forks of a claim
// is Extend(log.Branches(), branch).
func Extend(branches []Branch, next Branch) []Branch {
	var out []Branch
	for _, b := range branches {
		if b.Epoch <= next.Fork.Epoch && b.Epoch < next.Epoch {
			out = append(out, b)
		}
	}
	return append(out, next)
}

func checkBranches(b []Branch) error {
	for i := range b {
		if b[i].Epoch == 0 || b[i].Holder == "" || i > 0 && (b[i].Epoch <= b[i-1].Epoch || b[i].Fork.Number < b[i-1].Fork.Number) {
			return &tandem.Error{Op: "adopt a chain", Kind: tandem.Invalid, Err: fmt.Errorf("branch of epoch %d is out of order", b[i].Epoch)}
		}
	}
	return nil
}

// load reads what the store has of a segment.
func (l *Log) load(ctx context.Context, id SegmentID) (*part, error) {
	st, err := l.o.Store.State(ctx, id)
	if err != nil {
		return nil, err
	}
	p := &part{id: id, sealed: st.Sealed}
	if st.First > st.Last || st.Last == 0 {
		return p, nil
	}
	first, err := l.one(ctx, id, st.First)
	if err != nil {
		return nil, err
	}
	p.first, p.base, p.start, p.pen = first.Header.Number, first.Header.Number-st.First, before(&first.Header), penOf(&first)
	last := first
	if st.Last != st.First {
		if last, err = l.one(ctx, id, st.Last); err != nil {
			return nil, err
		}
	}
	p.last, p.end = last.Header.Number, markOf(&last)
	if p.last != p.base+st.Last {
		return nil, damaged(string(id.Hub), fmt.Errorf("segment of epoch %d: record %d at sequence %d", id.Epoch, p.last, st.Last))
	}
	return p, nil
}

// one reads one record of a segment and checks that it belongs there.
func (l *Log) one(ctx context.Context, id SegmentID, sequence uint64) (rec Record, err error) {
	found := false
	err = l.o.Store.Read(ctx, id, sequence, 1, func(at uint64, b []byte) error {
		if found || at != sequence {
			return nil
		}
		found = true
		rec, err = l.decode(id, b)
		return err
	})
	if err == nil && !found {
		err = damaged(string(id.Hub), fmt.Errorf("sequence %d of epoch %d is missing", sequence, id.Epoch))
	}
	return rec, err
}

func (l *Log) decode(id SegmentID, b []byte) (Record, error) {
	r, err := DecodeRecord(b)
	if err != nil {
		return r, err
	}
	if h := &r.Header; h.Hub != l.o.Hub || h.Shard != l.o.Shard || h.Epoch != id.Epoch {
		return r, damaged(string(id.Hub), fmt.Errorf("record %d of epoch %d lies in the segment of epoch %d", h.Number, h.Epoch, id.Epoch))
	}
	return r, nil
}

// layout is what resolve finds.
type layout struct {
	spans      []span
	floor, end mark
}

// resolve lays the parts along chain and finds where the readable log begins and ends.
func (l *Log) resolve(ctx context.Context, chain []Branch, parts []*part) (layout, error) {
	out := layout{spans: spansOf(chain, parts), floor: l.origin, end: l.origin}
	n := len(out.spans)
	if n == 0 {
		return out, nil
	}
	s := out.spans[n-1]
	if s.to < l.origin.Number { // reseeded past everything that is here
		out.spans = nil
		return out, nil
	}
	out.end = s.part.end
	if s.to != s.part.last {
		r, err := l.one(ctx, s.part.id, s.to-s.part.base)
		if err != nil {
			return out, err
		}
		out.end = markOf(&r)
	}
	s = out.spans[0]
	out.floor = s.part.start
	if s.from != s.part.first {
		r, err := l.one(ctx, s.part.id, s.from-s.part.base)
		if err != nil {
			return out, err
		}
		out.floor = before(&r.Header)
	}
	if i := branchAt(chain, out.floor.Number); i >= 0 {
		out.floor.Epoch = chain[i].Epoch
	}
	return out, nil
}

// checkForks verifies that every fork of the chain that lies in this region is the record it names.
func (l *Log) checkForks(ctx context.Context, chain []Branch, lay layout) error {
	for _, b := range chain {
		if b.Fork.Number == 0 || b.Fork.Number < lay.floor.Number || b.Fork.Number > lay.end.Number {
			continue
		}
		h, err := l.hashIn(ctx, lay, b.Fork.Number)
		if err != nil {
			return err
		}
		if h != b.Fork.Hash {
			return diverged(l.o.Hub, fmt.Errorf("epoch %d goes on from another record %d than ours", b.Epoch, b.Fork.Number))
		}
	}
	return nil
}

// hashIn is the hash of a record of the layout, from floor to end.
func (l *Log) hashIn(ctx context.Context, lay layout, number uint64) (Hash, error) {
	switch number {
	case lay.end.Number:
		return lay.end.Hash, nil
	case lay.floor.Number:
		return lay.floor.Hash, nil
	}
	for _, s := range lay.spans {
		if number >= s.from && number <= s.to {
			r, err := l.one(ctx, s.part.id, number-s.part.base)
			return r.Header.Hash, err
		}
	}
	return Hash{}, diverged(l.o.Hub, fmt.Errorf("record %d is not here", number))
}

// scan reads records after a number up to limit from the store, oldest first, and verifies how they are chained.
// It gives at most maxBytes, at least one record.
func (l *Log) scan(ctx context.Context, lay layout, after, limit uint64, maxBytes int, fn func(Record) error) error {
	var prev *Hash
	if after == lay.floor.Number {
		prev = &lay.floor.Hash
	}
	given := 0
	for _, s := range lay.spans {
		for s.to > after && s.from <= after+1 && after < limit {
			start := after
			err := l.o.Store.Read(ctx, s.part.id, after+1-s.part.base, maxBytes-given, func(sequence uint64, b []byte) error {
				if after >= min(limit, s.to) || given > 0 && given+len(b) > maxBytes {
					return errEnough
				}
				r, err := l.decode(s.part.id, b)
				if err != nil {
					return err
				}
				if r.Header.Number != after+1 || prev != nil && r.Header.Prev != *prev {
					return damaged(string(l.o.Hub), fmt.Errorf("record %d does not go on from %d", r.Header.Number, after))
				}
				after, given, prev = r.Header.Number, given+len(b), &r.Header.Hash
				return fn(r)
			})
			if errors.Is(err, errEnough) {
				err = nil
				if given >= maxBytes || after < min(limit, s.to) {
					return nil
				}
			}
			if err != nil {
				return err
			}
			if after == start {
				return damaged(string(l.o.Hub), fmt.Errorf("record %d is missing", after+1))
			}
			if given >= maxBytes {
				return nil
			}
		}
	}
	return nil
}

var errEnough = errors.New("enough")

func diverged(hub tandem.HubID, cause error) error {
	return &tandem.Error{Op: ErrDiverged.Op, Kind: tandem.Damaged, On: string(hub), Err: errors.Join(ErrDiverged, cause)}
}
