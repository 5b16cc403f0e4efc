package pairlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"tandem"
)

// Options are what a Log works on.
type Options struct {
	Hub          tandem.HubID
	Shard        uint16
	Region, Peer tandem.RegionName
	Store        Store
	Link         Link
	Clock        tandem.Clock // default the machine's
	Logger       *slog.Logger // default: nobody listens
	Notify       tandem.Notify
	RecentBytes  int // of newest records kept in memory for the follower and readers; default 16 MiB
	// VerifyAfter lets Open verify only the records after this number, when a complete snapshot vouches for the others.
	// Check verifies all.
	VerifyAfter uint64
}

// Log is one hub's log in one region: the chain of segments and copies that the region keeps. At any time it has at
// most one Writer or one Follow. All methods may be called by many goroutines.
type Log struct {
	o      Options
	logger *slog.Logger
	origin mark // set by Reseed

	op tandem.Turn // held while parts or chain change, other than by growing

	mu       sync.RWMutex
	chain    []Branch
	parts    []*part
	lay      layout // its spans' last end grows with every record
	visible  uint64
	recent   ring
	given    given
	clipped  int           // how often the chain was changed other than by growing
	changed  chan struct{} // closed at the next change; nil when nobody waits
	ended    map[tandem.Epoch]bool
	writer   *Writer
	follow   *follow
	heard    heard
	peer     peerAck
	toSeal   []SegmentID
	sealSoon chan struct{}
}

