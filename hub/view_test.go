package hub_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"tandem"
	"tandem/hub"
	"tandem/pairlog"
)

const viewHub = tandem.HubID("0123456789abcdef")

// viewCache is small, so that tests of a few devices evict some.
var viewCache int64 = 8 << 20

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// chain makes records that go on from one another, as a writer would.
type chain struct {
	t     testing.TB
	at    pairlog.Fork
	bytes uint64
	time  time.Time
}

func newChain(t testing.TB) *chain { return &chain{t: t, at: pairlog.Fork{Epoch: 1}, time: noon} }

// next is the stamp of the next record.
func (c *chain) next() hub.Stamp { return hub.Stamp{Epoch: c.at.Epoch, Number: c.at.Number + 1} }

type entry struct {
	kind pairlog.Kind
	data []byte
}

// record encodes the next record.
func (c *chain) record(entries ...entry) *pairlog.Record {
	c.t.Helper()
	body, state := []byte{}, uint32(0)
	for _, e := range entries {
		n := len(e.data)
		body = append(append(body, byte(e.kind), byte(n>>16), byte(n>>8), byte(n)), e.data...)
		if e.kind != pairlog.KindTelemetry {
			state++
		}
	}
	be := binary.BigEndian
	head := 128 + len(viewHub)
	b := make([]byte, head, head+len(body))
	copy(b, "TPR\x01")
	be.PutUint16(b[4:], uint16(head))
	be.PutUint64(b[8:], uint64(c.at.Epoch))
	be.PutUint64(b[16:], c.at.Number+1)
	be.PutUint64(b[32:], c.bytes)
	be.PutUint64(b[40:], uint64(c.time.UnixMicro()))
	be.PutUint32(b[48:], uint32(len(entries)))
	be.PutUint32(b[52:], state)
	be.PutUint32(b[56:], uint32(len(body)))
	b[60] = byte(len(viewHub))
	copy(b[64:], c.at.Hash[:])
	copy(b[128:], viewHub)
	b = append(b, body...)
	h := sha256.New()
	h.Write(b[:96])
	h.Write(b[128:])
	copy(b[96:], h.Sum(nil))
	rec, err := pairlog.DecodeRecord(b)
	if err != nil {
		c.t.Fatal(err)
	}
	c.at.Number, c.at.Hash = rec.Header.Number, rec.Header.Hash
	c.bytes += uint64(len(b))
	return &rec
}

func jsonEntry(kind pairlog.Kind, value any) entry {
	b, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return entry{kind, b}
}

// forcedPen moves the chain to a new epoch that was taken by force.
func (c *chain) forcedPen() *pairlog.Record {
	pen := pairlog.Pen{Hub: viewHub, Epoch: c.at.Epoch + 1, Forced: true, Fork: c.at}
	c.at.Epoch++
	return c.record(jsonEntry(pairlog.KindPen, pen))
}

func viewOptions(dir string) hub.ViewOptions {
	return hub.ViewOptions{Dir: dir, Hub: viewHub, Partitions: 4, CacheBytes: viewCache}
}

func openView(t testing.TB, dir string) *hub.View {
	t.Helper()
	v, err := hub.OpenView(context.Background(), viewOptions(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.Close() })
	return v
}

func apply(t testing.TB, v *hub.View, records ...*pairlog.Record) {
	t.Helper()
	for _, r := range records {
		if err := v.Apply(r); err != nil {
			t.Fatalf("record %d: %v", r.Header.Number, err)
		}
	}
}

func entriesOf(b *pairlog.Batch) (entries []entry) {
	for _, e := range b.Entries() {
		entries = append(entries, entry{e.Kind, e.Data})
	}
	return entries
}

// decide runs commands through Decide for one record and returns it with the outcomes' errors.
func decide(t testing.TB, v *hub.View, c *chain, commands ...hub.Command) (*pairlog.Record, []hub.Outcome) {
	t.Helper()
	var b pairlog.Batch
	outcomes := make([]hub.Outcome, len(commands))
	for i := range commands {
		outcomes[i].Err = v.Decide(&commands[i], c.next(), &b)
	}
	if b.Len() == 0 {
		return nil, outcomes
	}
	rec := c.record(entriesOf(&b)...)
	apply(t, v, rec)
	for i := range commands {
		if outcomes[i].Err == nil {
			v.Answer(&commands[i], &outcomes[i])
		}
	}
	return rec, outcomes
}

