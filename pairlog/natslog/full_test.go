package natslog_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"tandem/pairlog"
	"tandem/pairlog/logtest"
	"tandem/pairlog/natslog"
)

// TestFullDisk needs an otherwise empty small file system, named by TANDEM_TEST_SMALL_DISK: it fills it up.
func TestFullDisk(t *testing.T) {
	small := os.Getenv("TANDEM_TEST_SMALL_DISK")
	if small == "" {
		t.Skip("TANDEM_TEST_SMALL_DISK names no file system")
	}
	r := &region{t: t, o: natslog.Options{Region: "west", StoreDir: filepath.Join(small, "store")}}
	r.start()
	ballast := filepath.Join(small, "ballast")
	t.Cleanup(func() { os.Remove(ballast) })
	open := func() *pairlog.Log {
		l, err := pairlog.Open(t.Context(), pairlog.Options{Hub: logtest.Hub, Region: "west", Peer: "east", Store: r.s.Store(), Link: r.s.Link()})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	l := open()
	claim := func(epoch uint64, o pairlog.WriterOptions) (*pairlog.Writer, error) {
		return l.Begin(t.Context(), pairlog.Pen{Hub: logtest.Hub, Epoch: l.Epoch() + 1, Region: "west", Fork: l.End()}, o)
	}
	w, err := claim(1, pairlog.WriterOptions{RefuseAt: 2, AppendTimeout: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ballast, make([]byte, r.s.Store().Space().Free-6<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	var acked uint64
	for range 1000 {
		rec, e := w.Append(context.Background(), randomBatch(1000))
		if err = e; err != nil {
			break
		}
		acked = rec.Header.Number
	}
	if !errors.Is(err, pairlog.ErrUncertain) {
		t.Fatalf("a full disk gives %v", err)
	}
	t.Logf("the engine took %d records, then: %v", acked, err)
	os.Remove(ballast)
	end, err := l.EndCopy(t.Context(), 1)
	t.Logf("end of the dead segment: %v, %v", end.Number, err)
	if err != nil || end.Number < acked {
		r.restart() // the engine's last resort
		l = open()
		if end, err = l.EndCopy(t.Context(), 1); err != nil || end.Number < acked {
			t.Fatalf("end %v after restart, acknowledged %d, %v", end, acked, err)
		}
	}
	if w, err = claim(2, pairlog.WriterOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Append(t.Context(), randomBatch(10)); err != nil {
		t.Fatal(err)
	}
}
