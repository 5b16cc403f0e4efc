package failover_test

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tandem"
	"tandem/failover"
	"tandem/operation"
	"tandem/pairlog"
)

// load sends messages one after another until the returned function is called.
func load(w *world) (stop func()) {
	ended, quit := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for i := 0; ; i++ {
			select {
			case <-quit:
				return
			default:
				w.send(fmt.Sprintf("m%d", i))
				time.Sleep(200 * time.Microsecond)
			}
		}
	}()
	return sync.OnceFunc(func() { close(quit); <-ended })
}

func TestThereAndBack(t *testing.T) {
	w := newWorld(t, pairlog.Async)
	if at := w.holder(); at != west {
		t.Fatalf("a new hub opened in %s", at)
	}
	stop := load(w)
	defer stop()
	for i, c := range []struct {
		to   tandem.RegionName
		at   tandem.RegionName // who is asked
		kind operation.Kind
	}{{east, east, operation.Failover}, {west, east, operation.Failback}, {east, west, operation.Failover}, {west, west, operation.Failback}} {
		o, report := w.end(w.start(c.at, failover.Request{To: c.to}))
		if o.Status != operation.Succeeded || o.Kind != c.kind {
			t.Fatalf("%d: %s %s: %+v", i, o.Kind, o.Status, o.Error)
		}
		if report.Pause <= 0 || !report.Lossless || report.Epoch != tandem.Epoch(i+2) || report.Connections != 3 || len(report.Steps) < 5 {
			t.Errorf("%d: %+v", i, report)
		}
		t.Logf("pause %.1f ms", report.Pause)
	}
	stop()
	if at := w.holder(); at != west {
		t.Errorf("ends in %s", at)
	}
	if missing := w.missing(west); len(missing) > 0 {
		t.Errorf("%d acknowledged are missing: %v", len(missing), missing[0])
	}
	if n := len(w.acked); n < 5 {
		t.Errorf("only %d acknowledged", n)
	}
}

func TestForcedAfterCrash(t *testing.T) {
	w := newWorld(t, pairlog.Async)
	w.holder()
	w.send("copied")
	w.holder()
	w.cutLink(true) // what comes now is stranded
	for _, text := range []string{"s1", "s2", "s3"} {
		if !w.send(text) {
			t.Fatal("not acknowledged")
		}
	}
	w.crash(west)
	w.cutLink(false)
	w.wait("the lease to lapse", func() bool {
		_, err := w.controller(east).Start(t.Context(), failover.Request{Hub: hubID})
		return is(err, failover.ErrSourceDark)
	})
	o, report := w.end(w.start(east, failover.Request{Forced: true}))
	if o.Status != operation.Succeeded || report.Lossless || report.Lost == nil || report.Lost.State != failover.Provisional {
		t.Fatalf("%+v %+v", o.Error, report)
	}
	id := report.Lost.Receipt
	if err := w.controller(east).Items(t.Context(), id, nil); tandem.KindOf(err) != tandem.Precondition {
		t.Errorf("items of a provisional receipt: %v", err)
	}
	if !w.send("after") {
		t.Error("not open")
	}
	w.boot(west)
	if at := w.holder(); at != east {
		t.Fatalf("after the return %s answers", at)
	}
	var r failover.Receipt
	w.wait("the receipt", func() (ok bool) {
		var err error
		r, err = failover.LoadReceipt(t.Context(), w.dir(), id)
		return err == nil && r.State == failover.Complete
	})
	if r.Region != west || r.Items != 3 || r.Kinds["telemetry"] != 3 || r.First == 0 || r.Last != r.First+2 {
		t.Errorf("%+v", r)
	}
	for _, at := range []tandem.RegionName{west, east} {
		var items []string
		err := w.controller(at).Items(t.Context(), id, func(item failover.TailItem) error { items = append(items, item.MessageID); return nil })
		if err != nil || fmt.Sprint(items) != "[s1 s2 s3]" {
			t.Errorf("items at %s: %v, %v", at, items, err)
		}
	}
	if missing := w.missing(east); fmt.Sprint(missing) != "[s1 s2 s3]" {
		t.Errorf("missing: %v", missing)
	}
	if _, err := failover.CloseReceipt(t.Context(), w.dir(), id, time.Now()); tandem.KindOf(err) != tandem.Precondition {
		t.Errorf("closing a complete receipt: %v", err)
	}
}

