package pairlog_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"tandem"
	"tandem/pairlog"
)

// always is an in-sync set that nobody leaves.
type always struct{}

func (always) Contains(tandem.RegionName) bool                 { return true }
func (always) Remove(context.Context, tandem.RegionName) error { return errors.New("not in this test") }
func (always) Add(context.Context, tandem.RegionName) error    { return nil }

// In sync-strict a record that the peer lacks is hidden. Once this region has ended the epoch and claimed the next after
// that record, it is part of the log: a holder that could not fold it could never open.
func TestWhatAClaimGoesOnFromIsVisible(t *testing.T) {
	const hub, here = "00000000000000aa", "a"
	ctx := t.Context()
	log, err := pairlog.Open(ctx, pairlog.Options{Hub: hub, Region: here, Peer: "b", Store: pairlog.NewMemory()})
	if err != nil {
		t.Fatal(err)
	}
	first := pairlog.Branch{Epoch: 1, Holder: here}
	w, err := log.Begin(ctx, pairlog.Pen{Hub: hub, Epoch: 1, Region: here, Forks: []pairlog.Branch{first}},
		pairlog.WriterOptions{Mode: pairlog.SyncStrict, InSync: always{}, PeerTimeout: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	var b pairlog.Batch
	b.Add(pairlog.KindTelemetry, []byte("hidden"))
	if _, err := w.Append(ctx, &b); !errors.Is(err, pairlog.ErrPeerBehind) {
		t.Fatalf("append without a peer: %v", err)
	}
	end, err := log.EndCopy(ctx, 1)
	if err != nil || end.Number != 2 {
		t.Fatalf("the epoch ends at %d, %v", end.Number, err)
	}
	if log.Visible() == end.Number {
		t.Fatal("it was not hidden: this test shows nothing")
	}
	if err := log.Adopt(ctx, []pairlog.Branch{first, {Epoch: 2, Holder: here, Fork: end}}); err != nil {
		t.Fatal(err)
	}
	if log.Visible() != end.Number {
		t.Fatalf("visible up to %d of %d", log.Visible(), end.Number)
	}
}
