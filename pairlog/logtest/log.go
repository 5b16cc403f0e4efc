package logtest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"tandem"
	"tandem/pairlog"
)

// A Pair is two regions whose logs are tested. Cut and Join work on the link between them.
type Pair struct {
	A, B Side
	Cut  func()
	Join func()
}

// A Side is one region. Reopen restarts its store; nil: the store goes on.
type Side struct {
	Region tandem.RegionName
	Store  pairlog.Store
	Link   pairlog.Link
	Reopen func() pairlog.Store
}

// side is a Side with its log open.
type side struct {
	Side
	t    testing.TB
	peer tandem.RegionName
	log  *pairlog.Log
	stop func() error
	w    *pairlog.Writer
}

func (s *side) open() *side {
	s.t.Helper()
	l, err := pairlog.Open(s.t.Context(), pairlog.Options{Hub: Hub, Region: s.Region, Peer: s.peer, Store: s.Store, Link: s.Link})
	must(s.t, err)
	s.log, s.stop = l, background(s.t, l.Run)
	return s
}

// restart ends the log's life and begins another on the same store.
func (s *side) restart() {
	s.t.Helper()
	s.stop()
	s.w = nil
	if s.Reopen != nil {
		s.Store = s.Reopen()
	}
	s.open()
}

func (s *side) begin(epoch tandem.Epoch, o pairlog.WriterOptions) {
	s.t.Helper()
	w, err := s.log.Begin(s.t.Context(), pairlog.Pen{
		Hub: Hub, Epoch: epoch, Region: s.Region, Node: "n", Incarnation: "i", Fork: s.log.End(), Time: time.Unix(1, 0).UTC(),
	}, o)
	must(s.t, err)
	s.w = w
}

func (s *side) append(n int) {
	s.t.Helper()
	for i := range n {
		var b pairlog.Batch
		b.Add(pairlog.KindTelemetry, payload(i))
		b.Add(pairlog.KindFirstOfHub, payload(i), payload(i))
		_, err := s.w.Append(s.t.Context(), &b)
		must(s.t, err)
	}
}

func (s *side) follow(epoch tandem.Epoch) (stop func() error, done <-chan error) {
	out := make(chan error, 1)
	stop = background(s.t, func(ctx context.Context) error {
		err := s.log.Follow(ctx, epoch, s.peer)
		out <- err
		return err
	})
	return stop, out
}

// hashes are the chain as it is read, by number.
func (s *side) hashes() map[uint64]pairlog.Hash {
	s.t.Helper()
	all := make(map[uint64]pairlog.Hash)
	for after := s.log.Begins().Number; ; {
		next, err := s.log.Read(s.t.Context(), after, 64<<10, func(r pairlog.Record) error {
			all[r.Header.Number] = r.Header.Hash
			return nil
		})
		must(s.t, err)
		if next == after {
			return all
		}
		after = next
	}
}

func (s *side) caughtUp(with *side) {
	s.t.Helper()
	eventually(s.t, "caught up", func() bool { return s.log.End() == with.log.End() })
}

func same(t testing.TB, a, b *side) {
	t.Helper()
	x, y := a.hashes(), b.hashes()
	if len(x) != len(y) || len(x) == 0 {
		t.Fatalf("%d records here, %d there", len(x), len(y))
	}
	for n, h := range x {
		if y[n] != h {
			t.Fatalf("record %d differs", n)
		}
	}
}

