// Package failover moves the pen of a hub between two regions: failover, failback, the return of a lost region, and the
// papers that go with them (forecast, report, loss receipt).
//
//	request ─▶ Check ─▶ operation.Start ─▶ driver: facts ─▶ Planned.Next / Forced.Next ─▶ step ─▶ do, note ─▶ facts …
//	boot, or pen lost ───────────────────▶ hub loop: facts ─▶ Return.Next ─▶ step ─▶ do ─▶ facts …
//
// Rules are plain functions from facts to the next step; they change nothing, so a crash anywhere means asking again.
// Controller is the machinery around them, one per node: it watches pens and operations in the directory, asks the rules
// and carries their steps out on this region's Replica, or asks the other region's controller over the link.
//
// What makes it safe is not who drives. Every claim is a compare-and-set over the pen that was read; a request to another
// region names its operation and epoch, and the receiver reads both from the directory before it obeys; CLOSE is final
// for its epoch; the copy is ended before a fork is read from it.
//
// A replica writes, follows and rolls back by itself (package hub); resources and limits are package catalog's and arm's.
package failover

import (
	"time"

	"tandem"
	"tandem/operation"
	"tandem/pairlog"
)

// The times of a failover (design §7).
const (
	// GateLag is how far the copy may be behind when a planned failover begins to close.
	GateLag = 100 * time.Millisecond
	// GateRecords is how far the view may be behind its copy then: folding them takes less than GateLag.
	GateRecords = 100
	// GateLimit is how long a planned failover waits for that; then it gives up with nothing touched.
	GateLimit = 30 * time.Second
	// PauseDeadline is how long a hub stands closed before its former holder takes the next epoch itself.
	PauseDeadline = 5 * time.Second
	// DrainLimit is how long a forced failover lets a source that can be reached send what it has.
	DrainLimit = time.Second
	// ReadyLimit is how long a forced failover waits for a target that is still rolling back or starting.
	ReadyLimit = 30 * time.Second
)

// A Hub is what a controller has to know of a hub's resource.
type Hub struct {
	ID   tandem.HubID
	Name tandem.HubName
	Home tandem.RegionName // where it was created
	Peer tandem.RegionName // Home's partner; empty for a hub without a pair
	Mode pairlog.Mode
}

// Other is the partner of region r for this hub; empty when r does not serve it or it has no pair.
func (h Hub) Other(r tandem.RegionName) tandem.RegionName {
	switch r {
	case h.Home:
		return h.Peer
	case h.Peer:
		return h.Home
	}
	return ""
}

// synchronous reports whether answers wait for the peer's copy.
func synchronous(m pairlog.Mode) bool { return m == pairlog.SyncAvailable || m == pairlog.SyncStrict }

// How a region behaves when it can't reach a majority.
const (
	IsolationStop     = "stop"     // built: it stops answering within the lease time
	IsolationContinue = "continue" // not built
)

// A Request asks for a hub to be moved.
type Request struct {
	Hub tandem.HubID
	// To is the region to move to; empty: wherever the hub is not.
	To tandem.RegionName
	// Forced moves the pen even though the source may hold writes that the target lacks.
	Forced bool
	// ForcedIfLapsed makes it a forced one when the holder's lease has lapsed: what Azure's failover call means.
	ForcedIfLapsed bool
	// AcceptLoss allows a forced one, in the sync modes, to a target outside the in-sync set.
	AcceptLoss bool
	// Requested is who asks, for the record.
	Requested string
	// OnIsolation and Seize are recognised and refused.
	OnIsolation string
	Seize       bool
}