// A source that can be reached closes: nothing is lost although the move was forced.
func TestForcedDrains(t *testing.T) {
	w := newWorld(t, pairlog.Async)
	w.holder()
	stop := load(w)
	defer stop()
	o, report := w.end(w.start(west, failover.Request{Forced: true}))
	stop()
	if o.Status != operation.Succeeded || !report.Lossless || report.Lost != nil {
		t.Fatalf("%+v %+v", o.Error, report)
	}
	if at := w.holder(); at != east {
		t.Fatalf("%s answers", at)
	}
	if missing := w.missing(east); len(missing) > 0 {
		t.Errorf("missing: %v", missing)
	}
}

// A source that lives behind a cut link is fenced, and opens nothing before its lease is over; Lead of the pretended
// replica fails the test otherwise.
func TestForcedBehindACut(t *testing.T) {
	w := newWorld(t, pairlog.Async)
	w.holder()
	stop := load(w)
	defer stop()
	w.cutLink(true)
	o, report := w.end(w.start(east, failover.Request{Forced: true}))
	if o.Status != operation.Succeeded || report.Lost == nil {
		t.Fatalf("%+v %+v", o.Error, report)
	}
	stop()
	w.cutLink(false)
	w.crash(west) // a fenced process has no other way to go on
	w.boot(west)
	if at := w.holder(); at != east {
		t.Fatalf("%s answers", at)
	}
	missing, listed := w.missing(east), map[string]bool{}
	w.wait("the receipt", func() bool {
		r, err := failover.LoadReceipt(t.Context(), w.dir(), report.Lost.Receipt)
		return err == nil && r.State == failover.Complete
	})
	err := w.controller(east).Items(t.Context(), report.Lost.Receipt, func(item failover.TailItem) error { listed[item.MessageID] = true; return nil })
	if err != nil || len(missing) == 0 {
		t.Fatalf("%d missing, %v", len(missing), err)
	}
	for _, text := range missing {
		if !listed[text] {
			t.Errorf("%s is missing and not listed", text)
		}
	}
}

