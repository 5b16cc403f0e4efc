package failover

import (
	"fmt"
	"time"

	"tandem"
	"tandem/pairlog"
)

// Planned moves the pen of a hub to the other region and loses nothing.
//
// The target carries it out: it asks the source to close its epoch, has all of it, and claims the next one. When the
// target dies the source ends the operation; it never moves the pen for the target.
type Planned struct {
	Hub      tandem.HubName
	From, To tandem.RegionName
	Epoch    tandem.Epoch // of the pen that is to be moved
	// Deadline of the pause; PauseDeadline when 0.
	Deadline time.Duration
}

// A Side is what the driver knows of one of the two regions.
type Side struct {
	Known  bool // Facts are not older than a second
	Lapsed bool // the lease of the incarnation that matters there was seen lapsed, or it is fenced
	Facts  ReplicaFacts
}

// PlannedFacts is what the driver of a planned failover knows when it asks.
type PlannedFacts struct {
	Driver         tandem.RegionName
	Pen            pairlog.Pen // as the directory has it
	Canceled       bool
	Waited         time.Duration // since this driver began
	Source, Target Side
	Prepared       bool          // the target's next segment is made
	Asked          time.Duration // since this driver first asked the source to close; 0: not yet
	Closed         *ClosedAt     // what the source answered, or the target's copy shows
	Reached        bool          // the target has all of it
	Mismatch       string        // the target's state differs at CLOSE
	Announced      bool
}

// Next reads the facts and says what a planned failover does now. It changes nothing itself.
func (p Planned) Next(f PlannedFacts) Step {
	switch {
	case f.Pen.Epoch > p.Epoch && f.Pen.Region == p.To:
		return arrived(f.Driver, p.From, p.To, f.Target.Facts, f.Pen, f.Announced)
	case f.Pen.Epoch != p.Epoch || f.Pen.Region != p.From:
		return GiveUp{because(ErrAborted, p.on(), fmt.Sprintf("%s went on under epoch %d", f.Pen.Region.Display(), f.Pen.Epoch),
			"the hub stays there and nothing is lost; try again")}
	case f.Driver == p.From:
		return p.targetIsGone(f)
	case f.Reached:
		return Claim{Epoch: p.Epoch + 1, Fork: f.Closed.Fork, Whole: true}
	case f.Mismatch != "": // the source takes the pen back at its deadline
		return GiveUp{because(ErrDiverged, p.on(), f.Mismatch, "the hub stays in "+p.From.Display()+"; the copy in "+p.To.Display()+" has to be rebuilt")}
	case f.Source.Lapsed:
		return GiveUp{p.sourceLost(f)}
	case f.Closed != nil && f.Asked > 2*deadline(p.Deadline): // the source took the pen back, or will, operation or not
		return GiveUp{because(ErrNotReady, p.on(), p.To.Display()+" could not reach the end of the epoch", "the hub stays in "+p.From.Display()+"; try again")}
	case f.Closed != nil:
		return Reach{*f.Closed}
	case f.Asked > deadline(p.Deadline): // if it did close, its own deadline has passed too; a late request is refused
		return GiveUp{because(ErrNotReady, p.on(), p.From.Display()+" did not answer the request to close", "the hub stays there; try again")}
	case f.Asked > 0, f.Source.Known && f.Source.Facts.Role == RoleClosed:
		return Close{p.From, p.Epoch}
	case f.Canceled:
		return GiveUp{because(errCanceled, p.on(), "it was canceled", "nothing was touched")}
	}
	why := p.notReady(f)
	switch {
	case why != "" && f.Waited >= GateLimit:
		return GiveUp{because(ErrNotReady, p.on(), fmt.Sprintf("after %v still %s", GateLimit, why), "nothing was touched; try again later")}
	case why != "":
		return Wait{why}
	case !f.Prepared:
		return Prepare{p.Epoch + 1}
	}
	return Close{p.From, p.Epoch}
}

func deadline(d time.Duration) time.Duration {
	if d == 0 {
		return PauseDeadline
	}
	return d
}

var errCanceled = &tandem.Error{Op: "fail over", Kind: tandem.Precondition}

// arrived is the end of every move: the pen is in the target.
func arrived(driver, from, to tandem.RegionName, target ReplicaFacts, pen pairlog.Pen, announced bool) Step {
	switch {
	case driver != to:
		return Done{}
	case target.Role != RoleHolder || target.Epoch < pen.Epoch:
		return Lead{}
	case !announced:
		return Announce{from}
	}
	return Done{}
}

// targetIsGone is the source finishing what the target began; its own hub loop takes the pen back at the deadline.
func (p Planned) targetIsGone(f PlannedFacts) Step {
	if f.Source.Facts.Role == RoleClosed {
		return Wait{"the pause deadline"}
	}
	return GiveUp{because(ErrTargetLost, p.on(), p.To.Display()+" stopped answering before it had the pen", "the hub stays in "+p.From.Display()+" and nothing is lost")}
}

func (p Planned) sourceLost(f PlannedFacts) *tandem.Error {
	risk := "an unknown number of items is at risk"
	if l := f.Target.Facts.Lag; l.Known || l.Age > 0 || l.Items > 0 {
		risk = fmt.Sprintf("%d items are at risk as far as they were heard of", l.Items)
	}
	return because(ErrSourceLost, p.on(), p.From.Display()+" was lost: "+risk,
		"wait for it to return, or decide for a forced failover")
}

// notReady says in words why closing must wait; empty when nothing is in the way.
func (p Planned) notReady(f PlannedFacts) string {
	t, s := f.Target.Facts, f.Source.Facts
	switch {
	case !f.Source.Known:
		return p.From.Display() + " does not answer"
	case s.Role != RoleHolder || s.Epoch != p.Epoch:
		return p.From.Display() + " has not opened the hub"
	}
	if why := unfit(p.To, t); why != "" {
		return why
	}
	switch {
	case t.Epoch != p.Epoch || !t.Lag.Known:
		return "the copy in " + p.To.Display() + " does not follow"
	case t.Lag.Records > 0 && t.Lag.Age >= GateLag:
		return fmt.Sprintf("the copy is %v behind", t.Lag.Age.Round(time.Millisecond))
	case t.ViewLag >= GateRecords:
		return fmt.Sprintf("the view is %d records behind", t.ViewLag)
	}
	return ""
}

// unfit says why a region could not lead; empty when it could.
func unfit(region tandem.RegionName, t ReplicaFacts) string {
	switch {
	case t.Damaged != "":
		return "the copy in " + region.Display() + " is damaged: " + t.Damaged
	case t.NeedsReseed:
		return "the copy in " + region.Display() + " has to be reseeded"
	case t.Role != RoleFollower:
		return region.Display() + " does not follow the hub yet"
	}
	return ""
}

func (p Planned) on() string { return "hub " + string(p.Hub) }
