package failover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"tandem"
	"tandem/directory"
	"tandem/operation"
	"tandem/pairlog"
)

// What controllers ask of each other over the link. The subject is "failover." and the verb.
const (
	verbFacts = "facts" // → ReplicaFacts
	verbClose = "close" // → ClosedAt
	verbDrain = "drain" // → drained
	verbItems = "items" // → itemsPage
	verbPen   = "pen"   // a message: the pen has moved
)

// A request names the operation and epoch it belongs to, so that one that comes late is refused.
type request struct {
	Hub       tandem.HubID     `json:"hub"`
	Operation string           `json:"operation,omitempty"`
	Step      string           `json:"step,omitempty"`
	Epoch     tandem.Epoch     `json:"epoch,omitempty"`
	For       time.Duration    `json:"for,omitempty"`
	Receipt   string           `json:"receipt,omitempty"`
	After     pairlog.Position `json:"after,omitzero"`
	Pen       *pairlog.Pen     `json:"pen,omitempty"`
}

// drained is what became of a drain: the source closed in time, or it stopped.
type drained struct {
	Closed  *ClosedAt `json:"closed,omitempty"`
	Yielded bool      `json:"yielded"`
}

type itemsPage struct {
	Items []TailItem `json:"items"`
	More  bool       `json:"more"`
}

// maxPage keeps an answer well below the link's 1 MiB.
const maxPage = 1000

func subject(verb string) string { return "failover." + verb }

