package hub_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"tandem"
	"tandem/directory"
	"tandem/hub"
	"tandem/pairlog"
)

// stuckCopy is a link over which a region cannot copy the log, while everything else gets through.
type stuckCopy struct {
	pairlog.Link
	stuck *atomic.Bool
}

func (l stuckCopy) Request(ctx context.Context, to tandem.RegionName, subject string, data []byte) ([]byte, error) {
	if l.stuck.Load() && strings.HasPrefix(subject, "log.") {
		return nil, &tandem.Error{Op: "ask the peer region", Kind: tandem.Unavailable, Err: errors.New("the copy is stuck")}
	}
	return l.Link.Request(ctx, to, subject, data)
}

func (l stuckCopy) Send(to tandem.RegionName, subject string, data []byte) error {
	if l.stuck.Load() && strings.HasPrefix(subject, "log.") {
		return nil
	}
	return l.Link.Send(to, subject, data)
}

func newStuckPair(t *testing.T) (*pair, *atomic.Bool) {
	stuck := new(atomic.Bool)
	return newPair(t, func(o *hub.ReplicaOptions) { o.Link = stuckCopy{o.Link, stuck} }), stuck
}

func (p *pair) revoked() (ids []string) {
	p.t.Helper()
	items, _, err := p.dir.Client("test").List(p.t.Context(), directory.RevokedPrefix(hubID))
	if err != nil {
		p.t.Fatal(err)
	}
	for _, item := range items {
		ids = append(ids, strings.TrimPrefix(item.Key, directory.RevokedPrefix(hubID)))
	}
	return ids
}

func (p *pair) inStep() {
	p.t.Helper()
	eventually(p.t, "b is where a is", func() bool { return p.regions["b"].replica.Facts().Applied == p.regions["a"].replica.Facts().Applied })
}

// forced moves the pen to b without a.
func (p *pair) forced() {
	p.t.Helper()
	p.regions["a"].replica.Fence()
	fork, err := p.regions["b"].replica.EndCopy(p.t.Context(), p.pen.Epoch)
	if err != nil {
		p.t.Fatal(err)
	}
	p.claim("b", p.pen.Epoch+1, fork, true)
}

func update(id tandem.DeviceID, status hub.Status, reason, key string) *hub.Command {
	return &hub.Command{Op: hub.OpDeviceUpdate, Device: id, IfMatch: "*", Body: hub.AppendDeviceChange(nil, &hub.DeviceChange{
		Op: hub.OpDeviceUpdate, ID: string(id), IfMatch: "*", Status: status, StatusReason: reason,
		Auth: hub.Auth{Type: hub.AuthSAS, PrimaryKey: []byte(key), SecondaryKey: []byte("k2")},
	})}
}

// A delete through the other region's door is as safe as one through the holder's.
func TestRevocationThroughTheOtherDoor(t *testing.T) {
	p, stuck := newStuckPair(t)
	p.device("a", "stolen")
	p.inStep()
	stuck.Store(true)
	if _, err := p.handle("b").Do(t.Context(), &hub.Command{Op: hub.OpDeviceDelete, Device: "stolen", IfMatch: "*"}); err != nil {
		t.Fatal(err)
	}
	if got := p.revoked(); len(got) != 1 || got[0] != "stolen" {
		t.Fatalf("revocations in the directory: %q", got)
	}
}