// RunLog checks what Log and Writer do over any Store and Link. pair returns two empty regions joined by a link.
func RunLog(t *testing.T, pair func(t *testing.T) Pair) {
	start := func(t *testing.T) (a, b *side, p Pair) {
		p = pair(t)
		a = (&side{Side: p.A, t: t, peer: p.B.Region}).open()
		b = (&side{Side: p.B, t: t, peer: p.A.Region}).open()
		return a, b, p
	}
	for name, test := range map[string]func(*testing.T, *side, *side, Pair){
		"append, read, restart":       testRestart,
		"follow and lag":              testFollow,
		"cut and heal":                testCut,
		"close ends the follower":     testClose,
		"end of the copy":             testEndCopy,
		"fork and tail":               testFork,
		"adopt a fork with a tail":    testAdoptTail,
		"older epochs are pulled":     testOlder,
		"fetch what was lost":         testFetch,
		"diverged history is refused": testDiverged,
		"sync available":              testSyncAvailable,
		"sync strict":                 testSyncStrict,
		"trim":                        testTrim,
		"resume":                      testResume,
		"lease ends":                  testLease,
		"an epoch is begun once":      testBeginOnce,
		"readers keep up":             testReaders,
	} {
		t.Run(name, func(t *testing.T) {
			a, b, p := start(t)
			test(t, a, b, p)
		})
	}
}

func testRestart(t *testing.T, a, _ *side, _ Pair) {
	must(t, a.log.Prepare(t.Context(), 1))
	a.begin(1, pairlog.WriterOptions{})
	a.append(20)
	before := a.hashes()
	if len(before) != 21 || a.log.End().Number != 21 || a.log.Visible() != 21 || a.log.Epoch() != 1 {
		t.Fatalf("%d records, end %v", len(before), a.log.End())
	}
	end, at := a.log.End(), a.log.EndTime()
	a.restart()
	if a.log.End() != end || !a.log.EndTime().Equal(at) || a.log.Epoch() != 1 {
		t.Errorf("end after restart %v, was %v", a.log.End(), end)
	}
	after := a.hashes()
	for n, h := range before {
		if after[n] != h {
			t.Errorf("record %d changed", n)
		}
	}
	a.begin(2, pairlog.WriterOptions{})
	a.append(3)
	if got := a.hashes(); len(got) != 25 || got[7] != before[7] {
		t.Errorf("%d records after the second epoch", len(got))
	}
	a.restart()
	if got := a.hashes(); len(got) != 25 {
		t.Errorf("%d records after another restart", len(got))
	}
	must(t, a.log.Check(t.Context()))
	var entries int
	_, err := a.log.Read(t.Context(), 1, 1, func(r pairlog.Record) error {
		for i, e := range r.Entries() {
			if int(i) != entries || len(e.Data) == 0 {
				t.Errorf("entry %d: %+v", i, e)
			}
			entries++
		}
		return nil
	})
	if err != nil || entries != 2 {
		t.Errorf("%d entries, %v", entries, err)
	}
}

func testFollow(t *testing.T, a, b *side, _ Pair) {
	a.begin(1, pairlog.WriterOptions{})
	a.append(50)
	stop, _ := b.follow(1)
	b.caughtUp(a)
	a.append(5)
	b.caughtUp(a)
	same(t, a, b)
	eventually(t, "acknowledged", func() bool { n, _, known := a.w.PeerAcked(); return known && n == a.log.End().Number })
	eventually(t, "lag known to be zero", func() bool { return b.log.Lag().Known && b.log.Lag().Records == 0 && b.log.Lag().Bytes == 0 })
	stop()
	b.restart()
	stop, _ = b.follow(1)
	a.append(5)
	b.caughtUp(a)
	same(t, a, b)
	stop()
	b.restart()
	b.log.Check(t.Context())
	same(t, a, b)
}

func testCut(t *testing.T, a, b *side, p Pair) {
	a.begin(1, pairlog.WriterOptions{})
	stop, _ := b.follow(1)
	a.append(5)
	b.caughtUp(a)
	p.Cut()
	eventually(t, "link is seen as down", func() bool { return !b.Link.Up() })
	was := b.log.End()
	a.append(200)
	if b.log.End() != was {
		t.Error("records came over a cut link")
	}
	p.Join()
	b.caughtUp(a)
	eventually(t, "link is seen as up", func() bool { return a.Link.Up() && b.Link.Up() })
	same(t, a, b)
	stop()
}

