package hub_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tandem"
	"tandem/hub"
	"tandem/pairlog"
)

// eager makes everything that a replica does in minutes and days happen in a moment.
func eager(o *hub.ReplicaOptions) {
	o.Retention = 100 * time.Millisecond
	o.Upkeep = hub.Upkeep{Every: 5 * time.Millisecond, SnapshotEvery: 20 * time.Millisecond, TrimEvery: 10 * time.Millisecond,
		HoldFor: time.Hour, ReseedBytes: 1 << 30}
}

// send writes n messages of a device, large enough that the index has points in between.
func (p *pair) send(region tandem.RegionName, id tandem.DeviceID, from, n int) {
	p.t.Helper()
	var s sender
	pad := strings.Repeat("x", 60<<10)
	for i := range n {
		m := hub.Message{MessageID: fmt.Sprint(from + i), Body: []byte(pad)}
		c := &hub.Command{Op: hub.OpTelemetry, Device: id, Body: hub.AppendMessage(nil, &m)}
		if err := p.handle(region).Submit(p.t.Context(), c, &s, uint64(i)); err != nil {
			p.t.Fatal(err)
		}
	}
	eventually(p.t, "all sent", func() bool { return s.resolved() == n })
	if len(s.failures) > 0 {
		p.t.Fatal(s.failures[0])
	}
}

func (p *pair) facts(region tandem.RegionName) hub.Facts { return p.regions[region].replica.Facts() }

// begins is the record after which the region's log begins.
func (p *pair) begins(region tandem.RegionName) uint64 {
	return hub.LogOf(p.regions[region].replica).Begins().Number
}

// same waits until both views are at the same record; a planned move then compares their roots.
func (p *pair) same() {
	p.t.Helper()
	eventually(p.t, "both views are at the same record", func() bool {
		a, b := p.facts("a"), p.facts("b")
		return a.Applied == b.Applied && a.End == b.End
	})
}

func TestBothRegionsTrim(t *testing.T) {
	p := newPair(t, eager)
	p.device("a", "d")
	p.send("a", "d", 0, 100)
	first := p.facts("a").Applied.Number
	time.Sleep(100 * time.Millisecond)
	eventually(t, "both logs are trimmed", func() bool { return p.begins("a") > first/2 && p.begins("b") > first/2 })
	for region := range p.regions {
		for _, s := range hub.ViewOf(p.regions[region].replica).Snapshots() {
			if !s.Complete {
				t.Errorf("%s has an incomplete snapshot", region)
			}
		}
		eventually(t, "few snapshots are kept", func() bool { return len(hub.ViewOf(p.regions[region].replica).Snapshots()) <= 3 })
	}
	p.send("a", "d", 100, 20)
	reader, err := p.handle("b").Events(t.Context(), hub.EventStart{Partition: -1})
	if err != nil {
		t.Fatal(err)
	}
	if e, more, err := reader.Poll(t.Context()); !errors.Is(err, pairlog.ErrBehindTrim) && (err != nil || more && e.Message.MessageID == "0") {
		t.Fatalf("the first event is %v, %v", e, err)
	}
	p.same()
	p.move("b")
	p.same()
	p.move("a")
}