// Only what takes a right away waits for the other region or the directory.
func TestPlainChangesAreNotConfirmed(t *testing.T) {
	p, stuck := newStuckPair(t)
	for _, id := range []tandem.DeviceID{"d", "e", "f"} {
		p.device("a", id)
	}
	p.inStep()
	stuck.Store(true)
	for _, region := range []tandem.RegionName{"a", "b"} {
		if _, err := p.handle(region).Do(t.Context(), update("d", hub.Enabled, "checked by "+string(region), "k1")); err != nil {
			t.Fatal(err)
		}
	}
	bulk := hub.AppendBulk(nil, []hub.DeviceChange{
		{Op: hub.OpDeviceUpdate, ID: "d", IfMatch: "*", StatusReason: "still good", Auth: hub.Auth{Type: hub.AuthSAS, PrimaryKey: []byte("k1"), SecondaryKey: []byte("k2")}},
		{Op: hub.OpDeviceDelete, ID: "nobody"},
		{Op: hub.OpDeviceUpdate, ID: "e", IfMatch: "*", Status: hub.Disabled, Auth: hub.Auth{Type: hub.AuthSAS, PrimaryKey: []byte("k1"), SecondaryKey: []byte("k2")}},
	})
	if got := p.revoked(); len(got) != 0 {
		t.Fatalf("revocations for plain changes: %q", got)
	}
	o, err := p.handle("b").Do(t.Context(), &hub.Command{Op: hub.OpBulk, Body: bulk})
	if err != nil || len(o.Bulk) != 3 || o.Bulk[0] != nil || o.Bulk[2] != nil || !errors.Is(o.Bulk[1], hub.ErrDeviceNotFound) {
		t.Fatalf("bulk: %v, %v", o.Bulk, err)
	}
	if got := p.revoked(); len(got) != 1 || got[0] != "e" {
		t.Fatalf("revocations: %q, want that of the device which was disabled", got)
	}
	if _, err := p.handle("a").Do(t.Context(), update("f", hub.Enabled, "", "another key")); err != nil {
		t.Fatal(err)
	}
	if got := p.revoked(); len(got) != 2 {
		t.Fatalf("revocations after a key was replaced: %q", got)
	}
}

