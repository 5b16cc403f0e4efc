// Package logtest is what every pairlog Store and every Log over a Store and a Link does, as one test suite.
package logtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"tandem"
	"tandem/pairlog"
)

// Hub is the hub that the suites write to.
const Hub tandem.HubID = "00000000000000aa"

// RunStore checks the contract of a Store. open returns an empty one; reopen, when not nil, restarts it with what it holds.
func RunStore(t *testing.T, open func(t *testing.T) (s pairlog.Store, reopen func() pairlog.Store)) {
	id := pairlog.SegmentID{Hub: Hub, Epoch: 3, Holder: "west-1", Part: 2}
	body := func(n int) []byte { return bytes.Repeat([]byte{byte(n)}, 100+n) }
	fill := func(t *testing.T, s pairlog.Store, n int) {
		t.Helper()
		must(t, s.Create(t.Context(), id))
		for i := range n {
			must(t, s.Append(t.Context(), id, uint64(i), body(i)))
		}
	}
	read := func(t *testing.T, s pairlog.Store, from uint64, maxBytes int) (at []uint64) {
		t.Helper()
		must(t, s.Read(t.Context(), id, from, maxBytes, func(n uint64, b []byte) error {
			if !bytes.Equal(b, body(int(n-1))) {
				t.Errorf("sequence %d holds other bytes", n)
			}
			at = append(at, n)
			return nil
		}))
		return at
	}
	t.Run("append and read", func(t *testing.T) {
		s, _ := open(t)
		fill(t, s, 5)
		must(t, s.Create(t.Context(), id))
		if got := read(t, s, 2, 1<<20); !slices.Equal(got, []uint64{2, 3, 4, 5}) {
			t.Errorf("read from 2: %v", got)
		}
		if got := read(t, s, 3, 1); !slices.Equal(got, []uint64{3}) {
			t.Errorf("read one: %v", got)
		}
		if got := read(t, s, 6, 1<<20); len(got) != 0 {
			t.Errorf("read past the end: %v", got)
		}
		st, err := s.State(t.Context(), id)
		must(t, err)
		if st.First != 1 || st.Last != 5 || st.Sealed {
			t.Errorf("state %+v", st)
		}
		if sp := s.Space(); sp.Total <= 0 || sp.Free <= 0 || sp.Free > sp.Total {
			t.Errorf("space %+v", sp)
		}
	})
	t.Run("many in one read", func(t *testing.T) {
		s, _ := open(t)
		must(t, s.Create(t.Context(), id))
		big := bytes.Repeat([]byte("x"), 100<<10)
		for i := range 30 {
			must(t, s.Append(t.Context(), id, uint64(i), big))
		}
		var n, size int
		must(t, s.Read(t.Context(), id, 1, 1<<20, func(_ uint64, b []byte) error { n++; size += len(b); return nil }))
		if n < 5 || size > 1<<20 {
			t.Errorf("%d records, %d bytes", n, size)
		}
	})
	t.Run("expected sequence", func(t *testing.T) {
		s, _ := open(t)
		fill(t, s, 2)
		wantErr(t, s.Append(t.Context(), id, 1, body(9)), pairlog.ErrSequence)
		wantErr(t, s.Append(t.Context(), id, 3, body(9)), pairlog.ErrSequence)
		if got := read(t, s, 1, 1<<20); len(got) != 2 {
			t.Errorf("holds %v", got)
		}
	})
	t.Run("absent", func(t *testing.T) {
		s, _ := open(t)
		wantErr(t, s.Append(t.Context(), id, 0, body(0)), pairlog.ErrNoSegment)
		_, err := s.State(t.Context(), id)
		wantErr(t, err, pairlog.ErrNoSegment)
		wantErr(t, s.Read(t.Context(), id, 1, 1, func(uint64, []byte) error { return nil }), pairlog.ErrNoSegment)
		wantErr(t, s.Seal(t.Context(), id), pairlog.ErrNoSegment)
		must(t, s.Delete(t.Context(), id))
	})
	t.Run("seal", func(t *testing.T) {
		s, reopen := open(t)
		fill(t, s, 2)
		must(t, s.Seal(t.Context(), id))
		must(t, s.Seal(t.Context(), id))
		must(t, s.Create(t.Context(), id))
		wantErr(t, s.Append(t.Context(), id, 2, body(2)), pairlog.ErrSealed)
		if kind := tandem.KindOf(s.Trim(t.Context(), id, 2)); kind != tandem.Unsupported {
			t.Errorf("trim of a sealed segment: %v", kind)
		}
		if reopen != nil {
			s = reopen()
		}
		wantErr(t, s.Append(t.Context(), id, 2, body(2)), pairlog.ErrSealed)
		if got := read(t, s, 1, 1<<20); len(got) != 2 {
			t.Errorf("holds %v", got)
		}
	})
	t.Run("restart", func(t *testing.T) {
		s, reopen := open(t)
		if reopen == nil {
			t.Skip("this store does not restart")
		}
		fill(t, s, 3)
		s = reopen()
		if got := read(t, s, 1, 1<<20); len(got) != 3 {
			t.Errorf("holds %v", got)
		}
		must(t, s.Append(t.Context(), id, 3, body(3)))
	})
	t.Run("trim, delete, list", func(t *testing.T) {
		s, _ := open(t)
		fill(t, s, 6)
		must(t, s.Trim(t.Context(), id, 4))
		st, err := s.State(t.Context(), id)
		must(t, err)
		if st.First != 4 || st.Last != 6 {
			t.Errorf("state after trim %+v", st)
		}
		must(t, s.Append(t.Context(), id, 6, body(6)))
		must(t, s.Trim(t.Context(), id, 8))
		if st, err = s.State(t.Context(), id); err != nil || st.First != 8 || st.Last != 7 {
			t.Errorf("state of the emptied segment %+v, %v", st, err)
		}
		other := id
		other.Hub = "00000000000000bb"
		must(t, s.Create(t.Context(), other))
		ids, err := s.Segments(t.Context(), Hub)
		must(t, err)
		if !slices.Equal(ids, []pairlog.SegmentID{id}) {
			t.Errorf("segments %v", ids)
		}
		if ids, err = s.Segments(t.Context(), ""); err != nil || len(ids) != 2 {
			t.Errorf("all segments %v, %v", ids, err)
		}
		must(t, s.Delete(t.Context(), id))
		if ids, err = s.Segments(t.Context(), Hub); err != nil || len(ids) != 0 {
			t.Errorf("segments after delete %v, %v", ids, err)
		}
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error is %v, want %v", err, want)
	}
}

// eventually asks until it holds, for at most ten seconds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatal("never: " + what)
}

func payload(n int) []byte { return fmt.Appendf(nil, "entry %d", n) }

func background(t testing.TB, fn func(context.Context) error) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- fn(ctx) }()
	var err error
	stopped := false
	stop = func() error {
		cancel()
		if !stopped {
			stopped = true
			select {
			case err = <-done:
			case <-time.After(10 * time.Second):
				t.Error("a goroutine does not end")
			}
		}
		return err
	}
	t.Cleanup(func() { stop() })
	return stop
}
