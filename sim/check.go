package sim

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tandem"
	"tandem/directory"
	"tandem/failover"
	"tandem/hub"
	"tandem/operation"
	"tandem/pairlog"
)

// check waits until the healed world is at rest and holds what is left against the journal.
func (w *World) check(ctx context.Context) error {
	time.Sleep(2 * time.Second)
	close(w.stopped)
	w.load.Wait() // every message has its outcome
	w.asks.Wait()
	if err := w.wait("rest after healing", 3*time.Minute, w.settled); err != nil {
		w.journal.violation("%v", err)
		return w.journal.verdict()
	}
	witness := w.memory.Client("witness")
	if err := w.wait("complete receipts", time.Minute, func() string { return incomplete(ctx, witness) }); err != nil {
		w.journal.violation("%v", err)
		return w.journal.verdict()
	}
	l := w.regions[w.holder()].current()
	logs := map[tandem.RegionName][]hub.Event{}
	for _, name := range both {
		events, err := w.events(ctx, w.regions[name].current())
		if err != nil {
			w.journal.violation("the events of %s can't be read: %v", name, err)
			return w.journal.verdict()
		}
		logs[name] = events
	}
	w.checkSame(logs[west], logs[east])
	lost, devices := w.receipts(ctx, l, witness)
	w.checkEvents(logs[west], lost)
	w.checkRegistry(ctx, l, devices)
	w.checkReaders(logs[west])
	if len(w.journal.broken()) == 0 {
		w.checkMoves(ctx)
	}
	return w.journal.verdict()
}

func incomplete(ctx context.Context, dir directory.Store) string {
	pen, _, err := pairlog.ReadPen(ctx, dir, hubID)
	if err != nil {
		return err.Error()
	}
	receipts, err := failover.ListReceipts(ctx, dir, hubID)
	if err != nil {
		return err.Error()
	}
	known := map[tandem.Epoch]bool{}
	for _, r := range receipts {
		if r.State != failover.Complete {
			return fmt.Sprintf("%s is %s", r.ID, r.State)
		}
		known[r.Epoch] = true
	}
	for _, b := range pen.Forks {
		if b.Forced && !known[b.Epoch] {
			return fmt.Sprintf("there is no receipt of epoch %d", b.Epoch)
		}
	}
	return ""
}

// events are a region's events from the beginning.
func (w *World) events(ctx context.Context, l *life) ([]hub.Event, error) {
	reader, err := l.replica.Load().Handle().Events(ctx, hub.EventStart{Partition: -1})
	if err != nil {
		return nil, err
	}
	var events []hub.Event
	for {
		e, ok, err := reader.Poll(ctx)
		if err != nil || !ok {
			return events, err
		}
		events = append(events, e)
	}
}

func (w *World) checkSame(a, b []hub.Event) {
	if len(a) != len(b) {
		w.journal.violation("%d events in %s, %d in %s", len(a), west, len(b), east)
		return
	}
	for i := range a {
		if a[i].Position != b[i].Position || a[i].Number != b[i].Number || a[i].Message.MessageID != b[i].Message.MessageID {
			w.journal.violation("event %d is %s at %s in one region, %s at %s in the other", i, a[i].Message.MessageID, a[i].Position, b[i].Message.MessageID, b[i].Position)
			return
		}
	}
}

// A loss is a message that a receipt lists.
type loss struct {
	receipt failover.Receipt
	item    failover.TailItem
}

// receipts reads all items of all receipts: messages by their id, and the devices of changes.
func (w *World) receipts(ctx context.Context, l *life, dir directory.Store) (map[string][]loss, map[tandem.DeviceID]bool) {
	lost, devices := map[string][]loss{}, map[tandem.DeviceID]bool{}
	receipts, err := failover.ListReceipts(ctx, dir, hubID)
	if err != nil {
		w.journal.violation("receipts: %v", err)
	}
	for _, r := range receipts {
		err := l.controller.Load().Items(ctx, r.ID, func(item failover.TailItem) error {
			if item.Kind == "telemetry" {
				lost[item.MessageID] = append(lost[item.MessageID], loss{r, item})
				w.journal.event("", place{item.Partition, item.Number}, item.MessageID)
			} else {
				devices[item.Device] = true
			}
			return nil
		})
		if err != nil {
			w.journal.violation("the items of %s: %v", r.ID, err)
		}
	}
	return lost, devices
}

