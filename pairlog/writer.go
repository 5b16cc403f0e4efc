package pairlog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"tandem"
)

// WriterOptions say under which conditions a Writer answers.
type WriterOptions struct {
	// Valid is the lease check. It is asked before and after every append: after means that nobody is answered under a
	// lease that has ended. Nil: always valid.
	Valid func() bool
	Mode  Mode
	// InSync changes the in-sync set; needed in the sync modes.
	InSync InSync
	// PeerTimeout is how long a sync append waits for the peer; default 2 s.
	PeerTimeout time.Duration
	// AppendTimeout is how long one submission to the store may stay unanswered; default 1.5 s. There are three.
	AppendTimeout time.Duration
	// RefuseAt is the used share of the store's space from which appends are refused with ErrFull; default 0.90. Urgent
	// batches, CLOSE and heartbeats may use 0.05 more.
	RefuseAt float64
}

// urgentRoom is the share of the space that only urgent records may use.
const urgentRoom = 0.05

// InSync is how the writer changes the in-sync set in the directory.
type InSync interface {
	Contains(r tandem.RegionName) bool
	// Remove is a transaction comparing the pen and "not fenced"; only after it may the writer answer alone.
	Remove(ctx context.Context, r tandem.RegionName) error
	// Add is the same the other way; the writer waits for the peer from before the call on.
	Add(ctx context.Context, r tandem.RegionName) error
}

// Writer appends to one segment under a pen. Append and Close are called by one goroutine at a time.
type Writer struct {
	l     *Log
	o     WriterOptions
	pen   Pen
	part  *part
	id    SegmentID
	seq   uint64 // of the last record in the segment
	last  mark
	first Record

	hides bool // visible waits for the peer; under l.mu
	sync  syncState

	mu   sync.Mutex
	dead error // why no more appends are taken
}

// Begin appends the PEN record to this region's (prepared) segment for pen.Epoch and returns its writer: the record is
// numbered pen.Fork.Number+1 and chained to pen.Fork.Hash. pen.Fork must be in this region's chain: ErrDiverged otherwise.
// Records of older epochs beyond the fork become tail. An epoch that was begun before, also in a former life of the
// process, gives ErrFenced: its segment is never appended to again.
func (l *Log) Begin(ctx context.Context, pen Pen, o WriterOptions) (*Writer, error) {
	if o.PeerTimeout == 0 {
		o.PeerTimeout = 2 * time.Second
	}
	if o.AppendTimeout == 0 {
		o.AppendTimeout = 1500 * time.Millisecond
	}
	if o.RefuseAt == 0 {
		o.RefuseAt = 0.90
	}
	if pen.Hub != l.o.Hub || pen.Region != l.o.Region || pen.Epoch == 0 || o.Mode != "" && o.Mode != Async && o.InSync == nil {
		return nil, &tandem.Error{Op: "begin an epoch", Kind: tandem.Invalid, On: string(l.o.Hub), Err: errors.New("the pen is not this region's, or a sync mode lacks its in-sync set")}
	}
	l.op.Lock()
	defer l.op.Unlock()
	if len(pen.Forks) == 0 {
		pen.Forks = Extend(l.Branches(), Branch{Epoch: pen.Epoch, Holder: pen.Region, Forced: pen.Forced, Fork: pen.Fork})
	}
	if err := checkBranches(pen.Forks); err != nil {
		return nil, err
	}
	if b := pen.Forks[len(pen.Forks)-1]; b.Epoch != pen.Epoch || b.Holder != pen.Region || b.Fork != pen.Fork {
		return nil, &tandem.Error{Op: "begin an epoch", Kind: tandem.Invalid, On: string(l.o.Hub), Err: errors.New("the last of the forks is not the pen's own")}
	}
	l.mu.RLock()
	p, writer, here := l.newest(pen.Epoch, pen.Region), l.writer, l.lay.end.Number
	l.mu.RUnlock()
	newest, parts := l.Epoch(), l.snapshot()
	if newest >= pen.Epoch || p != nil && (p.sealed || p.id.Part != 0) {
		return nil, fmt.Errorf("epoch %d was begun before (newest here %d): %w", pen.Epoch, newest, ErrFenced)
	}
	if pen.Fork.Number == 0 && here > 0 {
		return nil, diverged(l.o.Hub, fmt.Errorf("epoch %d would begin the log anew, but there are records up to %d", pen.Epoch, here))
	}
	lay, err := l.resolve(ctx, pen.Forks, parts)
	if err != nil {
		return nil, err
	}
	if pen.Fork.Number != lay.end.Number {
		return nil, diverged(l.o.Hub, fmt.Errorf("epoch %d goes on from record %d, ours end at %d", pen.Epoch, pen.Fork.Number, lay.end.Number))
	}
	if err := l.checkForks(ctx, pen.Forks, lay); err != nil {
		return nil, err
	}
	if p == nil {
		if p, err = l.create(ctx, l.own(pen.Epoch)); err != nil {
			return nil, err
		}
	}
	if writer != nil {
		writer.die(ErrFenced)
	}
	w := &Writer{l: l, o: o, pen: pen, part: p, id: p.id, last: lay.end}
	w.sync.peerIn = w.mode() != Async && o.InSync.Contains(l.o.Peer)
	data, err := json.Marshal(pen)
	if err != nil {
		return nil, &tandem.Error{Op: "begin an epoch", Kind: tandem.Invalid, On: string(l.o.Hub), Err: err}
	}
	var b Batch
	b.Add(KindPen, data)
	rec, err := b.seal(w.header())
	if err != nil {
		return nil, err
	}
	if err := l.submit(context.WithoutCancel(ctx), w.id, 0, rec.Bytes, o.AppendTimeout); err != nil {
		return nil, err
	}
	l.mu.Lock()
	if lay.end.Fork != l.lay.end.Fork {
		l.forget()
	}
	l.chain, l.lay, l.writer, l.follow = pen.Forks, lay, w, nil
	l.visible = min(l.visible, lay.end.Number)
	l.peer = peerAck{moved: make(chan struct{}, 1)}
	w.hides = w.waits()
	l.mu.Unlock()
	w.first = rec
	w.stored(rec)
	return w, nil
}

