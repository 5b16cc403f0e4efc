package hub_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"tandem"
	"tandem/hub"
	"tandem/pairlog"
)

// Snapshots, the scrub and readers work while records are folded, and a rollback comes in between.
func TestEverythingAtOnce(t *testing.T) {
	records := story(t, 21, 400)
	v := openView(t, t.TempDir())
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var working sync.WaitGroup
	loop := func(work func() error) {
		working.Go(func() {
			for ctx.Err() == nil {
				if err := work(); err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
			}
		})
	}
	loop(func() error {
		info, err := v.Snapshot(ctx)
		if err == nil && len(v.Snapshots()) > 3 {
			err = v.DropSnapshot(v.Snapshots()[0].Fork.Number)
		}
		if err == nil && info.Fork.Number > 0 && info.Fork.Hash != records[info.Fork.Number-1].Header.Hash {
			t.Errorf("snapshot of another record: %+v", info)
		}
		return err
	})
	loop(func() error { return v.Check(ctx) })
	loop(func() error {
		_, err := v.Devices("device-1", 5)
		_, _ = v.Device("device-7")
		_, _ = v.FindEvent(1, 3)
		_, _ = v.FindTime(noon)
		_, _, _, _ = v.Root(), v.Partitions(), v.Door("door0"), v.Statistics(time.Time{})
		return err
	})
	chain := func(f pairlog.Fork) bool {
		return f.Number == 0 || f.Hash == records[f.Number-1].Header.Hash
	}
	for round := range 4 {
		for v.Applied().Number < uint64(len(records)) {
			if err := v.Apply(records[v.Applied().Number]); err != nil {
				t.Fatal(err)
			}
		}
		if round < 3 {
			if err := v.Rollback(ctx, pairlog.Fork{Number: uint64(100 * round)}, chain); err != nil {
				t.Fatal(err)
			}
		}
	}
	cancel()
	working.Wait()
	want := openView(t, t.TempDir())
	apply(t, want, records...)
	same(t, v, want)
}

// The writer may decide the next record while the last one is on its way to the disk.
func TestDecideGoesAheadOfApply(t *testing.T) {
	v, c := openView(t, t.TempDir()), newChain(t)
	var one, two pairlog.Batch
	decideOne := func(b *pairlog.Batch, cmd hub.Command, want tandem.Kind, refused bool) {
		t.Helper()
		err := v.Decide(&cmd, c.next(), b)
		if refused != (err != nil) || refused && tandem.KindOf(err) != want {
			t.Fatalf("got %v", err)
		}
	}
	decideOne(&one, change(hub.OpDeviceCreate, "a"), 0, false)
	decideOne(&one, change(hub.OpDeviceCreate, "b"), 0, false)
	decideOne(&one, said("a", "1"), 0, false)
	first := c.record(entriesOf(&one)...)
	decideOne(&two, change(hub.OpDeviceUpdate, "a", disabled), 0, false)
	decideOne(&two, said("b", "2"), 0, false)
	apply(t, v, first)
	decideOne(&two, said("a", "3"), tandem.Forbidden, true)
	decideOne(&two, change(hub.OpDeviceCreate, "a"), tandem.Exists, true)
	decideOne(&two, said("b", "4"), 0, false)
	apply(t, v, c.record(entriesOf(&two)...))
	if d, err := v.Device("a"); err != nil || d.Status != hub.Disabled {
		t.Errorf("%+v %v", d, err)
	}
	if s := v.Statistics(noon); s.MessagesToday != 3 || s.Disabled != 1 {
		t.Errorf("%+v", s)
	}
	v.DropOverlay()
	var three pairlog.Batch
	decideOne(&three, said("b", "5"), 0, false)
	for _, e := range three.Entries() {
		m, err := hub.DecodeTelemetry(e.Data)
		if err != nil || m.Number != v.Partitions()[m.Partition].LastEnqueued+1 {
			t.Errorf("%+v %v", m, err)
		}
	}
}

func TestRecordFullAddsNothing(t *testing.T) {
	v, c := openView(t, t.TempDir()), newChain(t)
	decide(t, v, c, change(hub.OpDeviceCreate, "a"))
	var b pairlog.Batch
	for b.Len() < pairlog.MaxRecordEntries-50 {
		cmd := said("a", "x")
		if err := v.Decide(&cmd, c.next(), &b); err != nil {
			t.Fatal(err)
		}
	}
	n := b.Len()
	many := make([]hub.DeviceChange, 51)
	for i := range many {
		many[i] = hub.DeviceChange{Op: hub.OpDeviceCreate, ID: fmt.Sprint("n", i)}
	}
	cmd := hub.Command{Op: hub.OpBulk, Body: hub.AppendBulk(nil, many)}
	if err := v.Decide(&cmd, c.next(), &b); err != hub.ErrRecordFull || b.Len() != n {
		t.Errorf("got %v and %d entries more", err, b.Len()-n)
	}
	cmd.Body = hub.AppendBulk(nil, many[:50])
	if err := v.Decide(&cmd, c.next(), &b); err != nil {
		t.Error(err)
	}
	single := said("a", "x")
	if err := v.Decide(&single, c.next(), &b); err != hub.ErrRecordFull {
		t.Errorf("a full record: %v", err)
	}
	apply(t, v, c.record(entriesOf(&b)...))
	if s := v.Statistics(noon); s.Total != 51 {
		t.Errorf("%+v", s)
	}
}
