package pairlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"tandem"
)

// Lag is how far this region's copy is behind the holder, counted with the holder's own end and clock.
type Lag struct {
	Records, Items, Bytes uint64
	// Age is how old the newest record here is while there are records that are not here; 0 when there are none. While
	// Known is false it goes on growing from the holder's last answer.
	Age time.Duration
	// Known: the holder has answered within the last 3 s.
	Known bool
}

const (
	lagKnown    = 3 * time.Second
	copyTimeout = 1500 * time.Millisecond // of one submission to the copy
)

// heard is the holder's last answer.
type heard struct {
	end mark
	now time.Time
	at  time.Duration // Clock.Boot
	any bool
}

// Lag tells how far this region's copy is behind, as of the holder's last answer. Zero and not Known while nothing was
// followed; a region that holds the pen itself has no lag.
func (l *Log) Lag() Lag {
	l.mu.RLock()
	defer l.mu.RUnlock()
	h, end := &l.heard, &l.lay.end
	if !h.any {
		return Lag{}
	}
	since := l.o.Clock.Boot() - h.at
	lag := Lag{Known: since < lagKnown}
	if h.end.Number > end.Number {
		lag.Records = h.end.Number - end.Number
		if !end.loose {
			lag.Items, lag.Bytes = h.end.entries-end.entries, h.end.bytes-end.bytes
		}
	}
	if lag.Records > 0 && !end.time.IsZero() {
		lag.Age = max(0, h.now.Sub(end.time)) + since
	} else if lag.Records > 0 || !lag.Known {
		lag.Age = since
	}
	return lag
}

// follow is one Follow or Fetch under way.
type follow struct {
	l      *Log
	epoch  tandem.Epoch
	cancel context.CancelCauseFunc
	fetch  bool // stop when the peer has no more; ended parts do not matter
}

// Follow pulls the records of an epoch from the peer, verifies number, epoch and chain, and stores them in this region's
// copy; records of older epochs between our end and the epoch's fork are pulled first. It returns nil when the epoch's
// CLOSE is stored, ctx's error when ctx ends, ErrDiverged, ErrBehindTrim, ErrCopyEnded, or ErrUncertain when the store
// left an append unanswered (calling again begins a new part). A dark link is tried for ever.
// What is here beyond the epoch's fork stays on disk as tail; the chain here then goes on from the fork.
func (l *Log) Follow(ctx context.Context, epoch tandem.Epoch, holder tandem.RegionName) error {
	if newest := l.Epoch(); epoch < newest {
		return fmt.Errorf("epoch %d is older than %d: %w", epoch, newest, ErrCopyEnded)
	}
	return l.pullFrom(ctx, &follow{l: l, epoch: epoch}, holder)
}

// Fetch pulls what the peer has of the chain of an epoch and this region lacks, into parts of their own, and returns our
// end once the peer has no more. It is for a holder that comes back and may have lost what its peer still has.
func (l *Log) Fetch(ctx context.Context, epoch tandem.Epoch, holder tandem.RegionName) (Fork, error) {
	err := l.pullFrom(ctx, &follow{l: l, epoch: epoch, fetch: true}, holder)
	return l.End(), err
}

func (l *Log) pullFrom(ctx context.Context, f *follow, holder tandem.RegionName) error {
	ctx, f.cancel = context.WithCancelCause(ctx)
	defer f.cancel(context.Canceled)
	l.mu.Lock()
	last := l.newest(f.epoch, holder)
	switch end := l.lay.end; {
	case end.Epoch == f.epoch && end.closed:
		l.mu.Unlock()
		return nil
	case !f.fetch && (l.ended[f.epoch] || last != nil && last.sealed):
		l.mu.Unlock()
		return fmt.Errorf("epoch %d: %w", f.epoch, ErrCopyEnded)
	case l.follow != nil || l.writer != nil && l.writer.id.Epoch >= f.epoch && l.writer.alive() == nil:
		l.mu.Unlock()
		return &tandem.Error{Op: "follow", Kind: tandem.Conflict, On: string(l.o.Hub), Err: errors.New("another follower or a writer is at work here")}
	}
	l.follow = f
	if l.writer != nil && !f.fetch {
		l.writer = nil // its epoch is over
		l.see()
	}
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.follow == f {
			l.follow = nil
		}
	}()
	err := f.run(ctx, holder)
	if errors.Is(err, ErrDiverged) {
		l.logger.Error("the peer's log does not go on from ours; following stops", "epoch", uint64(f.epoch), "err", err)
		l.o.Notify.Send(CopyDiverged{Hub: l.o.Hub, Epoch: f.epoch, Err: err})
	}
	return err
}

// asked is what became of a pull.
type asked struct {
	data []byte
	err  error
}