// What was brought back once is not brought back again after the device was changed anew.
func TestRevocationIsAppliedOnce(t *testing.T) {
	p := newPair(t)
	p.device("a", "d")
	p.inStep()
	p.net.Cut("a", "b")
	if _, err := p.handle("a").Do(t.Context(), update("d", hub.Disabled, "", "k1")); err != nil {
		t.Fatal(err)
	}
	p.forced()
	b := p.regions["b"].replica
	if d, err := p.handle("b").Device(t.Context(), "d"); err != nil || d.Status != hub.Disabled {
		t.Fatalf("the device after a forced move: %v, %v", d.Status, err)
	}
	if _, err := p.handle("b").Do(t.Context(), update("d", hub.Enabled, "", "k1")); err != nil {
		t.Fatal(err)
	}
	b.Fence() // its lease lapsed, say; a is still dark
	fork, err := b.EndCopy(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	p.claimOnly("b", 3, fork)
	if d, err := p.handle("b").Device(t.Context(), "d"); err != nil || d.Status != hub.Enabled {
		t.Fatalf("the device that was enabled again: %v, %v", d.Status, err)
	}
}

// A change that a forced failover lost before it was confirmed is not confirmed by the new holder.
func TestLostChangeIsNotConfirmed(t *testing.T) {
	p := newPair(t)
	p.device("a", "d")
	p.inStep()
	p.net.Cut("a", "b")
	lost := p.regions["a"].replica.Facts().End.Number + 1
	if _, err := p.handle("a").Do(t.Context(), telemetry("d", 1)); err != nil {
		t.Fatal(err)
	}
	p.net.Join("a", "b")
	p.forced()
	if stands, err := hub.Confirm(p.regions["b"].replica, 1, lost, "d"); err != nil || stands {
		t.Errorf("a lost change: stands %v, %v", stands, err)
	}
	if stands, err := hub.Confirm(p.regions["b"].replica, 1, lost-1, "d"); err != nil || !stands {
		t.Errorf("a change that the log has: stands %v, %v", stands, err)
	}
}

// A region whose copy does not get on may still send: it keeps less for the case of a forced move.
func TestDoorOutrunsItsOwnCopy(t *testing.T) {
	p, stuck := newStuckPair(t)
	p.device("a", "d")
	stuck.Store(true)
	var s sender
	const many = 20_000
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for n := range many {
		if err := p.handle("b").Submit(ctx, telemetry("d", n), &s, uint64(n)); err != nil {
			t.Fatalf("message %d: %v", n, err)
		}
	}
	eventually(t, "all resolved", func() bool { return s.resolved() == many })
}

// A replica that is opened again in the same life of the process numbers anew, under another name.
func TestReopenedReplicaLosesNothing(t *testing.T) {
	p := newPair(t)
	p.device("a", "d")
	for n := range 10 {
		if _, err := p.handle("a").Do(t.Context(), telemetry("d", n)); err != nil {
			t.Fatal(err)
		}
	}
	old := p.regions["a"]
	old.stop()
	p.openAt("a", "b", old.store, old.dir)
	fork, err := p.regions["a"].replica.EndCopy(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	p.claim("a", 2, fork, false)
	for n := 10; n < 20; n++ {
		if _, err := p.handle("a").Do(t.Context(), telemetry("d", n)); err != nil {
			t.Fatal(err)
		}
	}
	if got := p.events("a", 20)["d"]; len(got) != 20 {
		t.Fatalf("events: %q", got)
	}
}

// A door that closes leaves nobody waiting: commands are answered, sessions end, and nothing is taken any more.
func TestClosedDoorTellsEverybody(t *testing.T) {
	p := newPair(t)
	p.device("a", "d")
	dropped := make(chan error, 1)
	if _, err := p.handle("a").Connect(t.Context(), "d", func(err error) { dropped <- err }); err != nil {
		t.Fatal(err)
	}
	p.regions["a"].replica.Fence() // so that the command waits
	done := make(chan error, 1)
	var s sender
	if err := p.handle("a").Submit(t.Context(), telemetry("d", 1), &s, 0); err != nil {
		t.Fatal(err)
	}
	go func() {
		_, err := p.handle("a").Do(context.Background(), telemetry("d", 2))
		done <- err
	}()
	begun := time.Now()
	p.regions["a"].stop()
	if err := <-done; tandem.KindOf(err) != tandem.Unavailable {
		t.Errorf("the waiting command: %v", err)
	}
	if s.resolved() != 1 {
		t.Errorf("%d outcomes of a command that waited", s.resolved())
	}
	if err := <-dropped; tandem.KindOf(err) != tandem.Unavailable {
		t.Errorf("the session was dropped with %v", err)
	}
	if err := p.handle("a").Submit(t.Context(), telemetry("d", 3), &s, 0); tandem.KindOf(err) != tandem.Unavailable {
		t.Errorf("a command after the end: %v", err)
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	pen := p.pen
	pen.Epoch++
	if err := p.regions["a"].replica.Lead(t.Context(), pen, t.Context(), pairlog.Async, nil); tandem.KindOf(err) != tandem.Unavailable {
		t.Errorf("a role after the end: %v", err)
	}
}

// badDirectory fails to list while it is told to.
type badDirectory struct {
	directory.Store
	bad *atomic.Bool
}

func (d badDirectory) List(ctx context.Context, prefix string) ([]directory.Item, directory.Revision, error) {
	if d.bad.Load() {
		return nil, 0, &tandem.Error{Op: "list", Kind: tandem.Unavailable, Err: errors.New("no majority")}
	}
	return d.Store.List(ctx, prefix)
}

// A holder that fails between its first record and its first command writes nothing more, and the next epoch opens.
func TestLeadThatFailsHalfWay(t *testing.T) {
	bad := new(atomic.Bool)
	p := newPair(t, func(o *hub.ReplicaOptions) { o.Directory = badDirectory{o.Directory, bad} })
	p.device("a", "stolen")
	p.inStep()
	p.net.Cut("a", "b")
	if _, err := p.handle("a").Do(t.Context(), &hub.Command{Op: hub.OpDeviceDelete, Device: "stolen", IfMatch: "*"}); err != nil {
		t.Fatal(err)
	}
	b := p.regions["b"].replica
	p.regions["a"].replica.Fence()
	fork, err := b.EndCopy(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	bad.Store(true)
	pen := pairlog.Pen{Hub: hubID, Epoch: 2, Region: "b", Incarnation: "b-life", Fork: fork, Forced: true,
		Forks: pairlog.Extend(p.pen.Forks, pairlog.Branch{Epoch: 2, Holder: "b", Forced: true, Fork: fork})}
	old, revision, err := pairlog.ReadPen(t.Context(), p.dir.Client("b"), hubID)
	if err != nil {
		t.Fatal(err)
	}
	if pen, _, err = pairlog.ClaimPen(t.Context(), p.dir.Client("b"), pairlog.Claim{Pen: pen, Open: true, From: old.Epoch, PenRevision: revision}); err != nil {
		t.Fatal(err)
	}
	if err := b.Lead(t.Context(), pen, t.Context(), pairlog.Async, func() bool { return true }); tandem.KindOf(err) != tandem.Unavailable {
		t.Fatalf("lead without the revocations: %v", err)
	}
	if f := b.Facts(); f.Role != hub.RoleFenced || f.Damaged != "" {
		t.Fatalf("role %s, damaged %q", f.Role, f.Damaged)
	}
	bad.Store(false)
	if fork, err = b.EndCopy(t.Context(), 2); err != nil || fork.Epoch != 2 {
		t.Fatalf("end of the epoch that did not open: %v, %v", fork, err)
	}
	p.claimOnly("b", 3, fork)
	if _, err := p.handle("b").Device(t.Context(), "stolen"); !errors.Is(err, hub.ErrDeviceNotFound) {
		t.Fatalf("the deleted device: %v", err)
	}
}

// slowStore cannot be read while it is told to.
type slowStore struct {
	pairlog.Store
	slow *atomic.Bool
}

func (s slowStore) Read(ctx context.Context, id pairlog.SegmentID, from uint64, maxBytes int, fn func(uint64, []byte) error) error {
	if s.slow.Load() {
		return &tandem.Error{Op: "read the log", Kind: tandem.Timeout, Err: errors.New("the disk is slow")}
	}
	return s.Store.Read(ctx, id, from, maxBytes, fn)
}

// A log that cannot be read for a moment is not damaged.
func TestSlowDiskIsNoDamage(t *testing.T) {
	slow := new(atomic.Bool)
	p := newPair(t, func(o *hub.ReplicaOptions) { o.Store = slowStore{o.Store, slow} })
	p.device("a", "d")
	p.inStep()
	old := p.regions["b"]
	old.stop()
	for n := range 5 {
		if _, err := p.handle("a").Do(t.Context(), telemetry("d", n)); err != nil {
			t.Fatal(err)
		}
	}
	p.openAt("b", "a", old.store, t.TempDir()) // a new view: it folds the log from the store
	slow.Store(true)
	time.Sleep(50 * time.Millisecond)
	slow.Store(false)
	if err := p.regions["b"].replica.FollowPen(t.Context(), p.pen); err != nil {
		t.Fatal(err)
	}
	p.inStep()
	if f := p.regions["b"].replica.Facts(); f.Damaged != "" {
		t.Fatalf("damaged: %s", f.Damaged)
	}
}

// What a back end has not been given of a tail is never given to it.
func TestReaderDropsWhatItHeldOfATail(t *testing.T) {
	p := newPair(t)
	p.device("a", "d")
	if _, err := p.handle("a").Do(t.Context(), telemetry("d", 0)); err != nil {
		t.Fatal(err)
	}
	p.inStep()
	p.net.Cut("a", "b")
	reader, err := p.handle("a").Events(t.Context(), hub.EventStart{Partition: -1})
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n < 5; n++ {
		if _, err := p.handle("a").Do(t.Context(), telemetry("d", n)); err != nil {
			t.Fatal(err)
		}
	}
	if e, err := reader.Next(t.Context()); err != nil || e.Message.MessageID != "0" { // it holds the others now
		t.Fatalf("first event %q, %v", e.Message.MessageID, err)
	}
	p.net.Join("a", "b")
	p.net.Cut("a", "b")
	p.regions["a"].replica.Fence()
	fork, err := p.regions["b"].replica.EndCopy(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if fork.Number >= p.regions["a"].replica.Facts().End.Number {
		t.Fatal("nothing is stranded: this test proves nothing")
	}
	p.net.Join("a", "b")
	p.claim("b", 2, fork, true)
	if _, err := p.handle("b").Do(t.Context(), telemetry("d", 100)); err != nil {
		t.Fatal(err)
	}
	for want := 100; want < 101; want++ {
		if e, err := reader.Next(t.Context()); err != nil || e.Message.MessageID != fmt.Sprint(want) {
			t.Fatalf("event %q of epoch %d, %v; want %d", e.Message.MessageID, e.Position.Epoch, err, want)
		}
	}
}

// A holder that lost its pen while it waited for the other region's copy goes on with what it had hidden.
func TestReopenAfterAHiddenRecord(t *testing.T) {
	p := newPair(t)
	p.device("a", "d")
	p.inStep()
	lead := func(epoch tandem.Epoch, fork pairlog.Fork, valid func() bool) error {
		dir := p.dir.Client("a")
		old, revision, err := pairlog.ReadPen(t.Context(), dir, hubID)
		if err != nil {
			t.Fatal(err)
		}
		pen := pairlog.Pen{Hub: hubID, Epoch: epoch, Region: "a", Incarnation: "a-life", Fork: fork,
			Forks: pairlog.Extend(old.Forks, pairlog.Branch{Epoch: epoch, Holder: "a", Fork: fork})}
		set := pairlog.InSyncSet{Regions: []tandem.RegionName{"a", "b"}, Mode: pairlog.SyncStrict}
		_, setRevision, err := pairlog.ReadInSync(t.Context(), dir, hubID)
		if err != nil {
			t.Fatal(err)
		}
		pen, _, err = pairlog.ClaimPen(t.Context(), dir, pairlog.Claim{Pen: pen, Open: true, From: old.Epoch, PenRevision: revision,
			InSyncRevision: setRevision, InSync: &set})
		if err != nil {
			t.Fatal(err)
		}
		p.pen = pen
		return p.regions["a"].replica.Lead(t.Context(), pen, t.Context(), pairlog.SyncStrict, valid)
	}
	end, err := p.regions["a"].replica.EndCopy(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	var lapsed atomic.Bool
	if err := lead(2, end, func() bool { return !lapsed.Load() }); err != nil {
		t.Fatal(err)
	}
	if err := p.regions["b"].replica.FollowPen(t.Context(), p.pen); err != nil {
		t.Fatal(err)
	}
	p.inStep()
	p.net.Cut("a", "b")
	var s sender
	if err := p.handle("a").Submit(t.Context(), telemetry("d", 1), &s, 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the record is durable", func() bool {
		return p.regions["a"].replica.Facts().End.Number > p.regions["a"].replica.Facts().Applied.Number
	})
	lapsed.Store(true)
	eventually(t, "a is fenced", func() bool { return p.regions["a"].replica.Role() == hub.RoleFenced })
	end, err = p.regions["a"].replica.EndCopy(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	p.net.Join("a", "b")
	if err := lead(3, end, func() bool { return true }); err != nil {
		t.Fatalf("lead after a record that the other region lacked: %v", err)
	}
}

// A list of the largest devices there can be gets through the link, in parts.
func TestListOfLargeDevices(t *testing.T) {
	p := newPair(t)
	scope := strings.Repeat("s", 3500)
	for page := range 4 {
		var changes []hub.DeviceChange
		for n := range 100 {
			changes = append(changes, hub.DeviceChange{Op: hub.OpDeviceCreate, ID: fmt.Sprintf("d%03d", page*100+n), Auth: hub.Auth{Type: hub.AuthNone}, DeviceScope: scope})
		}
		if o, err := p.handle("a").Do(t.Context(), &hub.Command{Op: hub.OpBulk, Body: hub.AppendBulk(nil, changes)}); err != nil || o.Bulk[99] != nil {
			t.Fatalf("bulk: %v, %v", o.Bulk, err)
		}
	}
	for _, top := range []int{0, 400, 399, 1} {
		devices, err := p.handle("b").Devices(t.Context(), "", top)
		want := top
		if top == 0 {
			want = 400
		}
		if err != nil || len(devices) != want {
			t.Fatalf("top %d: %d devices, %v", top, len(devices), err)
		}
		for n, d := range devices {
			if d.ID != fmt.Sprintf("d%03d", n) || d.DeviceScope != scope {
				t.Fatalf("device %s at place %d", d.ID, n)
			}
		}
	}
	if devices, err := p.handle("b").Devices(t.Context(), "d397", 1000); err != nil || len(devices) != 2 {
		t.Fatalf("the rest: %d devices, %v", len(devices), err)
	}
}