func testClose(t *testing.T, a, b *side, _ Pair) {
	a.begin(1, pairlog.WriterOptions{})
	_, done := b.follow(1)
	a.append(5)
	_, err := a.w.Close(t.Context(), pairlog.Close{Successor: b.Region})
	must(t, err)
	_, err = a.w.Append(t.Context(), nil)
	wantErr(t, err, pairlog.ErrClosed)
	must(t, within(t, done))
	if b.log.End() != a.log.End() {
		t.Errorf("ends %v and %v", a.log.End(), b.log.End())
	}
	must(t, b.log.Follow(t.Context(), 1, a.Region)) // says so again
	b.begin(2, pairlog.WriterOptions{})
	_, done = a.follow(2)
	b.append(5)
	a.caughtUp(b)
	same(t, a, b)
	tails, err := a.log.Tails(t.Context())
	if err != nil || len(tails) != 0 {
		t.Errorf("tails %v, %v", tails, err)
	}
	_, err = b.w.Close(t.Context(), pairlog.Close{})
	must(t, err)
	must(t, within(t, done))
	a.begin(3, pairlog.WriterOptions{})
	a.append(1)
	a.restart()
	b.restart()
	stop, _ := b.follow(3)
	b.caughtUp(a)
	same(t, a, b)
	stop()
	eventually(t, "the closed segment is sealed", func() bool {
		st, err := a.Store.State(t.Context(), pairlog.SegmentID{Hub: Hub, Epoch: 1, Holder: a.Region})
		return err == nil && st.Sealed
	})
}

func within(t testing.TB, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("it does not end")
		return nil
	}
}

// testEndCopy is fence before fork: what the holder appends after the copy has ended is neither stored nor acknowledged.
func testEndCopy(t *testing.T, a, b *side, _ Pair) {
	a.begin(1, pairlog.WriterOptions{})
	_, done := b.follow(1)
	a.append(10)
	b.caughtUp(a)
	var fork pairlog.Fork
	var one sync.WaitGroup
	one.Go(func() { a.append(30) })
	fork, err := b.log.EndCopy(t.Context(), 1)
	must(t, err)
	one.Wait()
	wantErr(t, within(t, done), pairlog.ErrCopyEnded)
	if b.log.End() != fork || fork.Number < 11 {
		t.Errorf("fork %v, end %v", fork, b.log.End())
	}
	a.append(3)
	if n, _, _ := a.w.PeerAcked(); n > fork.Number {
		t.Errorf("record %d acknowledged beyond the fork %d", n, fork.Number)
	}
	again, err := b.log.EndCopy(t.Context(), 1)
	if err != nil || again != fork {
		t.Errorf("again: %v, %v", again, err)
	}
	wantErr(t, b.log.Follow(t.Context(), 1, a.Region), pairlog.ErrCopyEnded)
	b.restart()
	wantErr(t, b.log.Follow(t.Context(), 1, a.Region), pairlog.ErrCopyEnded)
	if b.log.End() != fork {
		t.Errorf("end after restart %v", b.log.End())
	}
	if got := b.hashes(); uint64(len(got)) != fork.Number {
		t.Errorf("%d records", len(got))
	}
}

func testFork(t *testing.T, a, b *side, _ Pair) {
	a.begin(1, pairlog.WriterOptions{})
	stop, _ := b.follow(1)
	a.append(10)
	b.caughtUp(a)
	stop()
	a.append(7) // only here
	fork, err := b.log.EndCopy(t.Context(), 1)
	must(t, err)
	b.begin(2, pairlog.WriterOptions{})
	b.append(4)
	// a is told by the directory.
	must(t, a.log.Adopt(t.Context(), b.log.Branches()))
	if a.log.End() != fork || a.log.Visible() != fork.Number {
		t.Errorf("end %v, fork %v", a.log.End(), fork)
	}
	checkTail(t, a, fork)
	stop, _ = a.follow(2)
	a.caughtUp(b)
	same(t, a, b)
	checkTail(t, a, fork)
	stop()
	a.restart()
	same(t, a, b)
	checkTail(t, a, fork)
	must(t, a.log.Check(t.Context()))
	if kind := tandem.KindOf(a.log.DropTail(t.Context(), 1)); kind != tandem.Conflict {
		t.Errorf("dropping a tail whose segment is in use: %v", kind)
	}
}

