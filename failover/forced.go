package failover

import (
	"fmt"
	"slices"
	"time"

	"tandem"
	"tandem/pairlog"
)

// Forced moves the pen although the source may hold writes that the target lacks. Only an operator asks for it.
type Forced struct {
	Hub        tandem.HubName
	From, To   tandem.RegionName
	Epoch      tandem.Epoch // of the pen that is to be moved
	Mode       pairlog.Mode
	AcceptLoss bool
}

// ForcedFacts is what the driver of a forced failover knows when it asks.
type ForcedFacts struct {
	Driver tandem.RegionName
	Pen    pairlog.Pen
	Waited time.Duration // since this driver began
	InSync bool          // the in-sync set has the target
	LinkUp bool
	// Source.Lapsed: this driver has seen the lease of the pen's incarnation stand still for TTL and margin.
	Source, Target Side
	Fenced         bool      // fence/<the pen's incarnation> exists
	Drained        bool      // the source was asked, with or without an answer
	Closed         *ClosedAt // it answered by closing
	Yielded        bool      // it answered that it stopped
	Reached        bool      // the target has all of Closed
	ReachFailed    bool
	Ended          *pairlog.Fork // the target's copy is ended, here
	Announced      bool
}

// Next reads the facts and says what a forced failover does now. It changes nothing itself.
func (p Forced) Next(f ForcedFacts) Step {
	switch {
	case f.Pen.Epoch > p.Epoch && f.Pen.Region == p.To:
		return arrived(f.Driver, p.From, p.To, f.Target.Facts, f.Pen, f.Announced)
	case f.Pen.Epoch != p.Epoch || f.Pen.Region != p.From:
		return GiveUp{because(ErrAborted, p.on(), fmt.Sprintf("%s went on under epoch %d", f.Pen.Region.Display(), f.Pen.Epoch),
			"the hub is there; ask again if it is still to be moved")}
	case f.Driver == p.From:
		return GiveUp{because(ErrTargetLost, p.on(), p.To.Display()+" stopped answering before it had the pen", "the hub stays in "+p.From.Display())}
	case f.Reached: // nothing is lost after all
		return Claim{Epoch: p.Epoch + 1, Fork: f.Closed.Fork, Whole: true}
	}
	if why := p.notReady(f); why != "" {
		if f.Waited >= ReadyLimit {
			return GiveUp{because(ErrNotReady, p.on(), why, "repair or reseed it, or bring "+p.From.Display()+" back")}
		}
		return Wait{why}
	}
	switch {
	case synchronous(p.Mode) && !f.InSync && !p.AcceptLoss:
		return GiveUp{notInSync(p.on(), p.To)}
	case !f.Drained && f.LinkUp && !f.Source.Lapsed && !f.Fenced:
		return Drain{p.From, p.Epoch, DrainLimit}
	case f.Closed != nil && !f.ReachFailed:
		return Reach{*f.Closed}
	case f.Closed != nil, f.Yielded: // it said itself that it stopped
		return p.take(f, "")
	case !f.Fenced:
		return FenceSource{f.Pen.Incarnation, f.Source.Lapsed}
	case !f.Source.Lapsed:
		return Wait{"the lease of " + p.From.Display()}
	}
	return p.take(f, f.Pen.Incarnation)
}

// take ends the copy before it reads the fork: what the source could still have stored here would be answered by it and
// missing in the new epoch.
func (p Forced) take(f ForcedFacts, fenced tandem.Incarnation) Step {
	if f.Ended == nil {
		return EndCopy{p.Epoch}
	}
	if !InChain(f.Pen, *f.Ended) {
		return GiveUp{because(ErrNotReady, p.on(), p.To.Display()+" has not rolled back its own stranded records yet", "try again in a moment")}
	}
	return Claim{Epoch: p.Epoch + 1, Fork: *f.Ended, Fenced: fenced}
}

func (p Forced) notReady(f ForcedFacts) string {
	if f.Ended != nil {
		return ""
	}
	return unfit(p.To, f.Target.Facts)
}

func (p Forced) on() string { return "hub " + string(p.Hub) }

// InChain reports whether a record belongs to the chain of pen, as far as the pen's forks tell: not to an epoch that the
// chain does not have, and not beyond the fork at which a later epoch went on.
func InChain(pen pairlog.Pen, at pairlog.Fork) bool {
	if at.Number == 0 || len(pen.Forks) == 0 {
		return true
	}
	known := at.Epoch < pen.Forks[0].Epoch
	for _, b := range pen.Forks {
		switch {
		case b.Epoch == at.Epoch:
			known = true
		case b.Epoch > at.Epoch && b.Fork.Epoch <= at.Epoch && at.Number > b.Fork.Number:
			return false
		}
	}
	return known
}

// nextForks are the forks of the chain after a claim at fork: epochs that the new one does not go through are left out.
// own is the chain as the claimant's log has it, for when the pen does not tell: a claim that came to nothing has left out
// the epochs of the holder who now takes the pen back.
func nextForks(pen, next pairlog.Pen, own []pairlog.Branch) []pairlog.Branch {
	chain := pen.Forks
	names := func(b pairlog.Branch) bool { return b.Epoch == next.Fork.Epoch }
	if next.Fork.Number > 0 && !slices.ContainsFunc(chain, names) && slices.ContainsFunc(own, names) {
		chain = own
	}
	return pairlog.Extend(chain, pairlog.Branch{Epoch: next.Epoch, Holder: next.Region, Forced: next.Forced, Fork: next.Fork})
}
