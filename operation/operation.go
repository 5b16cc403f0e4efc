// Package operation keeps a long change as recorded steps: it survives a crash, has one driver at a time, and reports
// progress to whoever asks.
//
//	Start ─▶ op/<id> running, hubop/<hub> = id ─▶ Drive ─▶ Step, Save … ─▶ Finish: op/<id> ended, hubop/<hub> gone
//
// An Operation is a value in the directory, under op/<id>; hubop/<hub> names the one operation of a hub that is under
// way. What an operation does is not decided here: its driver asks a rule (package failover) and records what it did.
// Records are for people and for the next driver's report; nothing that is safe depends on them, so a driver may write
// them late, off the path on which a hub stands still.
package operation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"tandem"
	"tandem/directory"
)

// A Kind says what an operation does.
type Kind string

// The kinds.
const (
	Failover Kind = "failover"        // planned: nothing is lost
	Forced   Kind = "forced failover" // the source may hold writes that the target lacks
	Failback Kind = "failback"        // a planned failover to the hub's home
)

// A Status tells how far an operation, or a step of one, has come.
type Status string

// The statuses.
const (
	Running   Status = "running"
	Succeeded Status = "succeeded"
	Failed    Status = "failed"
	Canceled  Status = "canceled"
)

// Ended reports whether nothing more happens.
func (s Status) Ended() bool { return s != "" && s != Running }

// Limits of what the directory keeps.
const (
	// MaxHistory is how many ended operations of one hub are kept; the oldest go first.
	MaxHistory = 200
	// MaxSteps is how many steps one operation records; further ones replace the last.
	MaxSteps = 100
)

// An Operation is a long change of one hub, as the directory has it.
type Operation struct {
	ID      string            `json:"id"`
	Kind    Kind              `json:"kind"`
	Hub     tandem.HubID      `json:"hub"`
	HubName tandem.HubName    `json:"hub_name,omitempty"`
	From    tandem.RegionName `json:"from"`
	To      tandem.RegionName `json:"to"`
	// Epoch is that of the pen which the operation is to move.
	Epoch tandem.Epoch `json:"epoch"`
	// AcceptLoss is set when the requester accepted that acknowledged writes may be missing afterwards.
	AcceptLoss bool      `json:"accept_loss,omitempty"`
	Requested  string    `json:"requested,omitempty"` // who asked
	Started    time.Time `json:"started"`
	Ended      time.Time `json:"ended,omitzero"`
	Status     Status    `json:"status"`
	// CancelAsked is set by Cancel; the driver ends the operation when it sees it.
	CancelAsked bool `json:"cancel_asked,omitempty"`
	// Committed is set once the operation can no longer be canceled.
	Committed bool   `json:"committed,omitempty"`
	Driver    Driver `json:"driver,omitzero"`
	Steps     []Step `json:"steps,omitempty"`
	// Error is what went wrong, when Status is failed or canceled.
	Error *Failure `json:"error,omitempty"`
	// Report is written at the end; failover.Report for the kinds above.
	Report json.RawMessage `json:"report,omitempty"`
}

// A Step is one recorded part of an operation.
type Step struct {
	Name    string    `json:"name"`
	Status  Status    `json:"status"`
	Start   time.Time `json:"start"`
	End     time.Time `json:"end,omitzero"`
	Details string    `json:"details,omitempty"`
}

// A Driver is who carries an operation out. Its claim holds for as long as the lease of its incarnation: nothing has to
// be renewed, and who wants to take over must have seen that lease lapse or fenced.
type Driver struct {
	Region      tandem.RegionName  `json:"region"`
	Node        tandem.NodeName    `json:"node"`
	Incarnation tandem.Incarnation `json:"incarnation"`
	Since       time.Time          `json:"since"`
}

// A Failure is an error as it is kept.
type Failure struct {
	Kind    tandem.Kind `json:"kind"`
	Message string      `json:"message"`
	Hint    string      `json:"hint,omitempty"`
}

