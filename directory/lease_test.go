package directory_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tandem"
	"tandem/directory"
	"tandem/directory/directorytest"
)

const ttl = directory.DefaultTTL

func TestSightings(t *testing.T) {
	type look struct {
		revision       directory.Revision
		sent, answered time.Duration
	}
	steady := func(n int, revision directory.Revision, from time.Duration) []look {
		var looks []look
		for i := range n {
			at := from + time.Duration(i)*time.Second
			looks = append(looks, look{revision, at, at + 10*time.Millisecond})
		}
		return looks
	}
	for _, test := range []struct {
		name   string
		looks  []look
		after  time.Duration // asked this long after the last answer
		lapsed bool
	}{
		{"nothing seen", nil, 0, false},
		{"one look", []look{{7, 0, time.Hour}}, 0, false},
		{"unchanged for the TTL and less than the margin", steady(4, 7, 0), 0, false},
		{"unchanged for the TTL and the margin", steady(5, 7, 0), 0, true},
		{"a lease that never was", steady(5, 0, 0), 0, true},
		{"renewed in the middle", append(steady(3, 7, 0), steady(4, 8, 3*time.Second)...), 0, false},
		{"a gap in the reads", append(steady(4, 7, 0), steady(4, 7, 4600*time.Millisecond)...), 0, false},
		{"no gap", append(steady(4, 7, 0), steady(1, 7, 4400*time.Millisecond)...), 0, true},
		{"seen long ago", steady(5, 7, 0), ttl/2 + time.Millisecond, false},
		{"the first answer was slow: it may be as young as that", []look{
			{7, 0, 1400 * time.Millisecond}, {7, 1500 * time.Millisecond, 2500 * time.Millisecond},
			{7, 3 * time.Second, 3100 * time.Millisecond}, {7, 4 * time.Second, 4100 * time.Millisecond},
		}, 0, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			var s directory.Sightings
			for _, l := range test.looks {
				s = s.See(l.revision, l.sent, l.answered, ttl)
			}
			if got := s.Lapsed(s.Last+test.after, ttl); got != test.lapsed {
				t.Fatalf("lapsed %t after %+v, want %t", got, s, test.lapsed)
			}
		})
	}
}

// slowStore lets the clock run while a commit is under way.
type slowStore struct {
	directory.Store
	clock *directorytest.Clock
	delay time.Duration
}

func (s *slowStore) Commit(ctx context.Context, txn directory.Txn) (directory.Committed, error) {
	done, err := s.Store.Commit(ctx, txn)
	s.clock.Advance(s.delay)
	return done, err
}

func holder(t *testing.T) (*directory.Holder, *directory.MemoryClient, *directorytest.Clock, *slowStore) {
	t.Helper()
	clock := directorytest.NewClock()
	memory := directory.NewMemory().Client("westus2")
	store := &slowStore{Store: memory, clock: clock}
	h := directory.NewHolder(store, clock, directory.HolderOptions{Incarnation: "a"})
	if h.Valid() || h.Term().Context().Err() == nil {
		t.Fatal("valid before the first renewal")
	}
	return h, memory, clock, store
}

func renew(t *testing.T, h *directory.Holder) *directory.Term {
	t.Helper()
	if err := h.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	return h.Term()
}

func TestTermCountsFromBeforeSending(t *testing.T) {
	h, _, clock, store := holder(t)
	store.delay = time.Second
	sent := clock.Boot()
	term := renew(t, h)
	if term.Deadline() != sent+ttl {
		t.Fatalf("deadline %v, want %v", term.Deadline(), sent+ttl)
	}
	clock.Advance(ttl - time.Second - 1)
	if !term.Valid() {
		t.Fatal("invalid before the deadline")
	}
	clock.Advance(1)
	if term.Valid() || !errors.Is(context.Cause(term.Context()), directory.ErrFenced) || term.Deadline() != 0 {
		t.Fatalf("at the deadline: valid %t, context %v", term.Valid(), context.Cause(term.Context()))
	}
}

