package pairlog_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"tandem"
	"tandem/pairlog"
	"tandem/pairlog/logtest"
)

// solo is one region's log on a store that can fail.
func solo(t *testing.T, m *pairlog.Memory) (*pairlog.Log, *pairlog.Writer) {
	t.Helper()
	l, err := pairlog.Open(t.Context(), pairlog.Options{Hub: logtest.Hub, Region: "west", Peer: "east", Store: m})
	if err != nil {
		t.Fatal(err)
	}
	w, err := l.Begin(t.Context(), pairlog.Pen{Hub: logtest.Hub, Epoch: l.Epoch() + 1, Region: "west", Fork: l.End()},
		pairlog.WriterOptions{AppendTimeout: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	return l, w
}

func batch(text string) *pairlog.Batch {
	var b pairlog.Batch
	b.Add(pairlog.KindTelemetry, []byte(text))
	return &b
}

// The same bytes are submitted again until they are found: a late append never lands beside another one.
func TestUnansweredAppend(t *testing.T) {
	for name, keep := range map[string]bool{"stored, answer lost": true, "not stored": false} {
		t.Run(name, func(t *testing.T) {
			m := pairlog.NewMemory()
			l, w := solo(t, m)
			m.HangAppends(1, keep)
			rec, err := w.Append(t.Context(), batch("a"))
			if err != nil || rec.Header.Number != 2 {
				t.Fatalf("record %d, %v", rec.Header.Number, err)
			}
			if _, err := w.Append(t.Context(), batch("b")); err != nil {
				t.Fatal(err)
			}
			again, err := pairlog.Open(t.Context(), pairlog.Options{Hub: logtest.Hub, Region: "west", Store: m})
			if err != nil || again.End() != l.End() || again.End().Number != 3 {
				t.Fatalf("end %v, %v", again.End(), err)
			}
		})
	}
}

func TestDeadSegment(t *testing.T) {
	m := pairlog.NewMemory()
	l, w := solo(t, m)
	m.SetFull(true)
	if _, err := w.Append(t.Context(), batch("a")); !errors.Is(err, pairlog.ErrUncertain) {
		t.Fatalf("full disk: %v", err)
	}
	m.SetFull(false)
	if _, err := w.Append(t.Context(), batch("b")); !errors.Is(err, pairlog.ErrUncertain) {
		t.Fatalf("a dead segment took another record: %v", err)
	}
	end, err := l.EndCopy(t.Context(), 1)
	if err != nil || end.Number != 1 {
		t.Fatalf("end %v, %v", end, err)
	}
	w, err = l.Begin(t.Context(), pairlog.Pen{Hub: logtest.Hub, Epoch: 2, Region: "west", Fork: end}, pairlog.WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Append(t.Context(), batch("c")); err != nil {
		t.Fatal(err)
	}
}

// The third submission lands, all answers are lost: the record is found only when the sealed segment is read.
func TestUncertainIsFoundAfterSealing(t *testing.T) {
	m := pairlog.NewMemory()
	l, w := solo(t, m)
	m.HangAppends(2, false)
	hang := func() { m.HangAppends(1, true) }
	done := make(chan error, 1)
	go func() { _, err := w.Append(context.Background(), batch("a")); done <- err }()
	time.Sleep(70 * time.Millisecond)
	hang()
	err := <-done
	end, endErr := l.EndCopy(t.Context(), 1)
	if endErr != nil {
		t.Fatal(endErr)
	}
	if errors.Is(err, pairlog.ErrUncertain) && end.Number != 1 && end.Number != 2 || err == nil && end.Number != 2 {
		t.Fatalf("append said %v, the log ends at %v", err, end)
	}
}

func TestForeignRecord(t *testing.T) {
	m := pairlog.NewMemory()
	_, w := solo(t, m)
	id := pairlog.SegmentID{Hub: logtest.Hub, Epoch: 1, Holder: "west"}
	if err := m.Append(t.Context(), id, 1, []byte("somebody else's")); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Append(t.Context(), batch("a")); !errors.Is(err, pairlog.ErrFenced) {
		t.Fatalf("another's record at our sequence: %v", err)
	}
}

func TestRefuseWhenNearlyFull(t *testing.T) {
	m := pairlog.NewMemory()
	_, w := solo(t, m)
	m.SetSpace(pairlog.Space{Total: 1000, Free: 90})
	if _, err := w.Append(t.Context(), batch("a")); !errors.Is(err, pairlog.ErrFull) {
		t.Errorf("at 91 %%: %v", err)
	}
	urgent := batch("revoke")
	urgent.Urgent = true
	m.SetSpace(pairlog.Space{Total: 100000, Free: 9000})
	if _, err := w.Append(t.Context(), urgent); err != nil {
		t.Errorf("urgent at 91 %%: %v", err)
	}
	m.SetSpace(pairlog.Space{Total: 100000, Free: 9000})
	if _, err := w.Append(t.Context(), nil); err != nil {
		t.Errorf("heartbeat at 91 %%: %v", err)
	}
	m.SetSpace(pairlog.Space{Total: 1000, Free: 40})
	if _, err := w.Append(t.Context(), urgent); !errors.Is(err, pairlog.ErrFull) {
		t.Errorf("urgent at 96 %%: %v", err)
	}
	m.SetSpace(pairlog.Space{Total: 1 << 20, Free: 1 << 20})
	if _, err := w.Append(t.Context(), batch("a")); err != nil {
		t.Errorf("with space again: %v", err)
	}
}

// A power cut takes the unsynced end of a segment: the next life sees a shorter log and never writes that segment again.
func TestLostEnd(t *testing.T) {
	m := pairlog.NewMemory()
	_, w := solo(t, m)
	for range 3 {
		if _, err := w.Append(t.Context(), batch("a")); err != nil {
			t.Fatal(err)
		}
	}
	m.SetLazy(true)
	if _, err := w.Append(t.Context(), batch("lost")); err != nil {
		t.Fatal(err)
	}
	m.LoseUnsynced()
	l, w := solo(t, m)
	if pen := w.Pen(); pen.Epoch != 2 || pen.Fork.Number != 4 || l.End().Number != 5 {
		t.Fatalf("pen %+v, end %v", pen, l.End())
	}
}

func TestDamage(t *testing.T) {
	for name, hole := range map[string]bool{"a flipped bit": false, "a hole": true} {
		t.Run(name, func(t *testing.T) {
			m := pairlog.NewMemory()
			l, w := solo(t, m)
			for range 10 {
				if _, err := w.Append(t.Context(), batch("some data")); err != nil {
					t.Fatal(err)
				}
			}
			if !m.Corrupt(pairlog.SegmentID{Hub: logtest.Hub, Epoch: 1, Holder: "west"}, 5, hole) {
				t.Fatal("nothing to damage")
			}
			if err := l.Check(t.Context()); !errors.Is(err, pairlog.ErrDamaged) {
				t.Errorf("check: %v", err)
			}
			open := func(after uint64) (*pairlog.Log, error) {
				return pairlog.Open(t.Context(), pairlog.Options{Hub: logtest.Hub, Region: "west", Store: m, VerifyAfter: after, RecentBytes: 1})
			}
			if _, err := open(0); !errors.Is(err, pairlog.ErrDamaged) || tandem.KindOf(err) != tandem.Damaged {
				t.Errorf("open: %v", err)
			}
			l, err := open(5) // a snapshot vouches for the first five
			if err != nil {
				t.Fatal(err)
			}
			var got uint64
			for after := uint64(0); ; {
				next, err := l.Read(t.Context(), after, 1, func(r pairlog.Record) error { got = r.Header.Number; return nil })
				if errors.Is(err, pairlog.ErrDamaged) {
					break
				}
				if err != nil || next == after {
					t.Fatalf("damage was read over at %d: %v", next, err)
				}
				after = next
			}
			if got != 4 {
				t.Errorf("read %d records before the damage", got)
			}
			if next, err := l.Read(t.Context(), 5, 1<<20, func(pairlog.Record) error { return nil }); err != nil || next != 11 {
				t.Errorf("behind the damage: %d, %v", next, err)
			}
		})
	}
}

// A copy whose store does not answer ends its part and goes on in another one.
func TestFollowerOnAFullDisk(t *testing.T) {
	p := memoryPair(t)
	store := p.B.Store.(*pairlog.Memory)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	a, err := pairlog.Open(ctx, pairlog.Options{Hub: logtest.Hub, Region: "west", Peer: "east", Store: p.A.Store, Link: p.A.Link})
	if err != nil {
		t.Fatal(err)
	}
	go a.Run(ctx)
	w, err := a.Begin(ctx, pairlog.Pen{Hub: logtest.Hub, Epoch: 1, Region: "west"}, pairlog.WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := pairlog.Open(ctx, pairlog.Options{Hub: logtest.Hub, Region: "east", Peer: "west", Store: store, Link: p.B.Link})
	if err != nil {
		t.Fatal(err)
	}
	store.FailAppends(4, &tandem.Error{Op: "append", Kind: tandem.Full})
	if err := b.Follow(ctx, 1, "west"); !errors.Is(err, pairlog.ErrUncertain) {
		t.Fatalf("follow: %v", err)
	}
	if _, err := w.Close(ctx, pairlog.Close{}); err != nil {
		t.Fatal(err)
	}
	if err := b.Follow(ctx, 1, "west"); err != nil {
		t.Fatal(err)
	}
	if b.End() != a.End() {
		t.Errorf("ends %v and %v", a.End(), b.End())
	}
	if ids, _ := store.Segments(ctx, logtest.Hub); len(ids) != 2 {
		t.Errorf("segments %v", ids)
	}
}