func (f *follow) run(ctx context.Context, holder tandem.RegionName) error {
	l := f.l
	if err := f.agree(ctx, holder); err != nil {
		return err
	}
	var next chan asked // the pull that is under way
	var tip Fork        // after which it asks
	for {
		end := l.End()
		if next == nil || tip != end {
			next, tip = f.ask(ctx, end, end, maxPullWait), end
		}
		got := <-next
		next = nil
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if got.err != nil {
			f.rest(ctx, got.err)
			continue
		}
		a, _, err := decodePulled(got.data)
		if err != nil {
			f.rest(ctx, err)
			continue
		}
		l.hear(&a)
		switch a.status {
		case pullTrimmed:
			return fmt.Errorf("the peer's log begins after record %d, ours ends at %d: %w", a.floor.Number, end.Number, ErrBehindTrim)
		case pullDiverged:
			return diverged(l.o.Hub, fmt.Errorf("the peer does not have our record %d", end.Number))
		case pullUnknown:
			if f.fetch {
				return nil
			}
			f.rest(ctx, &tandem.Error{Op: "pull", Kind: tandem.Unavailable, Err: errors.New("the peer does not know the epoch")})
			continue
		}
		if len(a.records) == 0 {
			if f.fetch {
				return nil
			}
			continue
		}
		marks, err := f.verify(a.records)
		if err != nil {
			return err
		}
		if last := marks[len(marks)-1]; !last.closed && !f.fetch { // fetch the next ones while these are being stored
			tip = last.Fork
			next = f.ask(ctx, tip, end, maxPullWait)
		}
		for i := range a.records {
			if err := f.store(ctx, &a.records[i], holder); err != nil {
				return err
			}
		}
		end = l.End()
		ack := pull{acked: end.Number, ackedHash: end.Hash}
		_ = l.o.Link.Send(l.o.Peer, l.ackSubject(), ack.encode()) // the next pull says so again
		if last := marks[len(marks)-1]; last.closed && last.Epoch == f.epoch {
			return nil
		}
	}
}

// ask sends a pull for what comes after a record; acked is what is durable here.
func (f *follow) ask(ctx context.Context, after, acked Fork, wait time.Duration) chan asked {
	p := pull{epoch: f.epoch, after: after.Number, prev: after.Hash, acked: acked.Number, ackedHash: acked.Hash, maxBytes: maxPullBytes, wait: wait}
	if f.fetch {
		p.wait = 0
	}
	return f.l.request(ctx, p)
}

func (l *Log) request(ctx context.Context, p pull) chan asked {
	done := make(chan asked, 1)
	go func() {
		bounded, cancel := l.within(ctx, p.wait+time.Second)
		defer cancel()
		data, err := l.o.Link.Request(bounded, l.o.Peer, l.pullSubject(), p.encode())
		done <- asked{data, err}
	}()
	return done
}

// rest waits a little after a failure, so that a dark link is tried again soon but not hard.
func (f *follow) rest(ctx context.Context, err error) {
	level := slog.LevelDebug // a dark link, which others report
	if k := tandem.KindOf(err); k != tandem.Unavailable && k != tandem.Timeout {
		level = slog.LevelWarn
	}
	f.l.logger.Log(ctx, level, "pull failed", "epoch", uint64(f.epoch), "err", err)
	f.l.pause(ctx, 20*time.Millisecond+rand.N(130*time.Millisecond))
}

func (l *Log) hear(a *pulled) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard = heard{end: a.end, now: a.now, at: l.o.Clock.Boot(), any: true}
}

// agree makes the epoch a branch of our chain, as the peer tells it, unless it is one.
func (f *follow) agree(ctx context.Context, holder tandem.RegionName) error {
	l := f.l
	for {
		for _, b := range l.Branches() {
			if b.Epoch != f.epoch {
				continue
			}
			if b.Holder != holder {
				return diverged(l.o.Hub, fmt.Errorf("epoch %d is %s's, not %s's", f.epoch, b.Holder, holder))
			}
			return nil
		}
		got := <-l.request(ctx, pull{epoch: f.epoch, wantChain: true, wait: maxPullWait})
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		a, branches, err := pulled{}, []Branch(nil), got.err
		if err == nil {
			a, branches, err = decodePulled(got.data)
		}
		if err != nil {
			f.rest(ctx, err)
			continue
		}
		if a.status == pullUnknown {
			if f.fetch {
				return nil
			}
			continue
		}
		for i, b := range branches {
			if b.Epoch == f.epoch {
				branches = branches[:i+1]
				break
			}
		}
		if n := len(branches); n == 0 || branches[n-1].Epoch != f.epoch || branches[n-1].Holder != holder {
			return diverged(l.o.Hub, fmt.Errorf("the peer's chain does not name %s for epoch %d", holder, f.epoch))
		}
		l.op.Lock()
		if err := context.Cause(ctx); err != nil {
			l.op.Unlock()
			return err
		}
		err = l.adopt(ctx, branches)
		l.op.Unlock()
		if err != nil {
			return err
		}
	}
}

