package failover

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tandem"
	"tandem/directory"
	"tandem/operation"
	"tandem/pairlog"
)

// mine says whether this node is to drive an operation now: the target's region at once, the source's when the target's
// driver is gone or none came within a lease's time.
func (h *hubLoop) mine(o operation.Operation) bool {
	self := h.c.o.Lease.Incarnation()
	switch {
	case o.Driver.Incarnation == self:
		return true
	case o.To == h.c.o.Region:
		return o.Driver.Incarnation == "" || h.gone(o.Driver)
	case o.From != h.c.o.Region:
		return false
	case o.Driver.Incarnation != "":
		return h.gone(o.Driver)
	}
	now := h.c.o.Clock.Boot()
	since, ok := h.undriven[o.ID]
	if !ok {
		clear(h.undriven)
		h.undriven[o.ID] = now
	}
	return ok && now-since > h.c.o.TTL+directory.LeaseMargin
}

// gone says whether a driver can't come back: a former life of this node, or a lease that was seen lapsed or fenced.
func (h *hubLoop) gone(d operation.Driver) bool {
	if d.Node == h.c.o.Node && d.Incarnation != h.c.o.Lease.Incarnation() {
		return true
	}
	return h.c.leases.gone(d.Incarnation)
}

// A drive is one node's work on one operation: what it has learned so far. Nothing of it has to survive; whoever drives
// next learns it again.
type drive struct {
	*hubLoop
	op      operation.Operation
	driven  *operation.Driven
	replica Replica
	began   time.Duration
	last    string // the step that is noted as running
	failure error  // of the last attempt at a step

	canceled    bool
	prepared    bool
	asked       time.Duration // Clock.Boot of the first request to close; 0: none
	opened      time.Duration // Clock.Boot when the new holder took writes
	closed      *ClosedAt
	reached     bool
	mismatch    string
	announced   bool
	drained     bool
	drainEnd    time.Duration
	yielded     bool
	reachFailed bool
	end         *pairlog.Fork
	source      Side
	set         pairlog.InSyncSet
	setRev      directory.Revision
	lag         pairlog.Lag // the target's before the claim
	sessions    int
}

// drive carries an operation out, from wherever it stands, until it has ended or is somebody else's.
func (h *hubLoop) drive(ctx context.Context, replica Replica, o operation.Operation) {
	driven, err := operation.Drive(ctx, h.c.o.Directory, h.c.o.Clock, o.ID, operation.Driver{Region: h.c.o.Region, Node: h.c.o.Node,
		Incarnation: h.c.o.Lease.Incarnation()}, h.gone)
	if err != nil {
		if !errors.Is(err, operation.ErrDriven) && !errors.Is(err, operation.ErrTakenOver) && ctx.Err() == nil {
			h.c.o.Logger.Warn("operation not driven", "hub", h.name(), "operation", o.ID, "error", err)
		}
		return
	}
	d := &drive{hubLoop: h, op: driven.Operation(), driven: driven, replica: replica, began: h.c.o.Clock.Boot()}
	d.c.o.Logger.Info("operation driven", "hub", h.name(), "operation", o.ID, "kind", o.Kind, "from", o.From, "to", o.To)
	for ctx.Err() == nil {
		step, err := d.next(ctx)
		if err != nil {
			if errors.Is(err, operation.ErrTakenOver) {
				return
			}
			d.failure = err
			h.c.sleep(ctx, poll)
			continue
		}
		switch s := step.(type) {
		case Done:
			d.finish(ctx, operation.Succeeded, nil)
			return
		case GiveUp:
			status := operation.Failed
			if errors.Is(s.Err, errCanceled) {
				status = operation.Canceled
			}
			d.giveBack()
			d.finish(ctx, status, s.Err)
			return
		}
		d.note(step, operation.Running, "")
		err = d.do(ctx, step)
		switch {
		case errors.Is(err, operation.ErrTakenOver):
			return
		case ctx.Err() != nil:
			return
		case err != nil:
			d.failure = err
			h.c.o.Logger.Info("step not done yet", "hub", h.name(), "operation", o.ID, "step", step.String(), "error", err)
			h.changed()
			h.c.sleep(ctx, poll)
		}
	}
}