func change(op hub.Op, id string, edit ...func(*hub.DeviceChange)) hub.Command {
	c := hub.DeviceChange{Op: op, ID: id, Auth: hub.Auth{PrimaryKey: []byte("primary key of " + id), SecondaryKey: []byte("secondary")}}
	for _, e := range edit {
		e(&c)
	}
	return hub.Command{Op: op, Device: tandem.DeviceID(id), Body: hub.AppendDeviceChange(nil, &c), IfMatch: c.IfMatch}
}

func disabled(c *hub.DeviceChange) { c.Status = hub.Disabled }

func said(id, body string) hub.Command {
	return hub.Command{Op: hub.OpTelemetry, Device: tandem.DeviceID(id), Body: hub.AppendMessage(nil, &hub.Message{Body: []byte(body)})}
}

// story returns n random records: commands of every kind, doors, roots, trims and forced epochs.
func story(t testing.TB, seed uint64, n int) []*pairlog.Record {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 2))
	v, c := openView(t, t.TempDir()), newChain(t)
	records := []*pairlog.Record{c.record(jsonEntry(pairlog.KindPen, pairlog.Pen{Hub: viewHub, Epoch: 1}))}
	apply(t, v, records[0])
	door := map[hub.DoorID]uint64{}
	for len(records) < n {
		c.time = c.time.Add(time.Duration(r.IntN(3_000_000)) * time.Microsecond)
		var rec *pairlog.Record
		switch r.IntN(12) {
		case 0:
			rec = c.forcedPen()
		case 1:
			rec = c.record(jsonEntry(pairlog.KindTrim, pairlog.Trim{Number: uint64(r.IntN(len(records)))}), entry{pairlog.KindHeartbeat, nil})
		case 2:
			root := v.Root()
			rec = c.record(entry{hub.KindRoot, root[:]})
		case 3:
			c.time = c.time.Add(13 * time.Hour)
			rec = c.record(entry{hub.KindDoorGone, []byte(fmt.Sprint("door", r.IntN(3)))})
		default:
			var b pairlog.Batch
			for range 1 + r.IntN(20) {
				cmd := randomCommand(r)
				err := v.Decide(&cmd, c.next(), &b)
				if k := tandem.KindOf(err); err != nil && k != tandem.NotFound && k != tandem.Exists && k != tandem.Forbidden && k != tandem.Precondition {
					t.Fatal(err)
				}
			}
			id := hub.DoorID(fmt.Sprint("door", r.IntN(3)))
			first, count := door[id]+1, uint32(1+r.IntN(20))
			door[id] += uint64(count)
			var refused []hub.Refusal
			for i := range count {
				if r.IntN(4) == 0 {
					refused = append(refused, hub.Refusal{Number: first + uint64(i), Kind: tandem.NotFound})
				}
			}
			b.Add(hub.KindDoor, hub.AppendDoorEntry(nil, id, first, count, first-min(first, uint64(r.IntN(50))), refused))
			rec = c.record(entriesOf(&b)...)
		}
		apply(t, v, rec)
		records = append(records, rec)
	}
	if check := v.LastRootCheck(); !check.Equal() {
		t.Fatalf("roots differ: %+v", check)
	}
	return records
}

func randomCommand(r *rand.Rand) hub.Command {
	id := fmt.Sprint("device-", r.IntN(30))
	edit := func(c *hub.DeviceChange) {
		if r.IntN(3) == 0 {
			c.Status, c.StatusReason = hub.Disabled, "because"
		}
		if r.IntN(3) == 0 {
			c.Auth.PrimaryKey = []byte{byte(r.IntN(256))}
		}
		c.EdgeCapable = r.IntN(2) == 0
	}
	switch r.IntN(8) {
	case 0:
		return change(hub.OpDeviceCreate, id, edit)
	case 1:
		return change(hub.OpDeviceUpdate, id, edit)
	case 2:
		return change(hub.OpDevicePut, id, edit)
	case 3:
		return hub.Command{Op: hub.OpDeviceDelete, Device: tandem.DeviceID(id)}
	case 4:
		var changes []hub.DeviceChange
		for range r.IntN(6) {
			one := hub.DeviceChange{Op: hub.OpDeviceCreate + hub.Op(r.IntN(4)), ID: fmt.Sprint("device-", r.IntN(30))}
			edit(&one)
			changes = append(changes, one)
		}
		return hub.Command{Op: hub.OpBulk, Body: hub.AppendBulk(nil, changes)}
	}
	return said(id, "hello")
}