// ask sends a request and decodes the answer.
func (c *Controller) ask(ctx context.Context, to tandem.RegionName, verb string, within time.Duration, r request, answer any) error {
	data, err := json.Marshal(r)
	if err != nil {
		return &tandem.Error{Op: "ask " + string(to), Kind: tandem.Internal, Err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	got, err := c.o.Link.Request(ctx, to, subject(verb), data)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(got, answer); err != nil {
		return &tandem.Error{Op: "ask " + string(to), Kind: tandem.Internal, Err: err}
	}
	return nil
}

// serve answers the other region; the stops end that.
func (c *Controller) serve() (stops []func(), err error) {
	type handler func(ctx context.Context, h *hubLoop, from tandem.RegionName, r request) (any, error)
	for verb, handle := range map[string]handler{
		verbFacts: c.answerFacts, verbClose: c.answerClose, verbDrain: c.answerDrain, verbItems: c.answerItems,
	} {
		stop, err := c.o.Link.Serve(subject(verb), func(ctx context.Context, from tandem.RegionName, data []byte) ([]byte, error) {
			var r request
			if err := json.Unmarshal(data, &r); err != nil {
				return nil, &tandem.Error{Op: verb, Kind: tandem.Invalid, Err: err}
			}
			h := c.loop(r.Hub)
			if h == nil {
				return nil, because(ErrUnknownHub, string(r.Hub), "this node does not have the hub", "")
			}
			answer, err := handle(ctx, h, from, r)
			if err != nil {
				return nil, err
			}
			return json.Marshal(answer)
		})
		if err != nil {
			return stops, err
		}
		stops = append(stops, stop)
	}
	stop, err := c.o.Link.Receive(subject(verbPen), func(_ tandem.RegionName, data []byte) {
		var r request
		if json.Unmarshal(data, &r) == nil && r.Pen != nil {
			if h := c.loop(r.Hub); h != nil {
				h.changed() // it reads the directory itself: a message is a hint
			}
		}
	})
	if err != nil {
		return stops, err
	}
	return append(stops, stop), nil
}

func (c *Controller) answerFacts(_ context.Context, h *hubLoop, _ tandem.RegionName, _ request) (any, error) {
	replica, ok := h.replica()
	if !ok {
		return nil, because(ErrNotReady, h.on(), "the hub is not open here yet", "")
	}
	return replica.Facts(), nil
}

// check reads from the directory whether a request still holds: its operation is under way, asked for by the region that
// it moves to, and this incarnation has the pen of its epoch.
func (h *hubLoop) check(ctx context.Context, from tandem.RegionName, r request) (operation.Operation, error) {
	pen, o, err := h.standing(ctx, r)
	if err != nil {
		return o, err
	}
	if o.Status.Ended() || o.ID != r.Operation || o.To != from || o.Epoch != r.Epoch {
		return o, fmt.Errorf("%s of %s, epoch %d: %w", r.Step, r.Operation, r.Epoch, ErrStale)
	}
	if pen.Epoch != r.Epoch || pen.Incarnation != h.c.o.Lease.Incarnation() {
		h.changed()
		return o, fmt.Errorf("%s, epoch %d: the pen is %s's, epoch %d: %w", r.Step, r.Epoch, pen.Region, pen.Epoch, ErrStale)
	}
	return o, nil
}

// standing reads pen and operation at one moment. A transaction that can't hold answers with all it compared, in one
// round trip: this read is on the way into a pause.
func (h *hubLoop) standing(ctx context.Context, r request) (pen pairlog.Pen, o operation.Operation, err error) {
	keys := []string{directory.PenKey(r.Hub), directory.HubOperationKey(r.Hub), directory.OperationKey(r.Operation)}
	var txn directory.Txn
	for _, key := range keys {
		txn.If = append(txn.If, directory.Compare{Key: key, Revision: -1})
	}
	done, err := h.c.o.Directory.Commit(ctx, txn)
	if err != nil {
		return pen, o, err
	}
	var current string
	for _, item := range done.Now {
		switch item.Key {
		case keys[0]:
			err = errors.Join(err, json.Unmarshal(item.Value, &pen))
		case keys[1]:
			current = string(item.Value)
		case keys[2]:
			err = errors.Join(err, json.Unmarshal(item.Value, &o))
		}
	}
	if err != nil {
		return pen, o, &tandem.Error{Op: "read the directory", Kind: tandem.Damaged, On: h.on(), Err: err}
	}
	if current != r.Operation {
		o.ID = "" // another one, or none, is under way
	}
	return pen, o, nil
}

func (c *Controller) answerClose(ctx context.Context, h *hubLoop, from tandem.RegionName, r request) (any, error) {
	h.act.Lock()
	defer h.act.Unlock()
	ctx, cancel := context.WithTimeout(ctx, deadline(c.o.Deadline))
	defer cancel()
	o, err := h.check(ctx, from, r)
	if err != nil {
		return nil, err
	}
	if o.Kind == operation.Forced {
		return nil, fmt.Errorf("%s is forced: %w", o.ID, ErrStale)
	}
	replica, ok := h.replica()
	if !ok {
		return nil, because(ErrNotReady, h.on(), "the hub is not open here yet", "")
	}
	h.stop(r.Epoch)
	at, err := replica.Close(ctx, r.Epoch, o.To)
	if err != nil {
		if replica.Facts().Role == RoleHolder {
			h.stop(0)
		}
		return nil, err
	}
	c.o.Logger.Info("epoch closed", "hub", h.name(), "epoch", r.Epoch, "operation", o.ID)
	return at, nil
}

func (c *Controller) answerDrain(ctx context.Context, h *hubLoop, from tandem.RegionName, r request) (any, error) {
	h.act.Lock()
	defer h.act.Unlock()
	o, err := h.check(ctx, from, r)
	if err != nil {
		return nil, err
	}
	if o.Kind != operation.Forced {
		return nil, fmt.Errorf("%s is not forced: %w", o.ID, ErrStale)
	}
	replica, ok := h.replica()
	if !ok {
		return nil, because(ErrNotReady, h.on(), "the hub is not open here yet", "")
	}
	h.stop(r.Epoch)
	short, cancel := context.WithTimeout(ctx, min(r.For, DrainLimit))
	defer cancel()
	at, err := replica.Close(short, r.Epoch, o.To)
	if err == nil {
		return drained{Closed: &at}, nil
	}
	c.o.Logger.Info("drain cut short", "hub", h.name(), "epoch", r.Epoch, "error", err)
	replica.Fence()
	return drained{Yielded: true}, nil
}

func (c *Controller) answerItems(ctx context.Context, _ *hubLoop, _ tandem.RegionName, r request) (any, error) {
	receipt, err := LoadReceipt(ctx, c.o.Directory, r.Receipt)
	if err != nil {
		return nil, err
	}
	var page itemsPage
	err = c.localItems(ctx, receipt, r.After, func(item TailItem) error {
		if len(page.Items) == maxPage {
			page.More = true
			return errPageFull
		}
		page.Items = append(page.Items, item)
		return nil
	})
	if err != nil && !errors.Is(err, errPageFull) {
		return nil, err
	}
	return page, nil
}

var errPageFull = errors.New("page full")