// next gathers the facts and asks the rule. Outside of the pause it also saves what was noted.
func (d *drive) next(ctx context.Context) (Step, error) {
	pausing := d.asked != 0 && d.opened == 0
	if !pausing && d.asked == 0 {
		if err := d.driven.Refresh(ctx); err != nil {
			return nil, err
		}
		d.canceled = d.driven.Operation().CancelAsked
		if d.op.From != d.c.o.Region {
			d.source = d.c.side(ctx, d.op.From, d.op.Hub)
			d.sessions = max(d.sessions, d.source.Facts.Sessions)
		}
	}
	if err := d.reread(ctx); err != nil {
		return nil, err
	}
	target, source := Side{}, d.source
	if d.op.To == d.c.o.Region {
		target = Side{Known: true, Facts: d.replica.Facts()}
		if d.end == nil && d.closed == nil {
			d.lag = target.Facts.Lag
		}
	} else {
		source = Side{Known: true, Facts: d.replica.Facts()}
	}
	if d.op.From != d.c.o.Region && d.pen.Region == d.op.From {
		source.Lapsed = d.c.leases.gone(d.pen.Incarnation)
	}
	now := d.c.o.Clock.Boot()
	var asked time.Duration
	if d.asked != 0 {
		asked = max(now-d.asked, 1)
	}
	if d.op.Kind != operation.Forced {
		return d.planned().Next(PlannedFacts{Driver: d.c.o.Region, Pen: d.pen, Canceled: d.canceled, Waited: now - d.began,
			Source: source, Target: target, Prepared: d.prepared, Asked: asked, Closed: d.closed, Reached: d.reached,
			Mismatch: d.mismatch, Announced: d.announced}), nil
	}
	f := ForcedFacts{Driver: d.c.o.Region, Pen: d.pen, Waited: now - d.began, LinkUp: d.c.o.Link.Up(), Source: source, Target: target,
		Drained: d.drained, Closed: d.closed, Yielded: d.yielded, Reached: d.reached, ReachFailed: d.reachFailed, Ended: d.end,
		Announced: d.announced}
	if d.pen.Region == d.op.From {
		s := d.c.leases.see(d.pen.Incarnation)
		f.Fenced, f.Source.Lapsed = s.Fenced, s.Lapsed
		set, rev, err := pairlog.ReadInSync(ctx, d.c.o.Directory, d.op.Hub)
		if err != nil {
			return nil, err
		}
		d.set, d.setRev = set, rev
		f.InSync = set.Mode == d.info().Mode && set.Contains(d.op.To)
	}
	return d.forced().Next(f), nil
}

func (d *drive) planned() Planned {
	return Planned{Hub: d.name(), From: d.op.From, To: d.op.To, Epoch: d.op.Epoch, Deadline: d.c.o.Deadline}
}

func (d *drive) forced() Forced {
	return Forced{Hub: d.name(), From: d.op.From, To: d.op.To, Epoch: d.op.Epoch, Mode: d.info().Mode, AcceptLoss: d.op.AcceptLoss}
}

// do carries out one step and notes how it went.
func (d *drive) do(ctx context.Context, step Step) (err error) {
	switch s := step.(type) {
	case Wait:
		if d.asked == 0 && d.end == nil && !d.drained {
			d.settle(ctx, d.replica)
		}
		d.c.sleep(ctx, poll)
		return nil
	case Prepare:
		if err = d.replica.Prepare(ctx, s.Epoch); err == nil {
			d.prepared = true
		}
	case Close:
		err = d.close(ctx, s)
	case Reach:
		err = d.reach(ctx, s)
	case Drain:
		err = d.drain(ctx, s)
	case FenceSource:
		err = d.fence(ctx, s)
	case EndCopy:
		err = d.endCopy(ctx, s)
	case Claim:
		err = d.take(ctx, s)
	case Lead:
		err = d.open(ctx)
	case Announce:
		d.hubLoop.announce()
		d.announced = true
	default:
		err = &tandem.Error{Op: "do " + step.String(), Kind: tandem.Internal}
	}
	if err == nil {
		d.note(step, operation.Succeeded, step.String())
	} else if ctx.Err() == nil {
		d.note(step, operation.Running, err.Error()) // it is asked for again
	}
	if d.asked == 0 || d.opened != 0 {
		if saved := d.driven.Save(ctx); errors.Is(saved, operation.ErrTakenOver) {
			return saved
		}
	}
	return err
}

