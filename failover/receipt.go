package failover

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"tandem"
	"tandem/directory"
	"tandem/pairlog"
)

// A ReceiptState tells how much a receipt knows.
type ReceiptState string

// The states of a receipt.
const (
	Provisional ReceiptState = "provisional"       // the lost region is dark; more than was heard of is possible
	Complete    ReceiptState = "complete"          // its tail is sealed and listed
	ClosedShort ReceiptState = "closed incomplete" // the operator declared the region gone for good
)

// A Receipt is the summary of what one forced claim stranded in the other region. It lives in the directory; the items
// themselves are listed from the tail. Each is durable there and may have been acknowledged.
type Receipt struct {
	ID     string            `json:"id"`
	Hub    tandem.HubID      `json:"hub"`
	Name   tandem.HubName    `json:"hub_name,omitempty"`
	Epoch  tandem.Epoch      `json:"epoch"`  // the claim that left the tail behind
	Region tandem.RegionName `json:"region"` // where the tail is
	Fork   pairlog.Fork      `json:"fork"`   // the tail begins after it
	State  ReceiptState      `json:"state"`
	Opened time.Time         `json:"opened"`
	Closed time.Time         `json:"closed,omitzero"`
	// What was heard of and not copied when the claim was made; HeardAge is how old that news was at most, in
	// milliseconds. For a provisional receipt that is all there is, and not a bound.
	HeardItems uint64 `json:"heard_items"`
	HeardBytes uint64 `json:"heard_bytes"`
	HeardAge   int64  `json:"heard_age_ms"`
	// Of the sealed tail, once complete. First and Last are record numbers; both 0 when nothing was stranded.
	First  uint64            `json:"first,omitempty"`
	Last   uint64            `json:"last,omitempty"`
	Items  uint64            `json:"items"`
	Bytes  uint64            `json:"bytes"`
	Kinds  map[string]uint64 `json:"kinds,omitempty"`
	Oldest time.Time         `json:"oldest,omitzero"`
	Newest time.Time         `json:"newest,omitzero"`
	Epochs []tandem.Epoch    `json:"epochs,omitempty"`
}

// ErrNoReceipt: there is no receipt with this id.
var ErrNoReceipt = &tandem.Error{Op: "find the receipt", Kind: tandem.NotFound}

// errReceiptClosed: the receipt was complete already, or closed.
var errReceiptClosed = &tandem.Error{Op: "close the receipt", Kind: tandem.Precondition}

func receiptID(hub tandem.HubID, epoch tandem.Epoch) string { return fmt.Sprintf("%s-e%d", hub, epoch) }

// parseReceiptID finds the hub and the claim of a receipt.
func parseReceiptID(id string) (tandem.HubID, tandem.Epoch, bool) {
	hub, rest, ok := strings.Cut(id, "-e")
	epoch, err := strconv.ParseUint(rest, 10, 64)
	return tandem.HubID(hub), tandem.Epoch(epoch), ok && err == nil && hub != ""
}

// owed are the receipts that a pen's chain calls for: one for each forced claim in it.
func owed(pen pairlog.Pen, hub Hub) []Receipt {
	var receipts []Receipt
	for _, b := range pen.Forks {
		if b.Forced {
			receipts = append(receipts, Receipt{ID: receiptID(hub.ID, b.Epoch), Hub: hub.ID, Name: hub.Name, Epoch: b.Epoch,
				Region: hub.Other(b.Holder), Fork: b.Fork, State: Provisional})
		}
	}
	return receipts
}

// complete fills a receipt from the sealed tails that its region has: those of the epochs from the fork's up to the claim.
func (r Receipt) complete(ctx context.Context, replica Replica, now time.Time) (Receipt, error) {
	tails, err := replica.Tails(ctx)
	if err != nil {
		return r, err
	}
	r.State, r.Closed, r.Kinds = Complete, now, map[string]uint64{}
	r.First, r.Last, r.Items, r.Bytes, r.Epochs = 0, 0, 0, 0, nil
	for _, t := range tails {
		if !r.covers(t) {
			continue
		}
		if r.First == 0 || t.First < r.First {
			r.First = t.First
		}
		r.Last = max(r.Last, t.Last)
		r.Epochs = append(r.Epochs, t.Epoch)
		err := replica.TailItems(ctx, t.Epoch, func(item TailItem) error {
			r.Items++
			r.Bytes += uint64(item.Bytes)
			r.Kinds[item.Kind]++
			if r.Oldest.IsZero() || item.Time.Before(r.Oldest) {
				r.Oldest = item.Time
			}
			if item.Time.After(r.Newest) {
				r.Newest = item.Time
			}
			return nil
		})
		if err != nil {
			return r, err
		}
	}
	return r, nil
}