func (w *Writer) mode() Mode {
	if w.o.Mode == "" {
		return Async
	}
	return w.o.Mode
}

// Pen is the pen under which this writer appends.
func (w *Writer) Pen() Pen { return w.pen }

// First is the segment's first record, the one with the pen.
func (w *Writer) First() Record { return w.first }

// Valid reports whether the writer may answer now: it was neither closed nor fenced, and the lease holds.
func (w *Writer) Valid() bool { return w.alive() == nil && w.valid() }

// Full reports whether Append refuses a batch now that is not urgent.
func (w *Writer) Full() bool { return usedShare(w.l.o.Store.Space()) >= w.o.RefuseAt }

// header is the next record's, but for counts and hash.
func (w *Writer) header() Header {
	now := w.l.o.Clock.Now()
	if now.Before(w.last.time) {
		now = w.last.time
	}
	return Header{
		Hub: w.id.Hub, Shard: w.id.Shard, Epoch: w.id.Epoch, Number: w.last.Number + 1,
		FirstEntry: w.last.entries, FirstByte: w.last.bytes, Time: now, Prev: w.last.Hash,
	}
}

func (w *Writer) stored(r Record) {
	w.last = markOf(&r)
	w.seq++
	w.l.grew(w.part, r)
}

// die ends the writer, the first time with this reason, and returns the reason.
func (w *Writer) die(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead == nil {
		w.dead = err
	}
	return w.dead
}

func (w *Writer) alive() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dead
}

func (w *Writer) valid() bool { return w.o.Valid == nil || w.o.Valid() }

// Append stores the batch as one record and returns when it is durable, in the sync modes also at the peer, and the lease
// was still valid then. An empty batch becomes a heartbeat. The record that comes with an error is set when it is durable
// here. Errors: ErrFenced (the record may be durable; nobody may be answered), ErrClosed, ErrFull (nothing was
// stored), ErrUncertain (the segment is dead: seal it, read it, claim a new epoch), ErrPeerBehind.
// ctx is not asked while the store has the record: an abandoned append would leave the next one's number in doubt.
func (w *Writer) Append(ctx context.Context, b *Batch) (Record, error) {
	if b == nil || b.Len() == 0 {
		var beat Batch
		beat.Add(KindHeartbeat)
		b = &beat
	}
	return w.append(ctx, b, b.Urgent || !b.hub)
}

func (w *Writer) append(ctx context.Context, b *Batch, urgent bool) (Record, error) {
	if err := w.alive(); err != nil {
		return Record{}, err
	}
	if !w.valid() {
		return Record{}, w.die(ErrFenced)
	}
	if err := ctx.Err(); err != nil {
		return Record{}, &tandem.Error{Op: "append", Kind: tandem.Unavailable, On: string(w.id.Hub), Err: context.Cause(ctx)}
	}
	limit := w.o.RefuseAt
	if urgent {
		limit += urgentRoom
	}
	if usedShare(w.l.o.Store.Space()) >= limit {
		return Record{}, ErrFull
	}
	rec, err := b.seal(w.header())
	if err != nil {
		return Record{}, err
	}
	if err := w.l.submit(context.WithoutCancel(ctx), w.id, w.seq, rec.Bytes, w.o.AppendTimeout); err != nil {
		return Record{}, w.die(err)
	}
	w.stored(rec)
	if w.mode() != Async {
		if err := w.await(ctx, rec.Header.Number); err != nil {
			return rec, err
		}
	}
	if !w.valid() {
		return rec, w.die(ErrFenced)
	}
	if err := w.alive(); err != nil && !errors.Is(err, ErrClosed) {
		return rec, err
	}
	return rec, nil
}

