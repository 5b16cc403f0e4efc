package operation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"tandem"
	"tandem/directory"
)

// A Driven is an operation in the hands of its driver. Step and Committed change it in memory at once; Save makes that
// durable when there is time. All methods may be called at once.
type Driven struct {
	dir   directory.Store
	clock tandem.Clock

	saving sync.Mutex // one compare-and-set at a time

	mu    sync.Mutex // guards what follows
	op    Operation
	rev   directory.Revision
	lost  bool
	dirty bool
}

// Drive takes the operation for driver, durably. Gone says that the lease of the driver it has now, if there is one, was
// seen lapsed or fenced, or that it was a former life of this node: only then a claim passes from one to another.
//
// ErrDriven when another driver has it and is not gone, ErrTakenOver when the operation has ended, ErrNotFound.
func Drive(ctx context.Context, dir directory.Store, clock tandem.Clock, id string, driver Driver, gone func(Driver) bool) (*Driven, error) {
	for range maxTries {
		o, rev, err := load(ctx, dir, id)
		if err != nil {
			return nil, err
		}
		if o.Status.Ended() {
			return nil, fmt.Errorf("%s has ended: %w", id, ErrTakenOver)
		}
		d := &Driven{dir: dir, clock: clock, op: o, rev: rev}
		if o.Driver.Incarnation == driver.Incarnation {
			return d, nil
		}
		if o.Driver.Incarnation != "" && !gone(o.Driver) {
			return nil, fmt.Errorf("%s is driven by %s: %w", id, o.Driver.Node, ErrDriven)
		}
		driver.Since = clock.Now()
		d.op.Driver = driver
		d.abandon()
		d.dirty = true
		if err := d.Save(ctx); err == nil {
			return d, nil
		} else if !errors.Is(err, ErrTakenOver) {
			return nil, err
		}
	}
	return nil, &tandem.Error{Op: "drive the operation", Kind: tandem.Unavailable, On: id, Err: errors.New("it keeps changing")}
}

// abandon ends the steps that a former driver left running.
func (d *Driven) abandon() {
	for i := range d.op.Steps {
		if s := &d.op.Steps[i]; s.Status == Running {
			s.Status, s.End = Failed, d.clock.Now()
			s.Details = strings.TrimPrefix(s.Details+"; its driver was lost, another goes on", "; ")
		}
	}
}

// Operation is the present value, with what is not saved yet.
func (d *Driven) Operation() Operation {
	d.mu.Lock()
	defer d.mu.Unlock()
	o := d.op
	o.Steps = slices.Clone(o.Steps)
	return o
}

// Step notes in memory how a step stands; a running one of the same name at the end of the list is the one meant.
func (d *Driven) Step(name string, status Status, details string) Step {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.clock.Now()
	d.dirty = true
	if n := len(d.op.Steps); n > 0 && d.op.Steps[n-1].Name == name && d.op.Steps[n-1].Status == Running {
		s := &d.op.Steps[n-1]
		s.Status = status
		if details != "" {
			s.Details = details
		}
		if status.Ended() {
			s.End = now
		}
		return *s
	}
	s := Step{Name: name, Status: status, Start: now, Details: details}
	if status.Ended() {
		s.End = now
	}
	if len(d.op.Steps) >= MaxSteps {
		d.op.Steps = d.op.Steps[:MaxSteps-1]
	}
	d.op.Steps = append(d.op.Steps, s)
	return s
}

// Commit makes it durable that the operation can no longer be canceled. ErrCanceled when Cancel came first.
func (d *Driven) Commit(ctx context.Context) error {
	if err := d.Refresh(ctx); err != nil {
		return err
	}
	d.mu.Lock()
	canceled := d.op.CancelAsked
	if !canceled && !d.op.Committed {
		d.op.Committed, d.dirty = true, true
	}
	d.mu.Unlock()
	if canceled {
		return ErrCanceled
	}
	return d.Save(ctx)
}

// Refresh takes over a wish to cancel that came meanwhile. ErrTakenOver when another driver has the operation.
func (d *Driven) Refresh(ctx context.Context) error {
	d.saving.Lock()
	defer d.saving.Unlock()
	return d.refresh(ctx)
}

func (d *Driven) refresh(ctx context.Context) error {
	o, rev, err := load(ctx, d.dir, d.op.ID)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if o.Status.Ended() || o.Driver.Incarnation != "" && o.Driver.Incarnation != d.op.Driver.Incarnation {
		d.lost = true
		return fmt.Errorf("%s: %w", d.op.ID, ErrTakenOver)
	}
	d.rev = rev
	d.op.CancelAsked = d.op.CancelAsked || o.CancelAsked
	return nil
}