func checkTail(t *testing.T, a *side, fork pairlog.Fork) {
	t.Helper()
	tails, err := a.log.Tails(t.Context())
	must(t, err)
	if len(tails) != 1 || tails[0].Epoch != 1 || tails[0].Holder != a.Region || tails[0].First != fork.Number+1 ||
		tails[0].Records != 7 || tails[0].Entries != 14 || tails[0].Bytes == 0 {
		t.Fatalf("tails %+v", tails)
	}
	n := fork.Number
	must(t, a.log.Tail(t.Context(), 1, func(r pairlog.Record) error {
		if n++; r.Header.Number != n {
			t.Errorf("tail gives %d, want %d", r.Header.Number, n)
		}
		return nil
	}))
	if n != fork.Number+7 {
		t.Errorf("tail ended at %d", n)
	}
}

// testAdoptTail: the old holder was ahead, and learns of the fork only by following.
func testAdoptTail(t *testing.T, a, b *side, _ Pair) {
	a.begin(1, pairlog.WriterOptions{})
	stop, _ := b.follow(1)
	a.append(3)
	b.caughtUp(a)
	stop()
	a.append(7)
	fork, err := b.log.EndCopy(t.Context(), 1)
	must(t, err)
	a.restart()
	must(t, a.log.Seal(t.Context(), 1))
	stop, _ = a.follow(2) // before the epoch exists
	b.begin(2, pairlog.WriterOptions{})
	b.append(10)
	a.caughtUp(b)
	same(t, a, b)
	checkTail(t, a, fork)
	stop()
}

// testOlder: the follower was away over a whole epoch, and over its fork.
func testOlder(t *testing.T, a, b *side, _ Pair) {
	a.begin(1, pairlog.WriterOptions{})
	stop, _ := b.follow(1)
	a.append(3)
	b.caughtUp(a)
	stop()
	_, err := b.log.EndCopy(t.Context(), 1) // a claim that fails
	must(t, err)
	a.append(4)
	a.restart()
	a.begin(2, pairlog.WriterOptions{})
	a.append(4)
	a.restart()
	a.begin(3, pairlog.WriterOptions{})
	a.append(4)
	stop, _ = b.follow(3)
	b.caughtUp(a)
	same(t, a, b)
	stop()
	b.restart()
	same(t, a, b)
	must(t, b.log.Check(t.Context()))
	wantErr(t, b.log.Follow(t.Context(), 2, a.Region), pairlog.ErrCopyEnded)
}

// testFetch: the holder comes back without its last records, which its peer has.
func testFetch(t *testing.T, a, b *side, p Pair) {
	a.begin(1, pairlog.WriterOptions{})
	stop, _ := b.follow(1)
	a.append(10)
	b.caughtUp(a)
	stop()
	want := a.log.End()
	a.stop()
	// The same segment, cut: made anew in a store of its own with the first records only.
	id := pairlog.SegmentID{Hub: Hub, Epoch: 1, Holder: a.Region}
	var kept [][]byte
	must(t, a.Store.Read(t.Context(), id, 1, 1<<20, func(at uint64, rec []byte) error {
		if at <= 6 {
			kept = append(kept, slices.Clone(rec))
		}
		return nil
	}))
	must(t, a.Store.Delete(t.Context(), id))
	must(t, a.Store.Create(t.Context(), id))
	for i, rec := range kept {
		must(t, a.Store.Append(t.Context(), id, uint64(i), rec))
	}
	a.open()
	if a.log.End().Number != 6 {
		t.Fatalf("end %v", a.log.End())
	}
	end, err := a.log.EndCopy(t.Context(), 1)
	if err != nil || end.Number != 6 {
		t.Fatalf("own end %v, %v", end, err)
	}
	peer, err := a.log.Peer(t.Context())
	if err != nil || !peer.HasOurs || peer.Last != want.Number || peer.Epoch != 1 {
		t.Fatalf("peer %+v, %v", peer, err)
	}
	end, err = a.log.Fetch(t.Context(), 1, a.Region)
	if err != nil || end != want {
		t.Fatalf("fetched up to %v, %v", end, err)
	}
	if end, err = a.log.EndCopy(t.Context(), 1); err != nil || end != want {
		t.Fatalf("own end after fetch %v, %v", end, err)
	}
	a.begin(2, pairlog.WriterOptions{})
	a.append(2)
	a.restart()
	stop, _ = b.follow(2)
	b.caughtUp(a)
	same(t, a, b)
	stop()
}