// Close appends CLOSE, which is final for the epoch: every later append gets ErrClosed. The segment is sealed afterwards
// by Log.Run, or by Seal.
func (w *Writer) Close(ctx context.Context, c Close) (Record, error) {
	data, err := json.Marshal(c)
	if err != nil {
		return Record{}, &tandem.Error{Op: "close the epoch", Kind: tandem.Invalid, Err: err}
	}
	var b Batch
	b.Add(KindClose, data)
	rec, err := w.append(ctx, &b, true)
	if rec.Header.Number != 0 {
		w.die(ErrClosed)
		w.l.sealLater(w.id)
	}
	return rec, err
}

func usedShare(s Space) float64 {
	if s.Total <= 0 {
		return 0
	}
	return 1 - float64(s.Free)/float64(s.Total)
}

// submit stores a record and answers only what is certain: nil when it is on disk, ErrFenced when the segment took
// another record or was sealed, ErrUncertain after three submissions of the same bytes without an answer, and ctx's
// cause when ctx ended (a copy may be interrupted; a writer gives a ctx that does not end).
func (l *Log) submit(ctx context.Context, id SegmentID, after uint64, record []byte, timeout time.Duration) error {
	var cause error
	for try := 0; try < 3; try++ {
		attempt, cancel := l.within(ctx, timeout)
		err := l.o.Store.Append(attempt, id, after, record)
		cancel()
		switch {
		case err == nil:
			return nil
		case errors.Is(err, ErrSealed), errors.Is(err, ErrNoSegment):
			return fmt.Errorf("epoch %d: %w: %w", id.Epoch, err, ErrFenced)
		case errors.Is(err, ErrSequence):
			look, cancel := l.within(ctx, timeout)
			mine, err := l.holds(look, id, after+1, record)
			cancel()
			if err == nil && mine {
				return nil
			}
			if err == nil {
				return fmt.Errorf("epoch %d: another record is at sequence %d: %w", id.Epoch, after+1, ErrFenced)
			}
			cause = err
		default:
			cause = err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if try < 2 {
			l.pause(ctx, time.Duration(try+1)*20*time.Millisecond)
		}
	}
	l.logger.Error("the engine leaves an append unanswered", "epoch", uint64(id.Epoch), "after", after, "err", cause)
	return &tandem.Error{Op: ErrUncertain.Op, Kind: tandem.Timeout, On: string(id.Hub), Err: errors.Join(ErrUncertain, cause)}
}

// holds reports whether a sequence of a segment is exactly these bytes.
func (l *Log) holds(ctx context.Context, id SegmentID, sequence uint64, record []byte) (mine bool, err error) {
	seen := false
	err = l.o.Store.Read(ctx, id, sequence, 1, func(at uint64, b []byte) error {
		if at == sequence {
			seen, mine = true, bytes.Equal(b, record)
		}
		return nil
	})
	if err == nil && !seen { // the segment's end lies before it: it lost records that it had acknowledged
		return false, nil
	}
	return mine, err
}

// within bounds ctx by the log's clock.
func (l *Log) within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := l.o.Clock.(tandem.SystemClock); ok {
		return context.WithTimeout(ctx, d)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	expired := l.o.Clock.After(d)
	go func() {
		select {
		case <-expired:
			cancel(context.DeadlineExceeded)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(context.Canceled) }
}

func (l *Log) pause(ctx context.Context, d time.Duration) {
	select {
	case <-l.o.Clock.After(d):
	case <-ctx.Done():
	}
}

// peerAck is what the peer has of our chain, durably.
type peerAck struct {
	number uint64
	at     time.Duration // Clock.Boot
	known  bool
	calls  []func(uint64)
	moved  chan struct{} // holds one token after each advance
}

// PeerAcked is the last record that the peer has durably, how long ago it was last heard of, and false when it was never
// heard of in this life.
func (w *Writer) PeerAcked() (number uint64, age time.Duration, known bool) {
	w.l.mu.RLock()
	defer w.l.mu.RUnlock()
	p := &w.l.peer
	if !p.known {
		return 0, time.Duration(math.MaxInt64), false
	}
	return p.number, w.l.o.Clock.Boot() - p.at, true
}

// OnPeerAck has fn called each time PeerAcked advances. It must not block.
func (w *Writer) OnPeerAck(fn func(number uint64)) {
	w.l.mu.Lock()
	defer w.l.mu.Unlock()
	w.l.peer.calls = append(w.l.peer.calls, fn)
}