func TestRenewalTooLate(t *testing.T) {
	h, _, _, store := holder(t)
	store.delay = ttl
	renew(t, h)
	if h.Valid() {
		t.Fatal("valid by a renewal that took the whole TTL")
	}
}

func TestTermStaysEnded(t *testing.T) {
	h, _, clock, _ := holder(t)
	first := renew(t, h)
	clock.Advance(ttl / 2)
	if renew(t, h) != first || first.Deadline() != clock.Boot()+ttl {
		t.Fatal("a renewal in time did not extend the term")
	}
	clock.Advance(ttl) // nobody asks meanwhile, as in a paused process
	second := renew(t, h)
	if first.Valid() || first.Context().Err() == nil {
		t.Fatal("a lapsed term came back to life")
	}
	if second == first || !second.Valid() {
		t.Fatal("no new term after the lapse")
	}
}

func TestRenewAfterLostAnswer(t *testing.T) {
	h, memory, clock, _ := holder(t)
	memory.LoseAnswers(1)
	if err := h.Renew(t.Context()); tandem.KindOf(err) != tandem.Timeout || h.Valid() {
		t.Fatalf("Renew without an answer: %v, valid %t", err, h.Valid())
	}
	term := renew(t, h)
	memory.LoseAnswers(1)
	clock.Advance(ttl / 4)
	before := term.Deadline()
	if err := h.Renew(t.Context()); tandem.KindOf(err) != tandem.Timeout || term.Deadline() != before {
		t.Fatalf("an unknown renewal moved the deadline: %v", err)
	}
	if renew(t, h) != term || term.Deadline() != clock.Boot()+ttl {
		t.Fatal("the term was not extended")
	}
}

func TestCutHolderLapses(t *testing.T) {
	h, memory, clock, _ := holder(t)
	term := renew(t, h)
	memory.Cut()
	clock.Advance(ttl / 4)
	if err := h.Renew(t.Context()); tandem.KindOf(err) != tandem.Unavailable || !term.Valid() {
		t.Fatalf("Renew while cut: %v, valid %t", err, term.Valid())
	}
	clock.Advance(ttl)
	if term.Valid() {
		t.Fatal("valid without renewals")
	}
}

func TestResign(t *testing.T) {
	h, memory, clock, _ := holder(t)
	term := renew(t, h)
	if err := h.Resign(t.Context()); err != nil || term.Valid() {
		t.Fatalf("Resign: %v, valid %t", err, term.Valid())
	}
	if err := h.Renew(t.Context()); !errors.Is(err, directory.ErrFenced) {
		t.Fatalf("Renew after Resign: %v", err)
	}
	if s, err := directory.NewTaker(memory, clock, "b", 0).Observe(t.Context(), "a"); err != nil || !s.Fenced {
		t.Fatalf("Observe = %+v, %v", s, err)
	}
}