func testDiverged(t *testing.T, a, b *side, _ Pair) {
	a.begin(1, pairlog.WriterOptions{})
	stop, _ := b.follow(1)
	a.append(3)
	b.caughtUp(a)
	stop()
	was := b.log.End()
	a.stop() // its disk is lost, and the same epoch is written once more
	must(t, a.Store.Delete(t.Context(), pairlog.SegmentID{Hub: Hub, Epoch: 1, Holder: a.Region}))
	a.open()
	a.begin(1, pairlog.WriterOptions{})
	for _, n := range []int{0, 9} { // shorter and longer than what b has
		a.append(n)
		_, done := b.follow(1)
		wantErr(t, within(t, done), pairlog.ErrDiverged)
	}
	_, err := b.log.Begin(t.Context(), pairlog.Pen{Hub: Hub, Epoch: 5, Region: b.Region, Fork: a.log.End()}, pairlog.WriterOptions{})
	wantErr(t, err, pairlog.ErrDiverged)
	wrong := was
	wrong.Hash[0]++
	wantErr(t, b.log.Adopt(t.Context(), []pairlog.Branch{{Epoch: 1, Holder: a.Region}, {Epoch: 2, Holder: a.Region, Fork: wrong}}), pairlog.ErrDiverged)
	wantErr(t, b.log.Adopt(t.Context(), []pairlog.Branch{{Epoch: 1, Holder: b.Region}}), pairlog.ErrDiverged)
	if b.log.End() != was {
		t.Error("a refusal changed the log")
	}
}

// inSync is an in-sync set as the directory would keep it.
type inSync struct {
	mu      sync.Mutex
	in      map[tandem.RegionName]bool
	removed int
	refuse  error
}

func (s *inSync) Contains(r tandem.RegionName) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.in[r]
}

func (s *inSync) Remove(_ context.Context, r tandem.RegionName) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse != nil {
		return s.refuse
	}
	s.removed++
	s.in[r] = false
	return nil
}

func (s *inSync) Add(_ context.Context, r tandem.RegionName) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.in[r] = true
	return s.refuse
}

// slow is a store whose disk takes its time, so that an acknowledgement before the disk's shows.
type slow struct{ pairlog.Store }

func (s slow) Append(ctx context.Context, id pairlog.SegmentID, after uint64, record []byte) error {
	time.Sleep(5 * time.Millisecond)
	return s.Store.Append(ctx, id, after, record)
}