// NewFailure keeps err; nil for nil.
func NewFailure(err error) *Failure {
	if err == nil {
		return nil
	}
	return &Failure{Kind: tandem.KindOf(err), Message: err.Error(), Hint: tandem.HintOf(err)}
}

// Conditions that callers act on.
var (
	// ErrNotFound: there is no operation with this id.
	ErrNotFound = &tandem.Error{Op: "find the operation", Kind: tandem.NotFound}
	// ErrBusy: the hub has another operation under way; BusyError says which.
	ErrBusy = &tandem.Error{Op: "start an operation", Kind: tandem.Conflict}
	// ErrTakenOver: another driver has the operation now, or it has ended.
	ErrTakenOver = &tandem.Error{Op: "drive the operation", Kind: tandem.Fenced}
	// ErrDriven: a driver whose lease has not lapsed has the operation.
	ErrDriven = &tandem.Error{Op: "drive the operation", Kind: tandem.Conflict}
	// ErrCanceled: somebody asked to end the operation before it had touched anything.
	ErrCanceled = &tandem.Error{Op: "drive the operation", Kind: tandem.Precondition, Err: errors.New("canceled")}
	// ErrCommitted: the operation is past the point up to which it could be canceled, or has ended.
	ErrCommitted = &tandem.Error{Op: "cancel the operation", Kind: tandem.Precondition, Hint: "it can't be undone half way; wait for its end"}
)

// A BusyError is ErrBusy, with the operation that is in the way.
type BusyError struct{ Running Operation }

// Error names the operation under way.
func (e *BusyError) Error() string {
	o := e.Running
	return fmt.Sprintf("start an operation: %s %s of hub %s from %s to %s is under way since %s", o.Kind, o.ID, o.name(),
		o.From, o.To, o.Started.UTC().Format(time.RFC3339))
}

// Unwrap is ErrBusy.
func (e *BusyError) Unwrap() error { return ErrBusy }

func (o Operation) name() string {
	if o.HubName != "" {
		return string(o.HubName)
	}
	return string(o.Hub)
}

// NewID makes an id for an operation of hub that starts at now. Ids of one hub sort by time.
func NewID(hub tandem.HubID, now time.Time) string {
	return fmt.Sprintf("%s-%012x%04x", hub, uint64(now.UnixMilli())&0xffffffffffff, rand.Uint32()&0xffff)
}

// HubOf is the hub whose operation has this id; false when it is no id of ours.
func HubOf(id string) (tandem.HubID, bool) {
	hub, rest, ok := strings.Cut(id, "-")
	return tandem.HubID(hub), ok && hub != "" && rest != ""
}

// Start records o as running and as its hub's one operation, durably, and returns it with its id (made when empty).
// A BusyError (ErrBusy) when the hub has one under way.
func Start(ctx context.Context, dir directory.Store, o Operation) (Operation, error) {
	if o.Hub == "" {
		return Operation{}, &tandem.Error{Op: "start an operation", Kind: tandem.Invalid, Err: errors.New("no hub")}
	}
	if o.ID == "" {
		o.ID = NewID(o.Hub, o.Started)
	}
	o.Status = Running
	txn := directory.Txn{
		If: []directory.Compare{{Key: directory.HubOperationKey(o.Hub)}, {Key: directory.OperationKey(o.ID)}},
		Then: []directory.Change{
			{Key: directory.HubOperationKey(o.Hub), Value: []byte(o.ID)},
			{Key: directory.OperationKey(o.ID), Value: encode(o)},
		},
	}
	done, err := dir.Commit(ctx, txn)
	if tandem.KindOf(err) == tandem.Timeout { // the same transaction once more tells what became of the first
		done, err = dir.Commit(ctx, txn)
	}
	if err != nil {
		return Operation{}, err
	}
	if done.OK {
		return o, nil
	}
	for _, item := range done.Now {
		if item.Key != directory.HubOperationKey(o.Hub) {
			continue
		}
		if string(item.Value) == o.ID {
			return o, nil
		}
		running, err := Load(ctx, dir, string(item.Value))
		if err != nil {
			return Operation{}, err
		}
		return Operation{}, &BusyError{Running: running}
	}
	return Operation{}, fmt.Errorf("id %s was used before: %w", o.ID, ErrBusy)
}