// checkEvents holds the log against what devices were told.
func (w *World) checkEvents(events []hub.Event, lost map[string][]loss) {
	j := w.journal
	next := map[int]int64{}
	found := map[string]int{}
	last := map[string]int{} // per device and life: order of the last acknowledged message in the log
	for _, e := range events {
		id := e.Message.MessageID
		if e.Number < next[e.Partition] {
			j.violation("event %d of partition %d comes after %d", e.Number, e.Partition, next[e.Partition]-1)
		}
		next[e.Partition] = e.Number + 1
		j.event("", place{e.Partition, e.Number}, id)
		s := j.sent[id]
		if s == nil {
			continue
		}
		if found[id]++; found[id] == 2 {
			j.violation("%s is there twice, and was sent once", id)
		}
		if s.fate == refused {
			j.violation("%s is there, and was refused: %v", id, s.err)
		}
		key := string(s.device) + " " + string(s.life)
		if s.order < last[key] {
			j.violation("%s comes after message %d of the same device and door", id, last[key])
		}
		last[key] = max(last[key], s.order)
	}
	lossless := w.lossless()
	for _, s := range j.order {
		on := lost[s.id]
		switch {
		case s.fate != acked || found[s.id] > 0:
		case len(on) == 0:
			j.violation("%s was acknowledged at %v, is not there and on no receipt", s.id, s.at)
		case lossless[on[0].receipt.Epoch]:
			j.violation("%s was acknowledged and is lost with epoch %d, which was called lossless", s.id, on[0].receipt.Epoch)
		}
	}
	for id, on := range lost {
		if found[id] > 0 {
			j.violation("%s is on receipt %s and is not missing", id, on[0].receipt.ID)
		}
	}
}

// lossless are the forced epochs of which the operation's report says that nothing was lost.
func (w *World) lossless() map[tandem.Epoch]bool {
	out := map[tandem.Epoch]bool{}
	ops, err := operation.List(context.Background(), w.memory.Client("witness"), hubID)
	if err != nil {
		w.journal.violation("operations: %v", err)
	}
	for _, o := range ops {
		if !o.Status.Ended() {
			w.journal.violation("operation %s is still %s", o.ID, o.Status)
		}
		if r, ok := failover.ReportOf(o); ok && r.Lost != nil && r.Lossless {
			out[r.Epoch] = true
		}
	}
	return out
}

// checkReaders: who read on through everything has seen every event of the log.
func (w *World) checkReaders(events []hub.Event) {
	err := w.wait("the readers", 30*time.Second, func() string {
		w.journal.mu.Lock()
		defer w.journal.mu.Unlock()
		for _, name := range both {
			for _, e := range events {
				if !w.journal.seen[name][e.Message.MessageID] {
					return fmt.Sprintf("those in %s have missed event %d of partition %d (%s, %s)", name, e.Number, e.Partition, e.Message.MessageID, e.Position)
				}
			}
		}
		return ""
	})
	if err != nil {
		w.journal.violation("%v", err)
	}
}

// checkMoves moves the hub there and back: nothing is in the way, and the states are compared at each close.
func (w *World) checkMoves(ctx context.Context) {
	for range 2 {
		from := w.holder()
		var o operation.Operation
		err := w.wait("a planned failover to start", time.Minute, func() string {
			var err error
			o, err = w.regions[from].current().controller.Load().Start(ctx, failover.Request{Hub: hubID, Requested: "the end"})
			if err != nil {
				return err.Error()
			}
			return ""
		})
		if err == nil {
			err = w.wait("it to end", time.Minute, func() string {
				var err error
				if o, err = operation.Load(ctx, w.memory.Client("witness"), o.ID); err != nil {
					return err.Error()
				}
				if !o.Status.Ended() {
					return string(o.Status)
				}
				return ""
			})
		}
		if err == nil && o.Status != operation.Succeeded {
			err = fmt.Errorf("it %s: %+v", o.Status, o.Error)
		}
		if err == nil {
			err = w.wait("rest after it", time.Minute, w.settled)
		}
		if err != nil {
			w.journal.violation("after everything was healed, a planned failover from %s: %v", from, err)
			return
		}
	}
	for _, name := range both {
		if err := w.scrub(ctx, name); err != nil {
			w.journal.violation("the log in %s: %v", name, err)
		}
	}
}

// scrub reads a region's whole log as a process that starts would.
func (w *World) scrub(ctx context.Context, name tandem.RegionName) error {
	log, err := pairlog.Open(ctx, pairlog.Options{Hub: hubID, Region: name, Peer: other(name), Store: w.regions[name].disk.Clone()})
	if err != nil {
		return err
	}
	return errors.Join(log.Check(ctx))
}
