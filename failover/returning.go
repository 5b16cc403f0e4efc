package failover

import (
	"fmt"
	"time"

	"tandem"
	"tandem/pairlog"
)

// Return is what a region does for a hub at boot, when its pen was lost, and whenever the pen has moved: the answer to
// "what am I now?", from the directory and never from the peer's word.
type Return struct {
	Hub         tandem.HubName
	Region      tandem.RegionName
	Peer        tandem.RegionName
	Home        tandem.RegionName
	Incarnation tandem.Incarnation
	// Deadline of a pause; PauseDeadline when 0.
	Deadline time.Duration
}

// ReturnFacts is what a region knows when it asks.
type ReturnFacts struct {
	Directory bool        // a majority answered a linearizable read
	Pen       pairlog.Pen // what it said; epoch 0: nobody has claimed the hub yet
	Replica   ReplicaFacts
	Following tandem.Epoch // the epoch under which this process follows; 0: none
	Leased    bool         // this node's own lease is valid
	// Stopped is how long ago this region closed or fenced itself on an operation's request; 0: it did not.
	Stopped time.Duration
	// HolderLapsed: the lease of the pen's incarnation was seen lapsed, or it is fenced.
	HolderLapsed bool
	Compared     bool          // the peer was asked where its copy ends
	PeerEnd      *pairlog.Fork // what it said; nil: it is dark
	PeerAcked    uint64        // the peer-acknowledged position that this region last recorded in the directory, in epoch PeerAckedEpoch
	PeerAckedIn  tandem.Epoch
	CanFetch     bool
}

// Next reads the facts and says what the region does now. It changes nothing itself.
func (r Return) Next(f ReturnFacts) Step {
	role := f.Replica.Role
	switch {
	case !f.Directory && role == RoleFollower, !f.Directory && role == RoleHolder: // its lease decides how long it leads
		return Stay{role}
	case !f.Directory:
		return Wait{"a majority of the directory"}
	case f.Pen.Epoch == 0 && r.Home != r.Region:
		return Wait{"the home region, to open the hub"}
	case f.Pen.Epoch == 0:
		return r.open(f, Reopen{Epoch: 1})
	case f.Pen.Region != r.Region:
		return r.another(f)
	case role == RoleHolder && f.Replica.Epoch == f.Pen.Epoch && f.Pen.Incarnation == r.Incarnation:
		return Stay{RoleHolder}
	case role == RoleHolder:
		return Fence{"its epoch is over"}
	case f.Stopped > 0 && f.Stopped < deadline(r.Deadline) && f.Pen.Incarnation == r.Incarnation:
		return Wait{"the successor"}
	}
	// A claim that never wrote its PEN record went on after a fork of which nobody saw the end if it was forced.
	return r.open(f, Reopen{Epoch: f.Pen.Epoch + 1, Forced: f.Pen.Forced && f.Replica.Epoch < f.Pen.Epoch})
}

// another is for a pen that another region has.
func (r Return) another(f ReturnFacts) Step {
	if r.mayTakeBack(f) {
		return r.open(f, Reopen{Epoch: f.Pen.Epoch + 1})
	}
	if f.Pen.State == pairlog.PenClaimed && f.Following != f.Pen.Epoch { // following would give the tail up for a pen that may come to nothing
		if f.Replica.Role == RoleHolder {
			return Fence{f.Pen.Region.Display() + " has claimed the pen"}
		}
		return Wait{f.Pen.Region.Display() + ", to open its pen"}
	}
	if f.Replica.Role == RoleFollower && f.Following == f.Pen.Epoch {
		return Stay{RoleFollower}
	}
	return Follow{f.Pen}
}

// mayTakeBack is for a claimant that died before it served anybody: its epoch is void, and the former holder goes on with
// all that it has.
func (r Return) mayTakeBack(f ReturnFacts) bool {
	pen, end := f.Pen, f.Replica.End
	if pen.State != pairlog.PenClaimed || !f.HolderLapsed || f.Replica.Epoch >= pen.Epoch || f.Following == pen.Epoch {
		return false
	}
	if n := len(pen.Forks); n < 2 || pen.Forks[n-2].Holder != r.Region {
		return false
	}
	return end.Epoch >= pen.Fork.Epoch && end.Number >= pen.Fork.Number
}

// open is for a region that is entitled to the next epoch: it may take it once it has all of its own log.
func (r Return) open(f ReturnFacts, step Reopen) Step {
	end := f.Replica.End
	switch {
	case f.Replica.Damaged != "":
		return Refuse{&tandem.Error{Op: "open the hub", Kind: tandem.Damaged, On: r.on(), Err: reason{f.Replica.Damaged, pairlog.ErrDamaged},
			Hint: "fail it over to " + r.Peer.Display() + ", or repair the data"}}
	case f.Replica.NeedsReseed:
		return Refuse{because(ErrMissing, r.on(), "this region has no usable state", "fail it over to "+r.Peer.Display()+" and reseed this region")}
	case f.Replica.NoRoom: // a claim now would only be followed by the next one
		return Wait{"room on the disk"}
	case !f.Leased:
		return Wait{"this node's lease"}
	case f.Pen.Epoch == 0 || r.Peer == "":
		return step
	case !f.Compared:
		return Compare{}
	case f.PeerEnd != nil && f.PeerEnd.Epoch == end.Epoch && f.PeerEnd.Number > end.Number && InChain(f.Pen, *f.PeerEnd),
		f.PeerEnd != nil && f.PeerEnd.Epoch > end.Epoch && f.PeerEnd.Epoch <= f.Pen.Epoch && InChain(f.Pen, *f.PeerEnd):
		if f.CanFetch {
			return Fetch{*f.PeerEnd}
		}
		return Refuse{because(ErrMissing, r.on(), fmt.Sprintf("%s has records up to %s, this region only up to %s", r.Peer.Display(),
			forkString(*f.PeerEnd), forkString(end)), "force a failover to "+r.Peer.Display())}
	case f.PeerEnd == nil && f.PeerAckedIn == end.Epoch && f.PeerAcked > end.Number, f.PeerEnd == nil && f.PeerAckedIn > end.Epoch:
		return Refuse{because(ErrMissing, r.on(), fmt.Sprintf("%s had acknowledged e%d.%d, this region ends at %s", r.Peer.Display(),
			f.PeerAckedIn, f.PeerAcked, forkString(end)), "bring "+r.Peer.Display()+" back, or force a failover to it")}
	case f.Pen.Region == r.Region && (end.Number < f.Pen.Fork.Number || end.Epoch < f.Pen.Fork.Epoch): // never go on from less than the pen did
		return Refuse{because(ErrMissing, r.on(), fmt.Sprintf("its pen goes on after %s, this region's log ends at %s", forkString(f.Pen.Fork), forkString(end)),
			"force a failover to "+r.Peer.Display()+", or repair the data")}
	}
	return step
}

func (r Return) on() string { return "hub " + string(r.Hub) }