// Load reads one operation, linearizably. ErrNotFound.
func Load(ctx context.Context, dir directory.Store, id string) (Operation, error) {
	o, _, err := load(ctx, dir, id)
	return o, err
}

func load(ctx context.Context, dir directory.Store, id string) (Operation, directory.Revision, error) {
	item, err := dir.Get(ctx, directory.OperationKey(id))
	if errors.Is(err, directory.ErrNotFound) {
		return Operation{}, 0, fmt.Errorf("%s: %w", id, ErrNotFound)
	} else if err != nil {
		return Operation{}, 0, err
	}
	o, err := decode(item)
	return o, item.Revision, err
}

// UnderWay reads the operation that a hub has under way, linearizably; false when there is none.
func UnderWay(ctx context.Context, dir directory.Store, hub tandem.HubID) (Operation, bool, error) {
	item, err := dir.Get(ctx, directory.HubOperationKey(hub))
	if errors.Is(err, directory.ErrNotFound) {
		return Operation{}, false, nil
	} else if err != nil {
		return Operation{}, false, err
	}
	o, err := Load(ctx, dir, string(item.Value))
	if errors.Is(err, ErrNotFound) { // it ended and left the history between the two reads
		return Operation{}, false, nil
	}
	return o, err == nil && !o.Status.Ended(), err
}

// List returns the operations of a hub, or of all hubs when hub is empty, newest first.
func List(ctx context.Context, dir directory.Store, hub tandem.HubID) ([]Operation, error) {
	prefix := directory.OperationPrefix()
	if hub != "" {
		prefix += string(hub) + "-"
	}
	items, _, err := dir.List(ctx, prefix)
	if err != nil {
		return nil, err
	}
	ops := make([]Operation, 0, len(items))
	for _, item := range items {
		o, err := decode(item)
		if err != nil {
			return nil, err
		}
		ops = append(ops, o)
	}
	newestFirst(ops)
	return ops, nil
}

// Cancel asks the driver to end an operation with nothing touched. It returns once the wish is durable; the operation
// ends soon after. ErrCommitted when it is too late for that; ErrNotFound.
func Cancel(ctx context.Context, dir directory.Store, id string) (Operation, error) {
	for range maxTries {
		o, rev, err := load(ctx, dir, id)
		switch {
		case err != nil:
			return Operation{}, err
		case o.Status.Ended(), o.Committed:
			return o, fmt.Errorf("%s: %w", id, ErrCommitted)
		case o.CancelAsked:
			return o, nil
		}
		o.CancelAsked = true
		done, err := dir.Commit(ctx, directory.Txn{
			If:   []directory.Compare{{Key: directory.OperationKey(id), Revision: rev}},
			Then: []directory.Change{{Key: directory.OperationKey(id), Value: encode(o)}},
		})
		if err != nil {
			return Operation{}, err
		}
		if done.OK {
			return o, nil
		}
	}
	return Operation{}, &tandem.Error{Op: "cancel the operation", Kind: tandem.Unavailable, On: id, Err: errors.New("it keeps changing")}
}

// maxTries bounds how often a compare-and-set is tried against a value that keeps changing.
const maxTries = 8

func decode(item directory.Item) (Operation, error) {
	var o Operation
	if err := json.Unmarshal(item.Value, &o); err != nil {
		return Operation{}, &tandem.Error{Op: "read an operation", Kind: tandem.Damaged, On: item.Key, Err: err}
	}
	return o, nil
}

func encode(o Operation) []byte {
	b, err := json.Marshal(o)
	if err != nil {
		panic(err) // plain values; a report was made by json.Marshal
	}
	return b
}