func TestFenceFormer(t *testing.T) {
	h, memory, _, _ := holder(t)
	term := renew(t, h)
	for range 2 {
		if err := directory.FenceFormer(t.Context(), memory, "a", "a2"); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Renew(t.Context()); !errors.Is(err, directory.ErrFenced) || term.Valid() {
		t.Fatalf("Renew after the fence: %v, valid %t", err, term.Valid())
	}
}

func TestFenceLosesAgainstRenewal(t *testing.T) {
	h, memory, clock, _ := holder(t)
	renew(t, h)
	taker := directory.NewTaker(memory, clock, "b", 0)
	for range 6 {
		if _, err := taker.Observe(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		clock.Advance(ttl / 4)
	}
	renew(t, h)
	if err := taker.Fence(t.Context(), "a"); !errors.Is(err, directory.ErrAlive) {
		t.Fatalf("Fence after a late renewal: %v", err)
	}
	if s, err := taker.Observe(t.Context(), "a"); err != nil || s.Unchanged != 0 || s.Fenced {
		t.Fatalf("Observe = %+v, %v, want a new count", s, err)
	}
}

func TestLeaseCarriesAcked(t *testing.T) {
	clock := directorytest.NewClock()
	memory := directory.NewMemory().Client("westus2")
	want := directory.Acked{Epoch: 3, Number: 99, AgeMS: 12}
	h := directory.NewHolder(memory, clock, directory.HolderOptions{
		Incarnation: "a", Acked: func() map[tandem.HubID]directory.Acked { return map[tandem.HubID]directory.Acked{"h1": want} },
	})
	renew(t, h)
	s, err := directory.NewTaker(memory, clock, "b", 0).Observe(t.Context(), "a")
	if err != nil || s.Lease.Acked["h1"] != want || s.Lease.Counter != 1 {
		t.Fatalf("Observe = %+v, %v", s, err)
	}
}

// bubble is the clock of a synctest bubble.
type bubble struct{ began time.Time }

func (b bubble) Now() time.Time                         { return time.Now() }
func (b bubble) Boot() time.Duration                    { return time.Since(b.began) }
func (b bubble) After(d time.Duration) <-chan time.Time { return time.After(d) }

func TestKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := directory.NewMemory()
		client := memory.Client("westus2")
		h := directory.NewHolder(client, bubble{time.Now()}, directory.HolderOptions{Incarnation: "a"})
		var sick atomic.Bool
		kept := make(chan error, 1)
		go func() {
			kept <- h.Keep(t.Context(), func(context.Context) error {
				if sick.Load() {
					return errors.New("the disk does not answer")
				}
				return nil
			})
		}()
		time.Sleep(10 * ttl)
		first := h.Term()
		if !first.Valid() {
			t.Fatal("not kept")
		}
		sick.Store(true)
		time.Sleep(2*ttl + ttl/2)
		if first.Context().Err() == nil {
			t.Fatal("kept without a proof of work, or its end was not told")
		}
		sick.Store(false)
		time.Sleep(ttl)
		second := h.Term()
		if second == first || !second.Valid() {
			t.Fatal("no new term once work was proved again")
		}
		client.Cut()
		time.Sleep(ttl / 2)
		client.Join()
		time.Sleep(ttl / 2)
		if !second.Valid() {
			t.Fatal("a short cut ended the term")
		}
		client.Cut()
		time.Sleep(ttl + time.Millisecond)
		if second.Context().Err() == nil {
			t.Fatal("the term outlived a long cut")
		}
		client.Join()
		if err := directory.FenceFormer(t.Context(), memory.Client("westcentralus"), "a", "b"); err != nil {
			t.Fatal(err)
		}
		if err := <-kept; !errors.Is(err, directory.ErrFenced) {
			t.Fatalf("Keep after the fence: %v", err)
		}
	})
}

func TestKeepWithHungProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := directory.NewHolder(directory.NewMemory().Client("a"), bubble{time.Now()}, directory.HolderOptions{Incarnation: "a"})
		ctx, cancel := context.WithCancel(t.Context())
		calls := 0
		kept := make(chan error, 1)
		go func() {
			kept <- h.Keep(ctx, func(ctx context.Context) error {
				if calls++; calls > 1 {
					<-ctx.Done()
				}
				return ctx.Err()
			})
		}()
		time.Sleep(ttl)
		if !h.Valid() {
			t.Fatal("not kept")
		}
		time.Sleep(ttl + ttl/2)
		if h.Valid() {
			t.Fatal("kept while the probe hangs")
		}
		cancel()
		if err := <-kept; err != nil || h.Term().Context().Err() == nil {
			t.Fatalf("Keep after its context ended: %v", err)
		}
	})
}

func BenchmarkValid(b *testing.B) {
	h := directory.NewHolder(directory.NewMemory().Client("a"), tandem.SystemClock{}, directory.HolderOptions{TTL: time.Hour})
	if err := h.Renew(b.Context()); err != nil {
		b.Fatal(err)
	}
	term := h.Term()
	for b.Loop() {
		if !term.Valid() {
			b.Fatal("lapsed")
		}
	}
}