// close asks the source to end its epoch. Before the first request everything that takes time is done: the operation is
// committed, pen and in-sync set are read for the claim.
func (d *drive) close(ctx context.Context, s Close) error {
	if d.asked == 0 {
		if err := d.driven.Commit(ctx); errors.Is(err, operation.ErrCanceled) {
			d.canceled = true
			return nil
		} else if err != nil {
			return err
		}
		set, rev, err := pairlog.ReadInSync(ctx, d.c.o.Directory, d.op.Hub)
		if err != nil {
			return err
		}
		d.set, d.setRev = set, rev
		d.asked = max(d.c.o.Clock.Boot(), 1)
	}
	var at ClosedAt
	within := max(deadline(d.c.o.Deadline)-(d.c.o.Clock.Boot()-d.asked), poll)
	err := d.c.ask(ctx, s.Source, verbClose, within, request{Hub: d.op.Hub, Operation: d.op.ID, Step: s.Name(), Epoch: s.Epoch}, &at)
	if err != nil {
		return err
	}
	d.closed = &at
	return nil
}

// reach waits until copy and view are at the close. The view's own waits are cut into pieces, so that a pen that has
// moved meanwhile is noticed.
func (d *drive) reach(ctx context.Context, s Reach) error {
	piece := asking
	if d.op.Kind == operation.Forced {
		piece = max(d.drainEnd-d.c.o.Clock.Boot(), poll)
	}
	short, cancel := context.WithTimeout(ctx, piece)
	defer cancel()
	err := d.replica.Reach(short, s.At)
	switch {
	case err == nil:
		d.reached = true
	case d.op.Kind == operation.Forced:
		d.reachFailed = true // what is beyond will be the tail
	case tandem.KindOf(err) == tandem.Damaged:
		d.mismatch = err.Error()
	default:
		return err
	}
	return nil
}

func (d *drive) drain(ctx context.Context, s Drain) error {
	d.drainEnd = d.c.o.Clock.Boot() + s.For
	var answer drained
	err := d.c.ask(ctx, s.Source, verbDrain, s.For+s.For/2, request{Hub: d.op.Hub, Operation: d.op.ID, Step: s.Name(), Epoch: s.Epoch, For: s.For}, &answer)
	d.drained = true // once is enough: without an answer the lease decides
	if err != nil {
		d.c.o.Logger.Info("source not drained", "hub", d.name(), "error", err)
		return nil
	}
	d.closed, d.yielded = answer.Closed, answer.Yielded
	if d.closed != nil {
		d.asked = max(d.drainEnd-s.For, 1)
	}
	return nil
}

// fence makes the source's incarnation unable to renew. One that still renews is fenced first, and what its lease is
// good for is waited for afterwards: it can't become more.
func (d *drive) fence(ctx context.Context, s FenceSource) error {
	var err error
	if s.Lapsed {
		err = d.c.o.Taker.Fence(ctx, s.Incarnation)
	} else {
		err = directory.FenceFormer(ctx, d.c.o.Directory, s.Incarnation, d.c.o.Lease.Incarnation())
	}
	if err != nil {
		return err
	}
	d.c.leases.fenced(s.Incarnation)
	return nil
}

func (d *drive) endCopy(ctx context.Context, s EndCopy) error {
	d.act.Lock()
	defer d.act.Unlock()
	d.lag = d.replica.Facts().Lag
	d.heard, d.following = d.lag, 0
	fork, err := d.replica.EndCopy(ctx, s.Epoch)
	if err != nil {
		return err
	}
	d.end = &fork
	return nil
}

func (d *drive) take(ctx context.Context, s Claim) error {
	d.act.Lock()
	defer d.act.Unlock()
	if !d.c.o.Lease.Term().Valid() {
		return because(ErrNotReady, d.on(), "this node's lease has lapsed", "")
	}
	err := d.claimWith(ctx, s, !s.Whole, d.set, d.setRev)
	if errors.Is(err, pairlog.ErrClaimLost) && d.end != nil {
		d.ended = s.Epoch - 1 // a definite no: the copy may go on
	}
	if errors.Is(err, pairlog.ErrClaimLost) { // the set may have changed, not the pen
		var readErr error
		if d.set, d.setRev, readErr = pairlog.ReadInSync(ctx, d.c.o.Directory, d.op.Hub); readErr != nil {
			return readErr
		}
	}
	return err
}

// open leads under the pen that was just claimed, or, when that was another life's, under a new one.
func (d *drive) open(ctx context.Context) error {
	if d.claimed == d.pen.Epoch && d.pen.Incarnation == d.c.o.Lease.Incarnation() {
		d.act.Lock()
		err := d.lead(ctx, d.replica)
		d.act.Unlock()
		if err != nil {
			return err
		}
		d.announced = true
	} else {
		d.settle(ctx, d.replica)
		if f := d.replica.Facts(); f.Role != RoleHolder {
			return because(ErrNotReady, d.on(), "the hub is not open yet", "")
		}
	}
	d.opened = max(d.c.o.Clock.Boot(), 1)
	return nil
}