func testSyncAvailable(t *testing.T, a, b *side, p Pair) {
	b.stop()
	b.Store = slow{b.Store}
	b.open()
	set := &inSync{in: map[tandem.RegionName]bool{a.Region: true, b.Region: true}}
	a.begin(1, pairlog.WriterOptions{Mode: pairlog.SyncAvailable, InSync: set, PeerTimeout: 300 * time.Millisecond})
	if a.log.Visible() != 0 {
		t.Errorf("record %d is visible before the peer has it", a.log.Visible())
	}
	b.follow(1)
	eventually(t, "the PEN is visible", func() bool { return a.log.Visible() == 1 })
	for range 10 {
		rec, err := a.w.Append(t.Context(), nil)
		must(t, err)
		if b.log.End().Number < rec.Header.Number {
			t.Fatal("answered before the peer had it")
		}
	}
	p.Cut()
	rec, err := a.w.Append(t.Context(), nil)
	must(t, err)
	if set.Contains(b.Region) || set.removed != 1 {
		t.Error("answered alone while the peer was in the set")
	}
	if a.log.Visible() != rec.Header.Number {
		t.Errorf("visible %d, appended %d", a.log.Visible(), rec.Header.Number)
	}
	p.Join()
	eventually(t, "the peer is back in the set", func() bool {
		_, err := a.w.Append(t.Context(), nil)
		must(t, err)
		return set.Contains(b.Region)
	})
	rec, err = a.w.Append(t.Context(), nil)
	must(t, err)
	if b.log.End().Number < rec.Header.Number {
		t.Error("answered before the rejoined peer had it")
	}
	p.Cut()
	set.mu.Lock()
	set.refuse = pairlog.ErrFenced
	set.mu.Unlock()
	_, err = a.w.Append(t.Context(), nil)
	wantErr(t, err, pairlog.ErrFenced)
	if a.log.Visible() >= a.log.End().Number {
		t.Error("a record that nobody else has is visible to readers of a fenced holder")
	}
}

func testSyncStrict(t *testing.T, a, b *side, p Pair) {
	set := &inSync{in: map[tandem.RegionName]bool{a.Region: true, b.Region: true}}
	a.begin(1, pairlog.WriterOptions{Mode: pairlog.SyncStrict, InSync: set, PeerTimeout: 300 * time.Millisecond})
	b.follow(1)
	_, err := a.w.Append(t.Context(), nil)
	must(t, err)
	p.Cut()
	rec, err := a.w.Append(t.Context(), nil)
	wantErr(t, err, pairlog.ErrPeerBehind)
	if rec.Header.Number == 0 || a.log.Visible() >= rec.Header.Number || set.removed != 0 {
		t.Errorf("record %d, visible %d", rec.Header.Number, a.log.Visible())
	}
	p.Join()
	eventually(t, "answers again", func() bool { _, err := a.w.Append(t.Context(), nil); return err == nil })
	same(t, a, b)
}

func testTrim(t *testing.T, a, b *side, _ Pair) {
	a.begin(1, pairlog.WriterOptions{})
	a.append(20)
	must(t, a.log.Trim(t.Context(), 10))
	if a.log.Begins().Number != 10 {
		t.Errorf("begins after %v", a.log.Begins())
	}
	_, err := a.log.Read(t.Context(), 5, 1, func(pairlog.Record) error { return nil })
	wantErr(t, err, pairlog.ErrBehindTrim)
	_, done := b.follow(1)
	wantErr(t, within(t, done), pairlog.ErrBehindTrim)
	must(t, b.log.Reseed(t.Context(), a.log.Begins()))
	stop, _ := b.follow(1)
	b.caughtUp(a)
	same(t, a, b)
	a.append(3)
	b.caughtUp(a)
	must(t, b.log.Trim(t.Context(), 15))
	must(t, a.log.Trim(t.Context(), 15))
	stop()
	a.restart()
	b.restart()
	if a.log.Begins().Number != 15 || b.log.Begins().Number != 15 || a.log.End().Number != 24 {
		t.Errorf("begin after %v and %v, end %v", a.log.Begins(), b.log.Begins(), a.log.End())
	}
	a.begin(2, pairlog.WriterOptions{})
	a.append(3)
	stop, _ = b.follow(2)
	b.caughtUp(a)
	same(t, a, b)
	must(t, a.log.Trim(t.Context(), 26))
	a.append(1)
	if n := a.log.Begins().Number; n != 26 {
		t.Errorf("begins after %d", n)
	}
	ids, err := a.Store.Segments(t.Context(), Hub)
	if err != nil || len(ids) != 1 {
		t.Errorf("segments %v, %v", ids, err)
	}
	b.caughtUp(a)
	stop()
	a.restart()
	must(t, a.log.Trim(t.Context(), 1000))
	if a.log.End().Number != 29 || a.log.Begins().Number != 28 {
		t.Errorf("trim beyond the end left %v to %v", a.log.Begins(), a.log.End())
	}
}