// Save makes what was noted durable. A wish to cancel that came meanwhile is kept. ErrTakenOver when another driver has
// the operation or it has ended; then nothing more is written.
func (d *Driven) Save(ctx context.Context) error {
	d.saving.Lock()
	defer d.saving.Unlock()
	d.mu.Lock()
	dirty := d.dirty
	d.mu.Unlock()
	if !dirty {
		return nil
	}
	return d.write(ctx, nil)
}

// write commits the present value with more changes; called with saving held.
func (d *Driven) write(ctx context.Context, more func(o Operation) ([]directory.Compare, []directory.Change)) error {
	for range maxTries {
		d.mu.Lock()
		if d.lost {
			d.mu.Unlock()
			return fmt.Errorf("%s: %w", d.op.ID, ErrTakenOver)
		}
		value, rev, o := encode(d.op), d.rev, d.op
		d.dirty = false
		d.mu.Unlock()
		txn := directory.Txn{
			If:   []directory.Compare{{Key: directory.OperationKey(o.ID), Revision: rev}},
			Then: []directory.Change{{Key: directory.OperationKey(o.ID), Value: value}},
		}
		if more != nil {
			cmp, changes := more(o)
			txn.If, txn.Then = append(txn.If, cmp...), append(txn.Then, changes...)
		}
		done, err := d.dir.Commit(ctx, txn)
		d.mu.Lock()
		d.dirty = d.dirty || err != nil || !done.OK
		if err == nil && done.OK {
			d.rev = done.Revision
			d.mu.Unlock()
			return nil
		}
		d.mu.Unlock()
		if err != nil {
			return err
		}
		if len(done.Now) > 0 {
			now, err := decode(done.Now[0])
			switch {
			case err != nil:
				return err
			case now.Driver.Incarnation == o.Driver.Incarnation && now.Status.Ended() && now.Status == o.Status:
				d.settle(done.Now[0].Revision) // an earlier attempt of unknown outcome had happened
				return nil
			case now.Driver.Incarnation != o.Driver.Incarnation, now.Status.Ended():
				return fmt.Errorf("%s: %w", o.ID, ErrTakenOver)
			}
		}
		if err := d.refresh(ctx); err != nil {
			return err
		}
	}
	return &tandem.Error{Op: "record the operation", Kind: tandem.Unavailable, On: d.op.ID, Err: errors.New("it keeps changing")}
}

func (d *Driven) settle(rev directory.Revision) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rev, d.dirty = rev, false
}

// Finish ends the operation, durably: its hub is free for another one. Err and report may be nil. The history of the hub
// is cut to MaxHistory; that part is best effort. ErrTakenOver as for Save; finishing twice is no error.
func (d *Driven) Finish(ctx context.Context, status Status, cause error, report any) (Operation, error) {
	d.saving.Lock()
	defer d.saving.Unlock()
	d.mu.Lock()
	if d.op.Status.Ended() && !d.dirty {
		o := d.op
		d.mu.Unlock()
		return o, nil
	}
	d.op.Status, d.op.Ended, d.op.Error, d.dirty = status, d.clock.Now(), NewFailure(cause), true
	if report != nil {
		b, err := json.Marshal(report)
		if err != nil {
			d.mu.Unlock()
			return Operation{}, &tandem.Error{Op: "record the operation", Kind: tandem.Internal, Err: err}
		}
		d.op.Report = b
	}
	hub := d.op.Hub
	d.mu.Unlock()
	free := func(Operation) ([]directory.Compare, []directory.Change) {
		return nil, []directory.Change{{Key: directory.HubOperationKey(hub), Delete: true}}
	}
	if err := d.write(ctx, free); err != nil {
		return Operation{}, err
	}
	_ = Prune(ctx, d.dir, hub) // the next operation tries again
	return d.Operation(), nil
}

// Prune removes the oldest ended operations of a hub beyond MaxHistory.
func Prune(ctx context.Context, dir directory.Store, hub tandem.HubID) error {
	ops, err := List(ctx, dir, hub)
	if err != nil || len(ops) <= MaxHistory {
		return err
	}
	var old []directory.Change
	for _, o := range ops[MaxHistory:] {
		if o.Status.Ended() {
			old = append(old, directory.Change{Key: directory.OperationKey(o.ID), Delete: true})
		}
	}
	for chunk := range slices.Chunk(old, 100) {
		if _, err := dir.Commit(ctx, directory.Txn{Then: chunk}); err != nil {
			return err
		}
	}
	return nil
}

func newestFirst(ops []Operation) {
	slices.SortStableFunc(ops, func(a, b Operation) int {
		if c := b.Started.Compare(a.Started); c != 0 {
			return c
		}
		return strings.Compare(b.ID, a.ID)
	})
}

// Took is how long a step, or the whole operation, lasted; up to now while it runs.
func (s Step) Took(now time.Time) time.Duration {
	if s.End.IsZero() {
		return now.Sub(s.Start)
	}
	return s.End.Sub(s.Start)
}
