package pairlog

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"tandem"
)

// A Tail is what this region holds of an epoch beyond the fork that the chain took: stranded, kept, never read as part of
// the log.
type Tail struct {
	Epoch                   tandem.Epoch
	Holder                  tandem.RegionName
	First, Last             uint64 // numbers
	Records, Entries, Bytes uint64
}

// tailSpans returns the ranges of an epoch's parts that the chain did not take, in order and without overlap; with epoch
// 0 those of all epochs. Called with mu held.
func (l *Log) tailSpans(epoch tandem.Epoch) []span {
	var out []span
	for _, p := range l.parts {
		if p.empty() || epoch != 0 && p.id.Epoch != epoch {
			continue
		}
		limit := uint64(0)
		for i, b := range l.chain {
			if b.Epoch == p.id.Epoch && b.Holder == p.id.Holder {
				limit = limitOf(l.chain, i)
			}
		}
		if len(l.chain) > 0 && p.id.Epoch < l.chain[0].Epoch && limit == 0 {
			// An epoch from before the oldest branch that is still kept: everything up to that fork was the log.
			limit = l.chain[0].Fork.Number
		}
		if p.last > limit {
			out = append(out, span{p, max(p.first, limit+1), p.last})
		}
	}
	slices.SortFunc(out, func(a, b span) int {
		return cmp.Or(cmp.Compare(a.part.id.Epoch, b.part.id.Epoch), cmp.Compare(a.part.id.Holder, b.part.id.Holder),
			cmp.Compare(a.from, b.from), cmp.Compare(a.part.id.Part, b.part.id.Part))
	})
	kept := out[:0]
	for _, s := range out {
		if n := len(kept); n > 0 && kept[n-1].part.id.Epoch == s.part.id.Epoch && kept[n-1].part.id.Holder == s.part.id.Holder {
			s.from = max(s.from, kept[n-1].to+1)
		}
		if s.from <= s.to {
			kept = append(kept, s)
		}
	}
	return kept
}

// Tails lists what this region holds beyond the forks of the chain, by epoch.
func (l *Log) Tails(ctx context.Context) ([]Tail, error) {
	tails, err := l.tails(ctx)
	if !errors.Is(err, ErrNoSegment) {
		return tails, err
	}
	l.op.Lock() // a segment went meanwhile: look again when whoever removes it is done
	defer l.op.Unlock()
	return l.tails(ctx)
}

func (l *Log) tails(ctx context.Context) ([]Tail, error) {
	l.mu.RLock()
	spans := l.tailSpans(0)
	l.mu.RUnlock()
	var tails []Tail
	for _, s := range spans {
		first, err := l.one(ctx, s.part.id, s.from-s.part.base)
		if err != nil {
			return nil, err
		}
		last, err := l.one(ctx, s.part.id, s.to-s.part.base)
		if err != nil {
			return nil, err
		}
		end := markOf(&last)
		n := len(tails)
		if n == 0 || tails[n-1].Epoch != s.part.id.Epoch || tails[n-1].Holder != s.part.id.Holder {
			tails = append(tails, Tail{Epoch: s.part.id.Epoch, Holder: s.part.id.Holder, First: s.from})
			n++
		}
		t := &tails[n-1]
		t.Last = s.to
		t.Records += s.to - s.from + 1
		t.Entries += end.entries - first.Header.FirstEntry
		t.Bytes += end.bytes - first.Header.FirstByte
	}
	return tails, nil
}

// Tail gives this region's records of an epoch beyond the fork that the chain took, oldest first.
func (l *Log) Tail(ctx context.Context, epoch tandem.Epoch, fn func(Record) error) error {
	l.mu.RLock()
	spans := l.tailSpans(epoch)
	l.mu.RUnlock()
	for _, s := range spans {
		lay := layout{spans: []span{s}}
		for after := s.from - 1; after < s.to; {
			err := l.scan(ctx, lay, after, s.to, 4<<20, func(r Record) error {
				after = r.Header.Number
				return fn(r)
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// DropTail removes the segments of an epoch that hold nothing but tail, after it was merged or its time is over.
// It reports Conflict when a segment also holds records of the chain: those go with Trim.
func (l *Log) DropTail(ctx context.Context, epoch tandem.Epoch) error {
	l.op.Lock()
	defer l.op.Unlock()
	l.mu.RLock()
	spans := l.tailSpans(epoch)
	floor := l.lay.floor.Number
	l.mu.RUnlock()
	for _, s := range spans {
		if s.from > s.part.first && s.from > floor+1 {
			return &tandem.Error{Op: "drop a tail", Kind: tandem.Conflict, On: string(l.o.Hub), Err: errors.New("its segment still holds records of the log")}
		}
	}
	for _, s := range spans {
		if err := l.remove(ctx, s.part); err != nil {
			return err
		}
	}
	return nil
}

func (l *Log) remove(ctx context.Context, p *part) error {
	if err := l.o.Store.Delete(ctx, p.id); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.parts = slices.DeleteFunc(slices.Clone(l.parts), func(x *part) bool { return x == p })
	return nil
}

// Trim obeys a TRIM: records of the chain up to and including upTo may be gone afterwards. The last record stays, tails
// stay, and a sealed segment stays until all of it may go; Begins tells where the log now begins.
func (l *Log) Trim(ctx context.Context, upTo uint64) error {
	l.op.Lock()
	defer l.op.Unlock()
	l.mu.RLock()
	end, chain, live, tails := l.lay.end.Number, l.chain, slices.Clone(l.parts), l.tailSpans(0)
	l.mu.RUnlock()
	if end == 0 || len(chain) == 0 {
		return nil
	}
	upTo = min(upTo, end-1)
	for i, p := range l.snapshot() {
		if slices.ContainsFunc(tails, func(s span) bool { return s.part == live[i] }) {
			continue
		}
		old := p.id.Epoch < chain[len(chain)-1].Epoch
		switch {
		case p.empty():
			if old && p.sealed { // the mark of an ended copy; nobody follows that epoch any more
				if err := l.remove(ctx, live[i]); err != nil {
					return err
				}
			}
		case p.last <= upTo:
			l.mu.RLock()
			former := l.newest(p.id.Epoch, p.id.Holder) != live[i] // a part of a copy that went on in another one
			l.mu.RUnlock()
			if p.sealed || old || former { // else it is still written to: its last record stays
				if err := l.remove(ctx, live[i]); err != nil {
					return err
				}
			}
		case p.first <= upTo && !p.sealed:
			first := upTo + 1 - p.base
			if err := l.o.Store.Trim(ctx, p.id, first); tandem.KindOf(err) == tandem.Unsupported && err != nil {
				continue
			} else if err != nil {
				return err
			}
			r, err := l.one(ctx, p.id, first)
			if err != nil {
				return err
			}
			l.mu.Lock()
			live[i].first, live[i].start, live[i].pen = r.Header.Number, before(&r.Header), penOf(&r)
			l.mu.Unlock()
		}
	}
	lay, err := l.resolve(ctx, chain, l.snapshot())
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lay.floor, l.lay.spans = lay.floor, spansOf(l.chain, l.parts) // the end may have grown meanwhile
	return nil
}