// Open finds the hub's segments in this region, verifies the chain and resolves which segment is the newest. It appends
// nothing. ErrDamaged when a record after Options.VerifyAfter fails its check.
func Open(ctx context.Context, o Options) (*Log, error) {
	if o.RecentBytes == 0 {
		o.RecentBytes = 16 << 20
	}
	if o.Clock == nil {
		o.Clock = tandem.SystemClock{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if len(o.Hub) == 0 || len(o.Hub) > maxHubBytes || o.Region == "" || o.Store == nil {
		return nil, &tandem.Error{Op: "open the log", Kind: tandem.Invalid, On: string(o.Hub), Err: errors.New("hub, region and store are needed")}
	}
	l := &Log{
		o: o, logger: o.Logger.With("hub", string(o.Hub)), recent: ring{max: o.RecentBytes},
		ended: make(map[tandem.Epoch]bool), sealSoon: make(chan struct{}, 1),
	}
	l.peer.moved = make(chan struct{}, 1)
	ids, err := o.Store.Segments(ctx, o.Hub)
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		if id.Shard != o.Shard {
			continue
		}
		p, err := l.load(ctx, id)
		if err != nil {
			return nil, fmt.Errorf("open the log of hub %s, epoch %d of %s: %w", o.Hub, id.Epoch, id.Holder, err)
		}
		l.parts = append(l.parts, p)
	}
	l.chain = chainOf(l.parts)
	if l.lay, err = l.resolve(ctx, l.chain, l.parts); err != nil {
		return nil, err
	}
	if err := l.checkForks(ctx, l.chain, l.lay); err != nil {
		return nil, err
	}
	if err := l.verify(ctx, l.lay, o.VerifyAfter); err != nil {
		return nil, fmt.Errorf("open the log of hub %s: %w", o.Hub, err)
	}
	l.visible = l.lay.end.Number
	return l, nil
}

// verify reads the layout's records after a number.
func (l *Log) verify(ctx context.Context, lay layout, after uint64) error {
	for after = max(after, lay.floor.Number); after < lay.end.Number; {
		start := after
		err := l.scan(ctx, lay, after, lay.end.Number, 4<<20, func(r Record) error {
			after = r.Header.Number
			return nil
		})
		if err == nil && after == start {
			err = damaged(string(l.o.Hub), fmt.Errorf("record %d is missing", after+1))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Check verifies every record that is kept, of the chain and of tails, and the chain itself. ErrDamaged names the first
// that fails.
func (l *Log) Check(ctx context.Context) error {
	l.mu.RLock()
	lay, chain := l.layout(), l.chain
	l.mu.RUnlock()
	if err := l.checkForks(ctx, chain, lay); err != nil {
		return err
	}
	if err := l.verify(ctx, lay, 0); err != nil {
		return err
	}
	tails, err := l.Tails(ctx)
	if err != nil {
		return err
	}
	for _, t := range tails {
		if err := l.Tail(ctx, t.Epoch, func(Record) error { return nil }); err != nil {
			return err
		}
	}
	return nil
}

// Epoch is the newest epoch of which this region holds records (the first of an epoch is its PEN); 0 when there is none.
func (l *Log) Epoch() tandem.Epoch {
	l.mu.RLock()
	defer l.mu.RUnlock()
	var e tandem.Epoch
	for _, p := range l.parts {
		if !p.empty() {
			e = max(e, p.id.Epoch)
		}
	}
	return e
}

// End is the last record of the chain that is durable and verified here; the zero Fork when there is none.
func (l *Log) End() Fork {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.lay.end.Fork
}

// EndTime is the time of the record at End; zero when there is none.
func (l *Log) EndTime() time.Time {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.lay.end.time
}

// Begins is the number of the last record that is trimmed away or was never here: the oldest readable one is the next.
func (l *Log) Begins() Fork {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.lay.floor.Fork
}

// Branches is the chain as this region knows it, oldest first, without branches that are wholly trimmed.
func (l *Log) Branches() []Branch {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for i := range l.chain {
		if limitOf(l.chain, i) > l.lay.floor.Number {
			return slices.Clone(l.chain[i:])
		}
	}
	return slices.Clone(l.chain)
}

// Visible is the number of the last record that readers may see: durable, and in a sync mode in-sync-durable.
func (l *Log) Visible() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.visible
}

// layout is the present layout as a copy that does not grow. Called with mu held.
func (l *Log) layout() layout {
	lay := l.lay
	lay.spans = slices.Clone(lay.spans)
	return lay
}

// Read gives the records of the chain with numbers above after that are visible, oldest first, at most maxBytes but at
// least one, and returns the number of the last it gave (after when there was none). It never waits.
// ErrBehindTrim when the record after after is trimmed away.
func (l *Log) Read(ctx context.Context, after uint64, maxBytes int, fn func(Record) error) (next uint64, err error) {
	l.mu.RLock()
	limit := l.visible
	l.mu.RUnlock()
	return l.read(ctx, after, limit, maxBytes, fn)
}

func (l *Log) read(ctx context.Context, after, limit uint64, maxBytes int, fn func(Record) error) (next uint64, err error) {
	next = after
	l.mu.RLock()
	floor, limit := l.lay.floor.Number, min(limit, l.lay.end.Number)
	records := l.recent.after(after, limit, maxBytes)
	var lay layout
	if len(records) == 0 && after < limit {
		lay = l.layout()
	}
	l.mu.RUnlock()
	switch {
	case after < floor:
		return next, fmt.Errorf("records up to %d are trimmed: %w", floor, ErrBehindTrim)
	case after >= limit:
		return next, nil
	}
	give := func(r Record) error {
		if err := fn(r); err != nil {
			return err
		}
		next = r.Header.Number
		return nil
	}
	for _, r := range records {
		if err := give(r); err != nil {
			return next, err
		}
	}
	if len(records) > 0 {
		return next, nil
	}
	if err := l.scan(ctx, lay, after, limit, maxBytes, give); err != nil {
		return next, err
	}
	return next, nil
}

// Wait returns when a record with a number above after is visible, or with ctx's error.
func (l *Log) Wait(ctx context.Context, after uint64) error {
	for {
		l.mu.Lock()
		if l.visible > after {
			l.mu.Unlock()
			return nil
		}
		changed := l.change()
		l.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// change is closed at the next change. Called with mu held for writing.
func (l *Log) change() <-chan struct{} {
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	return l.changed
}

// wake tells everybody who waits. Called with mu held for writing.
func (l *Log) wake() {
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// grew notes a record that was stored at the end of p and of the chain.
func (l *Log) grew(p *part, r Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lay.end.Number == 0 && len(l.lay.spans) == 0 {
		l.lay.floor = before(&r.Header)
	}
	p.grew(&r)
	if n := len(l.lay.spans); n > 0 && l.lay.spans[n-1].part.id == p.id {
		l.lay.spans[n-1].to = r.Header.Number
	} else {
		l.lay.spans = append(l.lay.spans, span{p, r.Header.Number, r.Header.Number})
	}
	l.lay.end = p.end
	l.recent.push(r)
	l.see()
	l.wake()
}

// forget drops what memory keeps of the chain, after the chain changed. Called with mu held for writing.
func (l *Log) forget() {
	l.recent.reset()
	l.given = given{}
	l.clipped++
}

// known is the hash of a record of the chain, when memory has it. Called with mu held.
func (l *Log) known(number uint64) (Hash, bool) {
	if h, ok := l.recent.hash(number); ok {
		return h, true
	}
	return l.given.hash(number)
}

// see moves visible on as far as it may. Called with mu held for writing.
func (l *Log) see() {
	to := l.lay.end.Number
	if w := l.writer; w != nil && w.hides {
		to = min(to, l.peer.number)
	}
	l.visible = max(l.visible, to)
}

// Adopt sets the chain to these branches, oldest first (the pen's Forks, from the directory): our segments are clipped
// at the forks, and what lies beyond is a tail. ErrDiverged when a fork is not the record that is here. Nothing is removed.
func (l *Log) Adopt(ctx context.Context, b []Branch) error {
	l.op.Lock()
	defer l.op.Unlock()
	return l.adopt(ctx, b)
}

func (l *Log) adopt(ctx context.Context, b []Branch) error {
	if err := checkBranches(b); err != nil {
		return err
	}
	for _, known := range l.Branches() {
		for _, told := range b {
			if told.Epoch == known.Epoch && told.Holder != known.Holder {
				return diverged(l.o.Hub, fmt.Errorf("epoch %d is %s's here and %s's there", known.Epoch, known.Holder, told.Holder))
			}
		}
	}
	if len(b) > 0 && b[0].Fork.Number > 0 { // older branches are trimmed where b comes from, but perhaps not here
		b = append(Extend(l.Branches(), b[0]), b[1:]...)
	}
	lay, err := l.resolve(ctx, b, l.snapshot())
	if err != nil {
		return err
	}
	if err := l.checkForks(ctx, b, lay); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	same := lay.end.Fork == l.lay.end.Fork
	l.chain, l.lay = slices.Clone(b), lay
	if !same {
		l.forget()
		l.visible = min(l.visible, lay.end.Number)
		l.see()
	}
	if n := len(b); n > 0 { // a claim goes on from here: it is part of the log, whoever has a copy
		l.visible = max(l.visible, min(b[n-1].Fork.Number, lay.end.Number))
	}
	l.wake()
	return nil
}

// Reseed says that the region's view was taken over from a snapshot at this record: the log here begins after it.
// Older records that do not reach it are no longer read; Trim removes them.
func (l *Log) Reseed(ctx context.Context, at Fork) error {
	l.op.Lock()
	defer l.op.Unlock()
	l.mu.RLock()
	chain, ahead := slices.Clone(l.chain), l.lay.end.Number >= at.Number
	l.mu.RUnlock()
	if ahead {
		return nil
	}
	l.origin = mark{Fork: at, loose: true}
	return l.adopt(ctx, chain)
}

// snapshot is the parts as they are now.
func (l *Log) snapshot() []*part {
	l.mu.RLock()
	defer l.mu.RUnlock()
	out := make([]*part, len(l.parts))
	for i, p := range l.parts {
		c := *p
		out[i] = &c
	}
	return out
}

// part returns what is known of a segment, or nil. Called with mu held.
func (l *Log) part(id SegmentID) *part {
	for _, p := range l.parts {
		if p.id == id {
			return p
		}
	}
	return nil
}

// newest returns the part of a segment with the highest number, or nil. Called with mu held.
func (l *Log) newest(epoch tandem.Epoch, holder tandem.RegionName) *part {
	var newest *part
	for _, p := range l.parts {
		if p.id.Epoch == epoch && p.id.Holder == holder && (newest == nil || p.id.Part > newest.id.Part) {
			newest = p
		}
	}
	return newest
}

// create makes a segment and remembers it.
func (l *Log) create(ctx context.Context, id SegmentID) (*part, error) {
	if err := l.o.Store.Create(ctx, id); err != nil {
		return nil, err
	}
	p := &part{id: id}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.parts = append(l.parts, p)
	return p, nil
}

func (l *Log) own(epoch tandem.Epoch) SegmentID {
	return SegmentID{Hub: l.o.Hub, Shard: l.o.Shard, Epoch: epoch, Holder: l.o.Region}
}

// Prepare makes this region's own segment for an epoch ahead of time, so that Begin need not; it is remembered and not
// touched again until then.
func (l *Log) Prepare(ctx context.Context, epoch tandem.Epoch) error {
	l.op.Lock()
	defer l.op.Unlock()
	l.mu.RLock()
	p := l.part(l.own(epoch))
	l.mu.RUnlock()
	if p != nil {
		return nil
	}
	_, err := l.create(ctx, l.own(epoch))
	return err
}