// Conditions that doors act on. A failover during another operation is operation.ErrBusy (a *operation.BusyError).
var (
	ErrUnknownHub   = &tandem.Error{Op: "fail over", Kind: tandem.NotFound}
	ErrUnpaired     = &tandem.Error{Op: "fail over", Kind: tandem.Invalid}
	ErrAlreadyThere = &tandem.Error{Op: "fail over", Kind: tandem.Precondition}
	ErrNoPen        = &tandem.Error{Op: "fail over", Kind: tandem.Unavailable}
	ErrNotInSync    = &tandem.Error{Op: "fail over", Kind: tandem.Precondition}
	ErrNotReady     = &tandem.Error{Op: "fail over", Kind: tandem.Unavailable}
	ErrSourceDark   = &tandem.Error{Op: "fail over", Kind: tandem.Precondition}
	// ErrSourceLost: the source died in the middle of a planned failover, which never becomes a forced one by itself.
	ErrSourceLost = &tandem.Error{Op: "fail over", Kind: tandem.Unavailable}
	// ErrTargetLost: the target died before it had the pen; the hub stays where it is.
	ErrTargetLost = &tandem.Error{Op: "fail over", Kind: tandem.Unavailable}
	// ErrAborted: the source took the next epoch itself; the hub stays where it is and nothing is lost.
	ErrAborted = &tandem.Error{Op: "fail over", Kind: tandem.Conflict}
	// ErrDiverged: the target's state at CLOSE is not the source's; the target must be rebuilt.
	ErrDiverged = &tandem.Error{Op: "fail over", Kind: tandem.Damaged}
	// ErrStale: a request belongs to an operation or an epoch that is over.
	ErrStale = &tandem.Error{Op: "obey a failover request", Kind: tandem.Fenced}
	// ErrMissing: this region lacks records of its own pen that only the peer has.
	ErrMissing = &tandem.Error{Op: "open the hub", Kind: tandem.Precondition}
)

// because is condition with what is the matter and what to do, still errors.Is the condition.
func because(condition *tandem.Error, on, text, hint string) *tandem.Error {
	return &tandem.Error{Op: condition.Op, Kind: condition.Kind, On: on, Err: reason{text, condition}, Hint: hint}
}

type reason struct {
	text      string
	condition error
}

func (r reason) Error() string { return r.text }
func (r reason) Unwrap() error { return r.condition }

// StartFacts is what Check looks at.
type StartFacts struct {
	Hub     Hub
	Found   bool        // the hub exists
	Pen     pairlog.Pen // as the directory has it; epoch 0: none
	InSync  bool        // the in-sync set has the target
	Lapsed  bool        // the holder's lease was seen lapsed or fenced
	Reached bool        // the holder's region answers over the link, or is this one
}

// Check says whether a request may start, and as which operation: a planned failover, a failback or a forced one.
// It fills in To.
func Check(r Request, f StartFacts) (Request, operation.Kind, error) {
	name := "hub " + string(f.Hub.Name)
	switch {
	case r.Seize:
		return r, "", &tandem.Error{Op: "seize a region", Kind: tandem.Unsupported, Hint: "two sites without a witness are not built yet; fail the hub over with --forced"}
	case r.OnIsolation != "" && r.OnIsolation != IsolationStop:
		return r, "", &tandem.Error{Op: "set on-isolation", Kind: tandem.Unsupported, On: r.OnIsolation, Hint: "only stop is built"}
	case !f.Found:
		return r, "", because(ErrUnknownHub, string(r.Hub), "there is no such hub", "")
	case f.Hub.Peer == "":
		return r, "", because(ErrUnpaired, name, "its region "+f.Hub.Home.Display()+" has no pair", "")
	case f.Pen.Epoch == 0:
		return r, "", because(ErrNoPen, name, "it has not been opened yet", "try again in a moment")
	}
	if r.To == "" {
		r.To = f.Hub.Other(f.Pen.Region)
	}
	r.To = tandem.ParseRegion(string(r.To))
	switch {
	case r.To == f.Pen.Region:
		return r, "", because(ErrAlreadyThere, name, "it runs in "+r.To.Display()+" already", "")
	case f.Hub.Other(f.Pen.Region) != r.To:
		return r, "", because(ErrUnpaired, name, r.To.Display()+" is not the pair of "+f.Pen.Region.Display(),
			"its other region is "+f.Hub.Other(f.Pen.Region).Display())
	}
	if !r.Forced && r.ForcedIfLapsed && f.Lapsed {
		r.Forced = true
	}
	if r.Forced {
		if synchronous(f.Hub.Mode) && !f.InSync && !r.AcceptLoss {
			return r, "", notInSync(name, r.To)
		}
		return r, operation.Forced, nil
	}
	if f.Lapsed || !f.Reached {
		return r, "", because(ErrSourceDark, name, f.Pen.Region.Display()+" does not answer, so a planned failover can't be done",
			"look at the forecast, then use a forced failover")
	}
	return r, plannedKind(r.To, f.Hub.Home), nil
}

func notInSync(on string, to tandem.RegionName) *tandem.Error {
	return because(ErrNotInSync, on, to.Display()+" is not in the hub's in-sync set: acknowledged writes may be missing there",
		"accept the loss explicitly, or wait until the region has caught up")
}