func TestRefusals(t *testing.T) {
	w := newWorld(t, pairlog.SyncAvailable)
	w.holder()
	c := w.controller(west)
	for name, x := range map[string]struct {
		r    failover.Request
		want error
	}{
		"already there": {failover.Request{Hub: hubID, To: west}, failover.ErrAlreadyThere},
		"unpaired":      {failover.Request{Hub: hubID, To: "eastus"}, failover.ErrUnpaired},
		"unknown":       {failover.Request{Hub: "nothing"}, failover.ErrUnknownHub},
		"out of sync":   {failover.Request{Hub: hubID, Forced: true}, failover.ErrNotInSync},
	} {
		if _, err := c.Start(t.Context(), x.r); !errors.Is(err, x.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.cutLink(true) // the gate does not open
	if _, err := w.controller(east).Start(t.Context(), failover.Request{Hub: hubID}); !errors.Is(err, failover.ErrSourceDark) {
		t.Errorf("dark: %v", err)
	}
	o := w.start(west, failover.Request{})
	_, err := c.Start(t.Context(), failover.Request{Hub: hubID})
	var busy *operation.BusyError
	if !errors.As(err, &busy) || busy.Running.ID != o.ID {
		t.Errorf("during another: %v", err)
	}
	if _, err := operation.Cancel(t.Context(), w.dir(), o.ID); err != nil {
		t.Fatal(err)
	}
	w.cutLink(false)
	if o, _ := w.end(o); o.Status == operation.Running {
		t.Errorf("%+v", o)
	}
	f, err := c.Forecast(t.Context(), failover.Request{Hub: hubID, Forced: true})
	if err != nil || f.Hub != "fab" || f.Connections != 3 {
		t.Errorf("forecast: %+v, %v", f, err)
	}
	if sides, err := c.Status(t.Context(), hubID); err != nil || !sides[west].Known || !sides[east].Known {
		t.Errorf("status: %+v, %v", sides, err)
	}
}

// The link is cut between the request to close and its end: the source takes the pen back by itself.
func TestAbortAtTheDeadline(t *testing.T) {
	w := newWorld(t, pairlog.Async)
	w.holder()
	w.onStep = func(region tandem.RegionName, s failover.StepDone) {
		if s.Step.Name == "reach" && s.Step.Status == operation.Running {
			w.cutLink(true)
		}
	}
	w.mu.Lock()
	w.disks[east].ended[1] = true // the copy stands still, so that CLOSE does not arrive
	w.mu.Unlock()
	o, report := w.end(w.start(east, failover.Request{}))
	if o.Status != operation.Failed || report.Epoch != 2 || !report.Lossless {
		t.Fatalf("%+v %+v", o, report)
	}
	w.mu.Lock()
	w.onStep = nil
	delete(w.disks[east].ended, 1)
	w.mu.Unlock()
	w.cutLink(false)
	if at := w.holder(); at != west {
		t.Errorf("%s answers", at)
	}
}

// Either process dies at every step of every operation, before it is done and after; once it runs again the hub is open
// in exactly one region, the operation has ended, and what is missing is in a receipt.
func TestCrashAtEveryStep(t *testing.T) {
	planned := []string{"wait", "prepare", "close", "reach", "claim", "open", "announce"}
	forced := []string{"drain", "reach", "claim", "open"}
	dark := []string{"fence", "wait", "end copy", "claim", "open"}
	for _, c := range []struct {
		name  string
		steps []string
		r     failover.Request
		cut   bool
	}{
		{"planned", planned, failover.Request{}, false},
		{"forced", forced, failover.Request{Forced: true}, false},
		{"forced behind a cut", dark, failover.Request{Forced: true}, true},
	} {
		for _, step := range c.steps {
			for _, status := range []operation.Status{operation.Running, operation.Succeeded} {
				for _, victim := range []tandem.RegionName{east, west} {
					t.Run(fmt.Sprintf("%s/%s %s/%s", c.name, step, status, victim), func(t *testing.T) {
						t.Parallel()
						crashAt(t, c.r, c.cut, step, status, victim)
					})
				}
			}
		}
	}
}

func crashAt(t *testing.T, r failover.Request, cut bool, step string, status operation.Status, victim tandem.RegionName) {
	w := newWorld(t, pairlog.Async)
	w.holder()
	stop := load(w)
	defer stop()
	var died atomic.Bool
	w.mu.Lock()
	w.onStep = func(_ tandem.RegionName, s failover.StepDone) {
		if s.Step.Name == step && s.Step.Status == status && died.CompareAndSwap(false, true) {
			w.kill(victim)
		}
	}
	w.mu.Unlock()
	if cut {
		w.cutLink(true)
	}
	o := w.start(east, r)
	w.wait("the crash, or the end", func() bool {
		got, err := operation.Load(t.Context(), w.dir(), o.ID)
		return died.Load() || err == nil && got.Status.Ended()
	})
	if died.Load() {
		w.crash(victim)
	}
	if cut { // the other may have been fenced; what was cut comes back
		time.Sleep(ttl)
		w.cutLink(false)
		other := west
		if victim == west {
			other = east
		}
		if !w.nodes[other].holder.Valid() {
			w.crash(other)
			w.boot(other)
		}
	}
	if died.Load() {
		w.boot(victim)
	}
	o, _ = w.end(o)
	if n := w.nodes[west]; !n.holder.Valid() {
		w.wait("the lease", func() bool {
			if n.holder.Valid() {
				return true
			}
			w.mu.Lock()
			fenced := w.nodes[west] == n
			w.mu.Unlock()
			if fenced && cut {
				w.crash(west)
				n = w.boot(west)
			}
			time.Sleep(100 * time.Millisecond)
			return false
		})
	}
	stop()
	at := w.holder()
	if o.Status == operation.Succeeded && at != east {
		t.Errorf("succeeded, and %s answers", at)
	}
	if !w.send("last") {
		t.Error("the hub is not open")
	}
	w.holder()
	listed := map[string]bool{}
	receipts, err := failover.ListReceipts(t.Context(), w.dir(), hubID)
	if err != nil {
		t.Fatal(err)
	}
	for _, receipt := range receipts {
		w.wait("receipt "+receipt.ID, func() bool {
			r, err := failover.LoadReceipt(t.Context(), w.dir(), receipt.ID)
			return err == nil && r.State == failover.Complete
		})
		err := w.controller(at).Items(t.Context(), receipt.ID, func(item failover.TailItem) error { listed[item.MessageID] = true; return nil })
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range w.missing(at) {
		if !listed[text] {
			t.Errorf("%s was acknowledged, is missing and in no receipt (%s, %s)", text, o.Kind, o.Status)
		}
	}
}