// giveBack lets a copy that was ended for nothing go on; settle follows again.
func (d *drive) giveBack() {
	if d.end != nil {
		d.ended = d.op.Epoch
	}
}

// note records a step in memory and tells whoever listens.
func (d *drive) note(step Step, status operation.Status, details string) {
	key := step.Name() + string(status) + details
	if key == d.last {
		return
	}
	d.last = key
	if w, ok := step.(Wait); ok {
		details = w.For
	}
	if steps := d.driven.Operation().Steps; status == operation.Running && len(steps) > 0 {
		if last := steps[len(steps)-1]; last.Status == operation.Running && last.Name != step.Name() { // a wait is over, a failed attempt given up
			ended := operation.Succeeded
			if last.Name != (Wait{}).Name() {
				ended = operation.Failed
			}
			d.tell(d.driven.Step(last.Name, ended, ""))
		}
	}
	d.tell(d.driven.Step(step.Name(), status, details))
}

func (d *drive) tell(step operation.Step) {
	d.c.o.Notify.Send(StepDone{Hub: d.op.Hub, Name: d.name(), Operation: d.op.ID, Step: step})
}

// finish ends the operation with its report; it tries until that is durable or somebody else has done it.
func (d *drive) finish(ctx context.Context, status operation.Status, cause *tandem.Error) {
	if steps := d.driven.Operation().Steps; len(steps) > 0 && steps[len(steps)-1].Status == operation.Running {
		last := steps[len(steps)-1]
		ended := operation.Failed
		if status == operation.Succeeded {
			ended = operation.Succeeded
		}
		d.tell(d.driven.Step(last.Name, ended, ""))
	}
	var err error
	if cause != nil {
		err = cause
		if d.failure != nil {
			err = fmt.Errorf("%w (last: %v)", cause, d.failure)
		}
	}
	if d.pen.Region == d.op.To {
		role := RoleHolder
		if d.op.To != d.c.o.Region {
			role = RoleFollower
		}
		d.settleReceipts(ctx, d.replica, role)
	}
	report := d.report(ctx)
	for ctx.Err() == nil {
		o, saveErr := d.driven.Finish(ctx, status, err, report)
		if saveErr == nil {
			level := d.c.o.Logger.Info
			if status == operation.Failed {
				level = d.c.o.Logger.Warn
			}
			level("operation ended", "hub", d.name(), "operation", o.ID, "status", status, "pause_ms", report.Pause, "error", err)
			d.c.o.Notify.Send(OperationEnded{Operation: o, Pause: time.Duration(report.Pause * float64(time.Millisecond))})
			return
		}
		if errors.Is(saveErr, operation.ErrTakenOver) {
			return
		}
		d.c.sleep(ctx, poll)
	}
}

// report puts together what is known at the end.
func (d *drive) report(ctx context.Context) Report {
	o := d.driven.Operation()
	now := d.c.o.Clock.Now()
	r := Report{Kind: o.Kind, Hub: d.name(), From: o.From, To: o.To, Epoch: d.pen.Epoch, Fork: d.pen.Fork, Total: milliseconds(now.Sub(o.Started)),
		Steps: stepTimes(o.Steps, now), Connections: d.sessions}
	moved := d.pen.Region == o.To && d.pen.Epoch > o.Epoch
	forced, receipt := d.forcedClaim()
	r.Lossless = !moved || !forced
	if !moved {
		r.Note = "the hub was not moved"
		return r
	}
	if d.opened != 0 {
		r.Switch = milliseconds(d.opened - d.began)
		if d.asked != 0 {
			r.Pause = milliseconds(d.opened - d.asked)
		}
	}
	if forced {
		lost := &Lost{Receipt: receipt, State: Provisional, AtRisk: d.lag.Items, Bytes: d.lag.Bytes, Seconds: d.lag.Age.Seconds()}
		if known, err := LoadReceipt(ctx, d.c.o.Directory, receipt); err == nil {
			lost.State = known.State
		}
		r.Lossless = d.set.Mode != "" && synchronous(d.set.Mode) && d.set.Contains(o.To)
		r.Lost = lost
	}
	return r
}

// forcedClaim finds the forced claim by which the pen came to the target in this operation, if it was one.
func (d *drive) forcedClaim() (bool, string) {
	for _, b := range d.pen.Forks {
		if b.Forced && b.Epoch > d.op.Epoch {
			return true, receiptID(d.op.Hub, b.Epoch)
		}
	}
	return false, ""
}