func testResume(t *testing.T, a, b *side, _ Pair) {
	a.begin(1, pairlog.WriterOptions{})
	_, err := b.log.EndCopy(t.Context(), 1) // nothing is there yet
	must(t, err)
	b.restart()
	wantErr(t, b.log.Follow(t.Context(), 1, a.Region), pairlog.ErrCopyEnded)
	must(t, b.log.Resume(t.Context(), 1))
	stop, done := b.follow(1)
	a.append(5)
	b.caughtUp(a)
	_, err = b.log.EndCopy(t.Context(), 1)
	must(t, err)
	wantErr(t, within(t, done), pairlog.ErrCopyEnded)
	stop()
	must(t, b.log.Resume(t.Context(), 1))
	stop, _ = b.follow(1)
	a.append(5)
	b.caughtUp(a)
	same(t, a, b)
	stop()
	b.restart()
	same(t, a, b)
}

func testLease(t *testing.T, a, _ *side, _ Pair) {
	asked := 0
	a.begin(1, pairlog.WriterOptions{Valid: func() bool { asked++; return asked < 4 }})
	_, err := a.w.Append(t.Context(), nil)
	must(t, err)
	rec, err := a.w.Append(t.Context(), nil) // the lease ends while it is stored
	wantErr(t, err, pairlog.ErrFenced)
	if rec.Header.Number != 3 || a.log.End().Number != 3 {
		t.Errorf("record %d, end %v", rec.Header.Number, a.log.End())
	}
	_, err = a.w.Append(t.Context(), nil)
	wantErr(t, err, pairlog.ErrFenced)
	if a.log.End().Number != 3 {
		t.Error("appended without a lease")
	}
}

func testBeginOnce(t *testing.T, a, _ *side, _ Pair) {
	a.begin(1, pairlog.WriterOptions{})
	a.append(1)
	a.restart()
	for _, epoch := range []tandem.Epoch{1} {
		_, err := a.log.Begin(t.Context(), pairlog.Pen{Hub: Hub, Epoch: epoch, Region: a.Region, Fork: a.log.End()}, pairlog.WriterOptions{})
		wantErr(t, err, pairlog.ErrFenced)
	}
	a.begin(2, pairlog.WriterOptions{})
	must(t, a.log.Seal(t.Context(), 2))
	_, err := a.w.Append(t.Context(), nil)
	wantErr(t, err, pairlog.ErrFenced)
}

// testReaders reads along while records are appended here and followed there.
func testReaders(t *testing.T, a, b *side, _ Pair) {
	a.begin(1, pairlog.WriterOptions{})
	b.follow(1)
	const last = 101
	var readers sync.WaitGroup
	for _, s := range []*side{a, b} {
		readers.Go(func() {
			for n := uint64(0); n < last; {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				err := s.log.Wait(ctx, n)
				cancel()
				if err != nil {
					t.Errorf("wait after %d: %v", n, err)
					return
				}
				next, err := s.log.Read(t.Context(), n, 1<<20, func(r pairlog.Record) error {
					if r.Header.Number != n+1 {
						return errors.New("out of order")
					}
					n++
					return nil
				})
				if err != nil || next != n {
					t.Errorf("read: %d, %v", next, err)
					return
				}
			}
		})
	}
	a.append(last - 1)
	readers.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := a.log.Wait(ctx, last); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait for what does not come: %v", err)
	}
}