// verify checks that the records go on from our end, one after the other, and returns their ends.
func (f *follow) verify(records []Record) ([]mark, error) {
	l := f.l
	l.mu.RLock()
	end, chain := l.lay.end, l.chain
	l.mu.RUnlock()
	marks := make([]mark, len(records))
	for i := range records {
		h := &records[i].Header
		at := branchAt(chain, h.Number)
		var why string
		switch {
		case h.Hub != l.o.Hub || h.Shard != l.o.Shard:
			why = "belongs to another log"
		case h.Number != end.Number+1 || h.Prev != end.Hash:
			why = "does not go on from ours"
		case !end.loose && (h.FirstEntry != end.entries || h.FirstByte != end.bytes):
			why = "counts otherwise than ours"
		case at < 0 || chain[at].Epoch != h.Epoch || h.Epoch > f.epoch:
			why = "is of another epoch than the chain says"
		case h.Number == chain[at].Fork.Number+1 && records[i].first().Kind != KindPen:
			why = "begins an epoch without a PEN"
		}
		if why != "" {
			return nil, diverged(l.o.Hub, fmt.Errorf("record %d of epoch %d %s (%d of epoch %d)", h.Number, h.Epoch, why, end.Number, end.Epoch))
		}
		end = markOf(&records[i])
		marks[i] = end
	}
	return marks, nil
}

// store appends a verified record to the copy of its epoch.
func (f *follow) store(ctx context.Context, r *Record, holder tandem.RegionName) error {
	l := f.l
	for usedShare(l.o.Store.Space()) >= 0.95 {
		l.pause(ctx, 250*time.Millisecond)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	l.op.Lock()
	defer l.op.Unlock()
	if ctx.Err() != nil { // EndCopy and Begin look at what is stored once they have op
		return context.Cause(ctx)
	}
	epoch := r.Header.Epoch
	l.mu.RLock()
	if at := branchAt(l.chain, r.Header.Number); at >= 0 {
		holder = l.chain[at].Holder
	}
	p := l.newest(epoch, holder)
	fresh := p == nil || p.id.Part == 0 || p.sealed || p.dead || !p.empty() && p.last+1 != r.Header.Number
	gone := !f.fetch && l.follow != f || epoch == f.epoch && !f.fetch && l.ended[epoch]
	l.mu.RUnlock()
	if gone {
		return fmt.Errorf("epoch %d: %w", epoch, ErrCopyEnded)
	}
	if fresh {
		if p != nil && p.sealed && epoch == f.epoch && !f.fetch {
			return fmt.Errorf("epoch %d: %w", epoch, ErrCopyEnded)
		}
		id := SegmentID{Hub: l.o.Hub, Shard: l.o.Shard, Epoch: epoch, Holder: holder, Part: 1}
		if p != nil {
			id.Part = p.id.Part + 1
		}
		var err error
		if p, err = l.create(ctx, id); err != nil {
			return err
		}
	}
	after := uint64(0)
	if !p.empty() {
		after = p.last - p.base
	}
	switch err := l.submit(ctx, p.id, after, r.Bytes, copyTimeout); {
	case err == nil:
	case ctx.Err() != nil: // EndCopy's seal, or the end of the follower; what was stored is found by reading
		l.mu.Lock()
		p.dead = true
		l.mu.Unlock()
		return context.Cause(ctx)
	case errors.Is(err, ErrSealed):
		return fmt.Errorf("epoch %d: %w", epoch, ErrCopyEnded)
	default:
		l.mu.Lock()
		p.dead = true
		l.mu.Unlock()
		return err
	}
	l.grew(p, *r)
	return nil
}

// PeerState is what the peer region says of its log.
type PeerState struct {
	Epoch         tandem.Epoch // newest of its chain
	Begins        Fork         // the record before the oldest it keeps
	Last          uint64       // number of its last record
	Items, Bytes  uint64       // of the whole chain up to there
	Branches      []Branch
	Time          time.Time // its clock
	HasOurs       bool      // our last record is in its chain
	CommonUnknown bool      // our last record lies outside what it keeps
}

// Peer asks the peer region's log (its Run) where it stands, for a comparison before a claim. Errors as Link.Request's.
func (l *Log) Peer(ctx context.Context) (PeerState, error) {
	end := l.End()
	data, err := l.o.Link.Request(ctx, l.o.Peer, l.pullSubject(),
		(&pull{after: end.Number, prev: end.Hash, wantChain: true, maxBytes: 1}).encode())
	if err != nil {
		return PeerState{}, err
	}
	a, branches, err := decodePulled(data)
	if err != nil {
		return PeerState{}, err
	}
	return PeerState{
		Epoch: a.newest, Begins: a.floor, Last: a.end.Number, Items: a.end.entries, Bytes: a.end.bytes, Branches: branches, Time: a.now,
		HasOurs: a.status == pullOK && end.Number <= a.end.Number, CommonUnknown: a.status == pullTrimmed,
	}, nil
}
