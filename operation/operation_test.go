package operation_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"tandem"
	"tandem/directory"
	"tandem/operation"
)

const hub tandem.HubID = "00000000000000a1"

type clock struct{ t time.Time }

func (c *clock) Now() time.Time                       { c.t = c.t.Add(time.Millisecond); return c.t }
func (c *clock) Boot() time.Duration                  { return c.t.Sub(time.Unix(0, 0)) }
func (c *clock) After(time.Duration) <-chan time.Time { return nil }

func start(t *testing.T, dir directory.Store, c *clock) operation.Operation {
	t.Helper()
	o, err := operation.Start(t.Context(), dir, operation.Operation{Kind: operation.Failover, Hub: hub, HubName: "fab",
		From: "westus2", To: "westcentralus", Epoch: 3, Requested: "ann", Started: c.Now()})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func drive(t *testing.T, dir directory.Store, c *clock, id string, who tandem.Incarnation, gone bool) (*operation.Driven, error) {
	t.Helper()
	return operation.Drive(t.Context(), dir, c, id, operation.Driver{Node: tandem.NodeName(who), Incarnation: who},
		func(operation.Driver) bool { return gone })
}

func TestOneOperationPerHub(t *testing.T) {
	dir, c := directory.NewMemory().Client("a"), &clock{time.Unix(1000, 0)}
	first := start(t, dir, c)
	_, err := operation.Start(t.Context(), dir, operation.Operation{Hub: hub, Started: c.Now()})
	var busy *operation.BusyError
	if !errors.Is(err, operation.ErrBusy) || !errors.As(err, &busy) || busy.Running.ID != first.ID {
		t.Fatalf("second start: %v", err)
	}
	if tandem.KindOf(err) != tandem.Conflict || !strings.Contains(err.Error(), first.ID) {
		t.Errorf("the conflict does not say what is in the way: %v", err)
	}
	if o, ok, err := operation.UnderWay(t.Context(), dir, hub); err != nil || !ok || o.ID != first.ID {
		t.Errorf("under way: %v %v %v", o.ID, ok, err)
	}
}

func TestStartWhoseAnswerIsLost(t *testing.T) {
	dir, c := directory.NewMemory().Client("a"), &clock{time.Unix(1000, 0)}
	dir.LoseAnswers(1)
	o := start(t, dir, c)
	if got, err := operation.Load(t.Context(), dir, o.ID); err != nil || got.Status != operation.Running {
		t.Fatalf("%+v, %v", got, err)
	}
}

func TestStepsSurviveTheirDriver(t *testing.T) {
	dir, c := directory.NewMemory().Client("a"), &clock{time.Unix(1000, 0)}
	o := start(t, dir, c)
	a, err := drive(t, dir, c, o.ID, "a", false)
	if err != nil {
		t.Fatal(err)
	}
	a.Step("wait", operation.Succeeded, "lag 12 ms")
	a.Step("close", operation.Running, "")
	if err := a.Save(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := drive(t, dir, c, o.ID, "b", false); !errors.Is(err, operation.ErrDriven) {
		t.Fatalf("taken from a driver that lives: %v", err)
	}
	b, err := drive(t, dir, c, o.ID, "b", true)
	if err != nil {
		t.Fatal(err)
	}
	if s := b.Operation().Steps; len(s) != 2 || s[1].Status != operation.Failed || s[1].Details == "" {
		t.Errorf("steps after the take-over: %+v", s)
	}
	a.Step("claim", operation.Running, "")
	if err := a.Save(t.Context()); !errors.Is(err, operation.ErrTakenOver) {
		t.Errorf("a deposed driver saved: %v", err)
	}
	if _, err := a.Finish(t.Context(), operation.Succeeded, nil, nil); !errors.Is(err, operation.ErrTakenOver) {
		t.Errorf("a deposed driver finished: %v", err)
	}
	done, err := b.Finish(t.Context(), operation.Failed, errors.New("source lost"), map[string]int{"pause": 3})
	if err != nil || done.Error == nil || string(done.Report) != `{"pause":3}` {
		t.Fatalf("%+v, %v", done, err)
	}
	if _, ok, _ := operation.UnderWay(t.Context(), dir, hub); ok {
		t.Error("the hub is still busy")
	}
	if _, err := drive(t, dir, c, o.ID, "c", true); !errors.Is(err, operation.ErrTakenOver) {
		t.Errorf("driving what has ended: %v", err)
	}
}

func TestFinishWhoseAnswerIsLost(t *testing.T) {
	dir, c := directory.NewMemory().Client("a"), &clock{time.Unix(1000, 0)}
	o := start(t, dir, c)
	d, err := drive(t, dir, c, o.ID, "a", false)
	if err != nil {
		t.Fatal(err)
	}
	dir.LoseAnswers(1)
	if _, err := d.Finish(t.Context(), operation.Succeeded, nil, nil); tandem.KindOf(err) != tandem.Timeout {
		t.Fatalf("want a timeout, got %v", err)
	}
	if done, err := d.Finish(t.Context(), operation.Succeeded, nil, nil); err != nil || done.Status != operation.Succeeded {
		t.Fatalf("%+v, %v", done, err)
	}
}

func TestCancel(t *testing.T) {
	dir, c := directory.NewMemory().Client("a"), &clock{time.Unix(1000, 0)}
	o := start(t, dir, c)
	d, err := drive(t, dir, c, o.ID, "a", false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := operation.Cancel(t.Context(), dir, o.ID); err != nil {
		t.Fatal(err)
	}
	d.Step("wait", operation.Running, "")
	if err := d.Save(t.Context()); err != nil { // a save between does not forget the wish
		t.Fatal(err)
	}
	if err := d.Commit(t.Context()); !errors.Is(err, operation.ErrCanceled) {
		t.Fatalf("commit after cancel: %v", err)
	}
	if _, err := d.Finish(t.Context(), operation.Canceled, operation.ErrCanceled, nil); err != nil {
		t.Fatal(err)
	}

	o = start(t, dir, c)
	if d, err = drive(t, dir, c, o.ID, "a", false); err != nil {
		t.Fatal(err)
	}
	if err := d.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := operation.Cancel(t.Context(), dir, o.ID); !errors.Is(err, operation.ErrCommitted) {
		t.Fatalf("cancel after commit: %v", err)
	}
}

func TestHistoryIsBounded(t *testing.T) {
	dir, c := directory.NewMemory().Client("a"), &clock{time.Unix(1000, 0)}
	var last string
	for i := range operation.MaxHistory + 5 {
		o := start(t, dir, c)
		last = o.ID
		d, err := drive(t, dir, c, o.ID, tandem.Incarnation(fmt.Sprint(i)), false)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Finish(context.Background(), operation.Succeeded, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	ops, err := operation.List(t.Context(), dir, hub)
	if err != nil || len(ops) != operation.MaxHistory || ops[0].ID != last {
		t.Fatalf("%d operations, newest %s, want %d, %s: %v", len(ops), ops[0].ID, operation.MaxHistory, last, err)
	}
	if h, ok := operation.HubOf(last); !ok || h != hub {
		t.Errorf("hub of %s: %s", last, h)
	}
}
