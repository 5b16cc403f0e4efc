package pairlog_test

import (
	"errors"
	"testing"

	"tandem"
	"tandem/directory"
	"tandem/pairlog"
	"tandem/pairlog/logtest"
)

func pen(epoch tandem.Epoch, region tandem.RegionName, who tandem.Incarnation) pairlog.Pen {
	return pairlog.Pen{Hub: logtest.Hub, Epoch: epoch, Region: region, Incarnation: who}
}

func TestClaim(t *testing.T) {
	ctx, m := t.Context(), directory.NewMemory()
	west, east := m.Client("west"), m.Client("east")
	if _, _, err := pairlog.ReadPen(ctx, west, logtest.Hub); !errors.Is(err, pairlog.ErrNoPen) || tandem.KindOf(err) != tandem.NotFound {
		t.Fatalf("no pen yet: %v", err)
	}
	p, rev, err := pairlog.ClaimPen(ctx, west, pairlog.Claim{Pen: pen(1, "west", "w1"), Self: "w1"})
	if err != nil || p.State != pairlog.PenClaimed {
		t.Fatalf("%+v, %v", p, err)
	}
	if _, _, err := pairlog.ClaimPen(ctx, east, pairlog.Claim{Pen: pen(1, "east", "e1"), Self: "e1"}); !errors.Is(err, pairlog.ErrClaimLost) {
		t.Errorf("the second first claim: %v", err)
	}
	opened, err := pairlog.OpenPen(ctx, west, p, rev)
	if err != nil {
		t.Fatal(err)
	}
	if got, at, err := pairlog.ReadPen(ctx, east, logtest.Hub); err != nil || at != opened || got.State != pairlog.PenOpen || got.Epoch != 1 {
		t.Errorf("%+v at %d, %v", got, at, err)
	}
	for name, c := range map[string]pairlog.Claim{
		"the same epoch":      {Pen: pen(1, "east", "e1"), PenRevision: opened},
		"an old revision":     {Pen: pen(2, "east", "e1"), PenRevision: rev},
		"an absent fence":     {Pen: pen(2, "east", "e1"), PenRevision: opened, Fenced: "w1"},
		"another in-sync set": {Pen: pen(2, "east", "e1"), PenRevision: opened, InSyncRevision: 77},
	} {
		if _, _, err := pairlog.ClaimPen(ctx, east, c); !errors.Is(err, pairlog.ErrClaimLost) {
			t.Errorf("%s: %v", name, err)
		}
	}
	fence(t, west, "w1")
	if _, err := pairlog.OpenPen(ctx, west, p, opened); !errors.Is(err, pairlog.ErrClaimLost) {
		t.Errorf("a fenced holder opens: %v", err)
	}
	fence(t, west, "e0")
	if _, _, err := pairlog.ClaimPen(ctx, east, pairlog.Claim{Pen: pen(2, "east", "e0"), PenRevision: opened, Fenced: "w1", Self: "e0"}); !errors.Is(err, pairlog.ErrClaimLost) {
		t.Errorf("a fenced claimant: %v", err)
	}
	set := pairlog.InSyncSet{Regions: []tandem.RegionName{"east"}, Mode: pairlog.SyncAvailable}
	p, rev, err = pairlog.ClaimPen(ctx, east, pairlog.Claim{Pen: pen(2, "east", "e1"), PenRevision: opened, Fenced: "w1", Self: "e1", InSync: &set})
	if err != nil || p.Epoch != 2 {
		t.Fatalf("%+v, %v", p, err)
	}
	testInSync(t, east, p, rev)
}

func fence(t *testing.T, dir directory.Store, who tandem.Incarnation) {
	t.Helper()
	done, err := dir.Commit(t.Context(), directory.Txn{Then: []directory.Change{{Key: directory.FenceKey(who), Value: []byte("{}")}}})
	if err != nil || !done.OK {
		t.Fatal(err)
	}
}

func testInSync(t *testing.T, dir *directory.MemoryClient, p pairlog.Pen, rev directory.Revision) {
	ctx := t.Context()
	set := pairlog.NewInSync(dir, logtest.Hub, p, rev, p.Incarnation)
	if got, err := set.Load(ctx); err != nil || !set.Contains("east") || set.Contains("west") || got.Mode != pairlog.SyncAvailable {
		t.Fatalf("%+v, %v", got, err)
	}
	if err := set.Add(ctx, "west"); err != nil || !set.Contains("west") {
		t.Fatal(err)
	}
	if err := set.Remove(ctx, "west"); err != nil || set.Contains("west") {
		t.Fatal(err)
	}
	if got, _, err := pairlog.ReadInSync(ctx, dir, logtest.Hub); err != nil || len(got.Regions) != 1 || got.Mode != pairlog.SyncAvailable {
		t.Errorf("%+v, %v", got, err)
	}
	rev, err := pairlog.OpenPen(ctx, dir, p, rev)
	if err != nil {
		t.Fatal(err)
	}
	if err := set.Remove(ctx, "west"); !errors.Is(err, pairlog.ErrFenced) {
		t.Errorf("with an old pen: %v", err)
	}
	set.SetPen(rev)
	if err := set.Add(ctx, "west"); err != nil {
		t.Error(err)
	}
	fence(t, dir, p.Incarnation)
	if err := set.Remove(ctx, "west"); !errors.Is(err, pairlog.ErrFenced) || tandem.KindOf(err) != tandem.Fenced || !set.Contains("west") {
		t.Errorf("fenced: %v", err)
	}
}