// holds is what readers see of a view, for comparing.
func holds(t testing.TB, v *hub.View) any {
	t.Helper()
	devices, err := v.Devices("", 0)
	if err != nil {
		t.Fatal(err)
	}
	return []any{v.Applied(), v.Root(), devices, v.Partitions(), v.Statistics(v.AppliedTime()), v.VersionBase(),
		v.Door("door0"), v.Door("door1"), v.Door("door2")}
}

func same(t testing.TB, got, want *hub.View) {
	t.Helper()
	if a, b := holds(t, got), holds(t, want); !reflect.DeepEqual(a, b) {
		t.Errorf("got %+v\nwant %+v", a, b)
	}
}

func TestViewsOfTheSameRecordsAreEqual(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			records := story(t, seed, 120)
			a, b := openView(t, t.TempDir()), openView(t, t.TempDir())
			r := rand.New(rand.NewPCG(seed, 3))
			apply(t, a, records...)
			for i, rec := range records {
				if r.IntN(10) == 0 { // decided and never applied: a fence
					var batch pairlog.Batch
					for range 10 {
						cmd := randomCommand(r)
						_ = b.Decide(&cmd, hub.Stamp{Epoch: 9, Number: rec.Header.Number}, &batch)
					}
					b.DropOverlay()
				}
				apply(t, b, rec)
				if i%40 == 17 {
					if _, err := b.Snapshot(context.Background()); err != nil {
						t.Fatal(err)
					}
				}
			}
			same(t, b, a)
			if err := b.Check(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAnySnapshotAndTheRestGiveTheSameView(t *testing.T) {
	ctx := context.Background()
	records := story(t, 77, 100)
	dir := t.TempDir()
	v, want := openView(t, dir), openView(t, t.TempDir())
	apply(t, want, records...)
	for i, rec := range records {
		apply(t, v, rec)
		if i%30 == 5 {
			info, err := v.Snapshot(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if info.Fork != v.Applied() || info.Root != v.Root() || !info.Complete || info.Bytes == 0 {
				t.Fatalf("snapshot %+v of a view at %+v", info, v.Applied())
			}
		}
	}
	inChain := func(f pairlog.Fork) bool { return records[f.Number-1].Header.Hash == f.Hash }
	for _, s := range v.Snapshots() {
		if err := v.Rollback(ctx, s.Fork, inChain); err != nil {
			t.Fatal(err)
		}
		if v.Applied() != s.Fork || v.Root() != s.Root {
			t.Fatalf("rolled back to %+v, want %+v", v.Applied(), s.Fork)
		}
		apply(t, v, records[s.Fork.Number:]...)
		same(t, v, want)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	again := openView(t, dir)
	same(t, again, want)
	if n := len(again.Snapshots()); n != 4 {
		t.Errorf("%d snapshots after reopening, want 4", n)
	}
}

func TestRollbackPassesOverWhatIsNotInTheChain(t *testing.T) {
	ctx := context.Background()
	records := story(t, 5, 30)
	v := openView(t, t.TempDir())
	for i, rec := range records {
		apply(t, v, rec)
		if i == 9 || i == 19 {
			if _, err := v.Snapshot(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	to := pairlog.Fork{Epoch: 1, Number: 25}
	if err := v.Rollback(ctx, to, func(f pairlog.Fork) bool { return f.Number == 10 }); err != nil {
		t.Fatal(err)
	}
	if got := v.Applied().Number; got != 10 {
		t.Errorf("at %d, want 10", got)
	}
	if err := v.Rollback(ctx, to, func(pairlog.Fork) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if got := v.Applied(); got != (pairlog.Fork{}) {
		t.Errorf("at %v, want the beginning", got)
	}
	apply(t, v, records...)
	if err := v.Rollback(ctx, to, func(pairlog.Fork) bool { return true }); err != nil || v.Applied().Number != 20 {
		t.Errorf("at %v (%v), want 20", v.Applied(), err)
	}
	if err := errors.Join(v.DropSnapshot(20), v.DropSnapshot(20)); err != nil {
		t.Error(err)
	}
	if s := v.Snapshots(); len(s) != 1 || s[0].Fork.Number != 10 {
		t.Errorf("kept %v", s)
	}
}

func TestSnapshotTravels(t *testing.T) {
	ctx := context.Background()
	records := story(t, 6, 60)
	a, b := openView(t, t.TempDir()), openView(t, t.TempDir())
	apply(t, a, records...)
	info, err := a.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var stream bytes.Buffer
	if err := a.ExportSnapshot(ctx, info.Fork.Number, &stream); err != nil {
		t.Fatal(err)
	}
	whole := stream.Bytes()
	for at := 0; at < len(whole); at += len(whole)/60 + 1 {
		bad := bytes.Clone(whole)
		bad[at] ^= 0x40
		if _, err := b.ImportSnapshot(ctx, bytes.NewReader(bad)); err == nil {
			// Only padding and names of the archive's owner may change without notice.
			if got := b.Snapshots(); got[0].Root != info.Root || got[0].Fork != info.Fork {
				t.Fatalf("byte %d: a changed snapshot was taken: %+v", at, got)
			}
			if err := b.DropSnapshot(info.Fork.Number); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := b.ImportSnapshot(ctx, bytes.NewReader(whole[:len(whole)/2])); tandem.KindOf(err) != tandem.Damaged {
		t.Errorf("half a snapshot: %v", err)
	}
	if got := b.Snapshots(); len(got) != 0 {
		t.Fatalf("kept %v", got)
	}
	if got, err := b.ImportSnapshot(ctx, bytes.NewReader(whole)); err != nil || got.Fork != info.Fork || got.Root != info.Root {
		t.Fatalf("got %+v, %v", got, err)
	}
	if err := b.Rollback(ctx, info.Fork, func(f pairlog.Fork) bool { return f == info.Fork }); err != nil {
		t.Fatal(err)
	}
	same(t, b, a)
	if err := a.ExportSnapshot(ctx, 1, io.Discard); tandem.KindOf(err) != tandem.NotFound {
		t.Errorf("an absent snapshot: %v", err)
	}
}

func TestAfterACrashTheViewIsAnOlderWholeOne(t *testing.T) {
	records := story(t, 8, 80)
	dir, crashed := t.TempDir(), t.TempDir()
	v := openView(t, dir)
	apply(t, v, records[:50]...)
	if _, err := v.Snapshot(context.Background()); err != nil { // flushes
		t.Fatal(err)
	}
	apply(t, v, records[50:]...)
	if err := os.CopyFS(crashed, os.DirFS(dir)); err != nil { // what a killed process leaves
		t.Fatal(err)
	}
	again := openView(t, crashed)
	n := again.Applied().Number
	if n < 50 || n > 80 {
		t.Fatalf("at %d", n)
	}
	apply(t, again, records[n:]...)
	same(t, again, v)
	if err := again.Check(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestHalfMadeThingsAreCleanedUp(t *testing.T) {
	dir := t.TempDir()
	records := story(t, 9, 20)
	v := openView(t, dir)
	apply(t, v, records...)
	if _, err := v.Snapshot(context.Background()); err != nil {
		t.Fatal(err)
	}
	want := holds(t, v)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	// A crash between the two renames of a rollback, and one within a snapshot.
	live := filepath.Join(dir, "live")
	half := filepath.Join(dir, "snapshots", "99-1")
	err := errors.Join(os.Rename(live, live+".old"), os.Mkdir(live+".new", 0o700), os.Mkdir(half, 0o700),
		os.WriteFile(filepath.Join(half, "000001.sst"), []byte("half"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	again := openView(t, dir)
	if got := holds(t, again); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	if s := again.Snapshots(); len(s) != 1 {
		t.Errorf("snapshots %v", s)
	}
	for _, gone := range []string{half, live + ".old", live + ".new"} {
		if _, err := os.Stat(gone); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there", gone)
		}
	}
}

func TestADamagedLiveViewStartsAnew(t *testing.T) {
	dir := t.TempDir()
	records := story(t, 10, 20)
	v := openView(t, dir)
	apply(t, v, records...)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	tables, _ := filepath.Glob(filepath.Join(dir, "live", "MANIFEST-*"))
	if len(tables) == 0 {
		t.Fatal("no manifest")
	}
	for _, name := range tables {
		if err := os.WriteFile(name, bytes.Repeat([]byte{7}, 100), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	again := openView(t, dir)
	if again.Applied().Number != 0 {
		t.Fatalf("at %v", again.Applied())
	}
	apply(t, again, records...)
	if again.Applied().Hash != records[19].Header.Hash {
		t.Error("did not fold the log again")
	}
}

func TestApplyRefusesWhatDoesNotGoOn(t *testing.T) {
	c := newChain(t)
	v := openView(t, t.TempDir())
	one, two := c.record(entry{pairlog.KindHeartbeat, nil}), c.record(entry{pairlog.KindHeartbeat, nil})
	if err := v.Apply(two); tandem.KindOf(err) != tandem.Precondition {
		t.Errorf("a gap: %v", err)
	}
	apply(t, v, one)
	other := newChain(t)
	other.time = noon.Add(time.Second)
	other.record(entry{pairlog.KindHeartbeat, nil})
	if err := v.Apply(other.record(entry{pairlog.KindHeartbeat, nil})); !errors.Is(err, pairlog.ErrDiverged) {
		t.Errorf("another history: %v", err)
	}
	before := holds(t, v)
	for name, c2 := range map[string]struct {
		e    entry
		want func(error) bool
	}{
		"an unknown kind":       {entry{99, nil}, func(err error) bool { return errors.Is(err, hub.ErrUnknownEntryKind) }},
		"a cut put":             {entry{hub.KindDevicePut, []byte{1, 0, 3}}, damagedKind},
		"a newer put":           {entry{hub.KindDevicePut, []byte{9}}, func(err error) bool { return tandem.KindOf(err) == tandem.Unsupported }},
		"a cut delete":          {entry{hub.KindDeviceDelete, nil}, damagedKind},
		"a cut door":            {entry{hub.KindDoor, []byte{1, 9}}, damagedKind},
		"a short root":          {entry{hub.KindRoot, []byte{1}}, damagedKind},
		"a broken pen":          {entry{pairlog.KindPen, []byte("{")}, damagedKind},
		"cut telemetry":         {entry{hub.KindTelemetry, []byte{0}}, damagedKind},
		"no telemetry":          {entry{hub.KindTelemetry, nil}, damagedKind},
		"a partition too large": {entry{hub.KindTelemetry, []byte{0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}}, damagedKind},
	} {
		good := hub.AppendDoorEntry(nil, "d", 1, 1, 0, nil)
		at := *c
		at.at = pairlog.Fork{Epoch: 1, Number: 1, Hash: one.Header.Hash}
		if err := v.Apply(at.record(entry{hub.KindDoor, good}, c2.e)); !c2.want(err) {
			t.Errorf("%s: %v", name, err)
		}
		if got := holds(t, v); !reflect.DeepEqual(got, before) {
			t.Fatalf("%s changed the view: %v", name, got)
		}
	}
	apply(t, v, two)
}

func damagedKind(err error) bool { return tandem.KindOf(err) == tandem.Damaged }

func TestRootCheckTellsADifference(t *testing.T) {
	v, c := openView(t, t.TempDir()), newChain(t)
	decide(t, v, c, change(hub.OpDeviceCreate, "a"))
	root := v.Root()
	apply(t, v, c.record(entry{hub.KindRoot, root[:]}))
	if check := v.LastRootCheck(); check.Number != 2 || !check.Equal() {
		t.Errorf("equal roots: %+v", check)
	}
	apply(t, v, c.record(jsonEntry(pairlog.KindClose, pairlog.Close{Root: pairlog.Hash{1}})))
	if check := v.LastRootCheck(); check.Number != 3 || check.Equal() || check.Got != root {
		t.Errorf("different roots: %+v", check)
	}
}

func TestTheViewSaysWhenItIsClosed(t *testing.T) {
	v, c := openView(t, t.TempDir()), newChain(t)
	if err := errors.Join(v.Close(), v.Close()); err != nil {
		t.Fatal(err)
	}
	_, snap := v.Snapshot(context.Background())
	_, device := v.Device("a")
	_, list := v.Devices("", 1)
	_, find := v.FindTime(time.Time{})
	for _, err := range []error{snap, device, list, find, v.Apply(c.record(entry{pairlog.KindHeartbeat, nil})),
		v.Rollback(context.Background(), pairlog.Fork{}, nil), v.Check(context.Background())} {
		if tandem.KindOf(err) != tandem.Unavailable {
			t.Errorf("got %v", err)
		}
	}
	o := viewOptions(t.TempDir())
	o.Partitions = 0
	if _, err := hub.OpenView(context.Background(), o); tandem.KindOf(err) != tandem.Invalid {
		t.Errorf("no partitions: %v", err)
	}
}

func TestPartitionsAreFixed(t *testing.T) {
	dir := t.TempDir()
	v, c := openView(t, dir), newChain(t)
	apply(t, v, c.record(entry{pairlog.KindHeartbeat, nil}))
	_ = v.Close()
	o := viewOptions(dir)
	o.Partitions = 8
	if _, err := hub.OpenView(context.Background(), o); tandem.KindOf(err) != tandem.Precondition {
		t.Errorf("got %v", err)
	}
	openView(t, dir)
}