func (r Receipt) covers(t pairlog.Tail) bool {
	return t.Records > 0 && t.Epoch >= r.Fork.Epoch && t.Epoch < r.Epoch
}

// LoadReceipt reads a receipt, linearizably. ErrNoReceipt.
func LoadReceipt(ctx context.Context, dir directory.Store, id string) (Receipt, error) {
	r, _, err := loadReceipt(ctx, dir, id)
	return r, err
}

func loadReceipt(ctx context.Context, dir directory.Store, id string) (Receipt, directory.Revision, error) {
	hub, _, ok := parseReceiptID(id)
	if !ok {
		return Receipt{}, 0, fmt.Errorf("%s: %w", id, ErrNoReceipt)
	}
	item, err := dir.Get(ctx, directory.ReceiptKey(hub, id))
	if errors.Is(err, directory.ErrNotFound) {
		return Receipt{}, 0, fmt.Errorf("%s: %w", id, ErrNoReceipt)
	} else if err != nil {
		return Receipt{}, 0, err
	}
	r, err := decodeReceipt(item)
	return r, item.Revision, err
}

// ListReceipts returns the receipts of a hub, newest first.
func ListReceipts(ctx context.Context, dir directory.Store, hub tandem.HubID) ([]Receipt, error) {
	items, _, err := dir.List(ctx, directory.ReceiptPrefix(hub))
	if err != nil {
		return nil, err
	}
	receipts := make([]Receipt, 0, len(items))
	for _, item := range items {
		r, err := decodeReceipt(item)
		if err != nil {
			return nil, err
		}
		receipts = append(receipts, r)
	}
	slices.SortFunc(receipts, func(a, b Receipt) int { return cmp.Compare(b.Epoch, a.Epoch) })
	return receipts, nil
}

// CloseReceipt declares that the region of a provisional receipt is gone for good: it becomes closed incomplete, durably.
// Should the region return all the same, the receipt is completed. Precondition when it is not provisional.
func CloseReceipt(ctx context.Context, dir directory.Store, id string, now time.Time) (Receipt, error) {
	r, rev, err := loadReceipt(ctx, dir, id)
	if err != nil {
		return Receipt{}, err
	}
	if r.State != Provisional {
		return r, fmt.Errorf("%s is %s: %w", id, r.State, errReceiptClosed)
	}
	r.State, r.Closed = ClosedShort, now
	if ok, err := putReceipt(ctx, dir, r, rev); err != nil {
		return Receipt{}, err
	} else if !ok {
		return Receipt{}, fmt.Errorf("%s has changed meanwhile: %w", id, errReceiptClosed)
	}
	return r, nil
}

// putReceipt writes a receipt if it is still at rev (0: absent).
func putReceipt(ctx context.Context, dir directory.Store, r Receipt, rev directory.Revision) (bool, error) {
	value, err := json.Marshal(r)
	if err != nil {
		return false, &tandem.Error{Op: "write the receipt", Kind: tandem.Internal, Err: err}
	}
	key := directory.ReceiptKey(r.Hub, r.ID)
	done, err := dir.Commit(ctx, directory.Txn{
		If:   []directory.Compare{{Key: key, Revision: rev}},
		Then: []directory.Change{{Key: key, Value: value}},
	})
	return done.OK, err
}

func decodeReceipt(item directory.Item) (Receipt, error) {
	var r Receipt
	if err := json.Unmarshal(item.Value, &r); err != nil {
		return Receipt{}, &tandem.Error{Op: "read a receipt", Kind: tandem.Damaged, On: item.Key, Err: err}
	}
	return r, nil
}