func TestRollbackAfterTrim(t *testing.T) {
	p := newPair(t, eager)
	p.device("a", "kept")
	p.send("a", "kept", 0, 60)
	eventually(t, "both logs are trimmed", func() bool { return p.begins("a") > 0 && p.begins("b") > 0 })
	p.same()
	p.net.Cut("a", "b")
	p.device("a", "stranded")
	p.send("a", "kept", 60, 60) // and snapshots of a state that will not be
	at := p.facts("a").Applied.Number
	eventually(t, "a has a snapshot beyond the fork", func() bool {
		snaps := hub.ViewOf(p.regions["a"].replica).Snapshots()
		return snaps[len(snaps)-1].Fork.Number >= at
	})
	p.regions["a"].replica.Fence()
	fork, err := p.regions["b"].replica.EndCopy(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	p.net.Join("a", "b")
	p.claim("b", 2, fork, true)
	p.same()
	if f := p.facts("a"); f.NeedsReseed || f.Damaged != "" {
		t.Fatalf("after the rollback: %+v", f)
	}
	if _, err := p.handle("a").Device(t.Context(), "stranded"); !errors.Is(err, hub.ErrDeviceNotFound) {
		t.Fatalf("the stranded device: %v", err)
	}
	for _, s := range hub.ViewOf(p.regions["a"].replica).Snapshots() {
		if s.Fork.Epoch == 1 && s.Fork.Number > fork.Number {
			eventually(t, "snapshots outside the chain go", func() bool {
				for _, now := range hub.ViewOf(p.regions["a"].replica).Snapshots() {
					if now.Fork == s.Fork {
						return false
					}
				}
				return true
			})
		}
	}
	p.move("a")
}

// leaveBehind lets b be away until a has trimmed what b lacks.
func leaveBehind(t *testing.T, p *pair) {
	t.Helper()
	p.device("a", "early")
	p.send("a", "early", 0, 10)
	p.same()
	p.regions["b"].stop()
	end := hub.LogOf(p.regions["b"].replica).End().Number
	p.device("a", "later")
	p.send("a", "early", 10, 100)
	eventually(t, "a trims without b", func() bool { return p.begins("a") > end })
}

// impatient leaves a dark peer behind at once.
func impatient(o *hub.ReplicaOptions) {
	eager(o)
	o.Upkeep.HoldFor, o.Upkeep.HoldShare = time.Millisecond, 0.000001
}

func TestReseedAfterALongAbsence(t *testing.T) {
	p := newPair(t, impatient)
	var mu sync.Mutex
	var left []hub.PeerLeftBehind
	var reseeded []hub.Reseeded
	p.notify = func(n tandem.Notice) {
		mu.Lock()
		defer mu.Unlock()
		switch n := n.(type) {
		case hub.PeerLeftBehind:
			left = append(left, n)
		case hub.Reseeded:
			reseeded = append(reseeded, n)
		}
	}
	leaveBehind(t, p)
	mu.Lock()
	if len(left) == 0 || left[0].Peer != "b" {
		t.Errorf("nobody was told that b is left behind: %v", left)
	}
	mu.Unlock()
	p.reopen("b")
	p.same()
	if p.facts("b").NeedsReseed {
		t.Error("b still needs a reseed")
	}
	mu.Lock()
	if len(reseeded) == 0 || reseeded[0].Region != "b" {
		t.Errorf("reseeds: %v", reseeded)
	}
	mu.Unlock()
	if _, err := hub.ViewOf(p.regions["b"].replica).Device("later"); err != nil {
		t.Fatal(err)
	}
	p.device("a", "latest")
	p.same()
	p.move("b") // the roots are equal
	p.device("b", "new")
	p.same()
	p.move("a")
}

func TestReseedOfALostView(t *testing.T) {
	p := newPair(t, eager)
	p.device("a", "d")
	p.send("a", "d", 0, 60)
	eventually(t, "both logs are trimmed", func() bool { return p.begins("a") > 0 && p.begins("b") > 0 })
	p.same()
	p.regions["b"].stop()
	if err := os.RemoveAll(p.regions["b"].dir); err != nil {
		t.Fatal(err)
	}
	p.reopen("b")
	p.device("a", "e")
	p.same()
	p.move("b")
}

// A damaged live database goes on from the region's own snapshot, without the peer.
func TestDamagedViewTakesItsOwnSnapshot(t *testing.T) {
	p := newPair(t, eager)
	p.device("a", "d")
	p.send("a", "d", 0, 60)
	eventually(t, "both logs are trimmed", func() bool { return p.begins("a") > 0 && p.begins("b") > 0 })
	p.same()
	p.regions["b"].stop()
	manifests, err := filepath.Glob(filepath.Join(p.regions["b"].dir, "*", "live", "MANIFEST-*"))
	if err != nil || len(manifests) == 0 {
		t.Fatal(manifests, err)
	}
	for _, m := range manifests {
		if err := os.WriteFile(m, []byte("not a manifest"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.net.Cut("a", "b")
	p.reopen("b")
	eventually(t, "b is where its log ends", func() bool { f := p.facts("b"); return f.Applied == f.End && f.Applied.Number > 0 })
	p.net.Join("a", "b")
	p.same()
	p.move("b")
}

func TestReseedSurvivesKillsAnywhere(t *testing.T) {
	p := newPair(t, func(o *hub.ReplicaOptions) { impatient(o); o.Upkeep.ReseedBytes = 2 << 20 })
	for i := range 40 { // so that a snapshot is more than one chunk
		p.bulk("a", i*100)
	}
	leaveBehind(t, p)
	for kill := range 6 {
		p.reopen("b")
		if kill == 2 {
			p.net.Cut("a", "b")
			time.AfterFunc(20*time.Millisecond, func() { p.net.Join("a", "b") })
		}
		time.Sleep(time.Duration(kill*kill*20) * time.Millisecond)
		p.regions["b"].stop()
	}
	p.net.Join("a", "b")
	p.reopen("b")
	p.device("a", "latest")
	p.same()
	eventually(t, "nothing is left of the reseed", func() bool {
		left, err := filepath.Glob(filepath.Join(p.regions["b"].dir, "*", "reseed.json"))
		return err == nil && len(left) == 0
	})
	p.move("b")
}

// Between the view's reseed and the copy's catching up the holder is lost: the view is the newest state there is.
func TestForcedMoveInTheMiddleOfAReseed(t *testing.T) {
	p := newPair(t, func(o *hub.ReplicaOptions) { impatient(o); o.Retention = time.Second })
	leaveBehind(t, p)
	p.send("a", "early", 110, 10) // not old yet: the log begins before the newest snapshot
	at := p.facts("a").Applied.Number
	eventually(t, "a has a new snapshot", func() bool {
		snaps := hub.ViewOf(p.regions["a"].replica).Snapshots()
		return snaps[len(snaps)-1].Fork.Number >= at
	})
	store := p.regions["b"].store
	store.SetFull(true) // the copy can't take the log, the view comes from files
	p.reopen("b")
	eventually(t, "b's view is reseeded", func() bool {
		f := p.facts("b")
		return !f.NeedsReseed && f.Applied.Number > f.End.Number
	})
	p.net.Cut("a", "b")
	p.regions["a"].replica.Fence()
	store.SetFull(false)
	view := p.facts("b").Applied
	fork, err := p.regions["b"].replica.EndCopy(t.Context(), 1)
	if err != nil || fork != view {
		t.Fatalf("the fork is %v, the view is at %v, %v", fork, view, err)
	}
	p.claimOnly("b", 2, fork)
	p.device("b", "after")
	p.regions["b"].stop()
	p.reopenFenced("b")
	if f := p.facts("b"); f.End.Number <= view.Number || f.NeedsReseed {
		t.Fatalf("after a restart: %+v", f)
	}
}

func TestFullDiskRefusesWritesAndLetsRightsBeTaken(t *testing.T) {
	p := newPair(t)
	p.device("a", "here")
	p.device("b", "there")
	p.same()
	store := p.regions["a"].store
	space := store.Space()
	store.SetSpace(pairlog.Space{Total: space.Total, Free: space.Total * 8 / 100})
	for _, region := range []tandem.RegionName{"a", "b"} {
		eventually(t, "the door refuses", func() bool {
			_, err := p.handle(region).Do(t.Context(), telemetry("here", 1))
			if err != nil && !errors.Is(err, pairlog.ErrFull) {
				t.Fatalf("refused with %v", err)
			}
			return err != nil && tandem.KindOf(err).Retriable()
		})
	}
	if _, err := p.handle("b").Do(t.Context(), &hub.Command{Op: hub.OpDeviceDelete, Device: "there", IfMatch: "*"}); err != nil {
		t.Fatalf("a delete on a full disk: %v", err)
	}
	if _, err := p.handle("a").Do(t.Context(), create("more")); !errors.Is(err, pairlog.ErrFull) {
		t.Fatalf("a new device on a full disk: %v", err)
	}
	store.SetSpace(space)
	for _, region := range []tandem.RegionName{"a", "b"} {
		eventually(t, "writing goes on", func() bool {
			_, err := p.handle(region).Do(t.Context(), telemetry("here", 2))
			return err == nil
		})
	}
	store.SetSpace(pairlog.Space{Total: space.Total, Free: space.Total * 8 / 100})
	eventually(t, "the disk is full again", func() bool { return p.facts("a").Full })
	p.move("b") // CLOSE may use the last room
	if _, err := p.handle("a").Do(t.Context(), telemetry("here", 3)); err != nil {
		t.Fatalf("after the move to a region with room: %v", err)
	}
}

// bulk creates 100 devices.
func (p *pair) bulk(region tandem.RegionName, from int) {
	p.t.Helper()
	var changes []hub.DeviceChange
	for i := range 100 {
		changes = append(changes, hub.DeviceChange{Op: hub.OpDeviceCreate, ID: fmt.Sprintf("device-%d-%s", from+i, strings.Repeat("n", 90)),
			Auth: hub.Auth{PrimaryKey: []byte(fmt.Sprintf("%d", from*i)), SecondaryKey: []byte("k2")}})
	}
	if _, err := p.handle(region).Do(p.t.Context(), &hub.Command{Op: hub.OpBulk, Body: hub.AppendBulk(nil, changes)}); err != nil {
		p.t.Fatal(err)
	}
}

// reopen is the region's next life: it follows whoever has the pen.
func (p *pair) reopen(region tandem.RegionName) {
	p.t.Helper()
	p.reopenFenced(region)
	if err := p.regions[region].replica.FollowPen(context.Background(), p.pen); err != nil {
		p.t.Fatal(err)
	}
}

func (p *pair) reopenFenced(region tandem.RegionName) {
	p.t.Helper()
	old := p.regions[region]
	p.openAt(region, old.peer, old.store, old.dir)
}

// A tail is kept for its time, over restarts, and then goes.
func TestTailsAreKeptForTheirTime(t *testing.T) {
	keep := time.Hour
	p := newPair(t, eager, func(o *hub.ReplicaOptions) { o.Upkeep.TailsFor = keep })
	p.device("a", "d")
	p.same()
	p.net.Cut("a", "b")
	p.send("a", "d", 0, 5)
	p.regions["a"].replica.Fence()
	fork, err := p.regions["b"].replica.EndCopy(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	p.net.Join("a", "b")
	p.claim("b", 2, fork, true)
	p.send("b", "d", 10, 60)
	tails := func() int {
		tails, err := p.regions["a"].replica.Tails(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return len(tails)
	}
	eventually(t, "the time of the tail is noted", func() bool {
		noted, err := filepath.Glob(filepath.Join(p.regions["a"].dir, "*", "tails.json"))
		return err == nil && len(noted) == 1
	})
	eventually(t, "a trims", func() bool { return p.begins("a") > fork.Number })
	if tails() != 1 {
		t.Fatal("the tail went before its time")
	}
	p.regions["a"].stop()
	keep = 50 * time.Millisecond
	p.reopen("a")
	eventually(t, "the tail goes", func() bool { return tails() == 0 })
	p.same()
	p.move("a")
}
