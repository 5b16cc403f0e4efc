package model

// Rules are the rules of the design that the model can do without. All true is the design; each false one is a
// mistake that somebody could make, and the tests show what it costs.
type Rules struct {
	EndBeforeFork       bool // the taker ends its copy durably before it reads its fork
	EndedCopyRests      bool // an ended copy neither stores nor acknowledges
	NewEpochOnRestart   bool // a restarted holder claims a new epoch
	CompareOnRestart    bool // …and first fetches what only the peer has, or refuses
	FetchComparesFork   bool // …but nothing that a fork has left behind since
	CloseIsFinal        bool // after CLOSE of e nobody goes on in e
	CheckOperation      bool // requests and claims are checked against the operation in the directory
	SourceAborts        bool // once a request to close may be on its way, only the source calls the operation off
	AnswerChecksLease   bool // a durable write is answered only while the lease is valid
	FenceWaitsForLapse  bool // a fence compares the lease that was seen to lapse
	ClaimComparesPen    bool // a claim is a compare-and-set over the pen's epoch
	ClaimComparesState  bool // …and over its being claimed or open
	ClaimComparesFence  bool // a forced claim needs the holder's fence
	ClaimComparesSet    bool // a claim reads the in-sync set in its own transaction
	RollBackBeforeClaim bool // a region with a tail past a fork rolls back before it may lead
	RollBackWhenOpen    bool // a tail is rolled back only once the new epoch is open, not while it is only claimed
	SealBeforeList      bool // a tail is sealed before it is listed and cut off
	KeepTail            bool // …and kept
	SyncBeforeAnswer    bool // an answered record is on disk
	RemoveBeforeAlone   bool // sync-available answers alone only after the removal transaction
	RemovalComparesPen  bool // the removal holds only for the unfenced holder of the pen
	RejoinByHolder      bool // the holder stops answering alone, and then adds its peer
}

// Design is every rule as the design has it.
func Design() Rules {
	return Rules{
		true, true, true, true, true, true, true, true, true, true, true,
		true, true, true, true, true, true, true, true, true, true, true,
	}
}

// An action is one thing that region r may do now. It returns the state after it, and false when it is not possible.
type action struct {
	name string
	do   func(c *Config, s State, r Region) (State, bool)
}

// actions in the order of a story: work, fail over, fail.
var actions = []action{
	{"append", appendRecord},
	{"sync", syncDisk},
	{"replicate", replicate},
	{"ack", ack},
	{"check lease", checkLease},
	{"answer", answer},
	{"remove peer from in-sync set", removePeer},
	{"stop answering alone", awaitPeer},
	{"rejoin", rejoin},
	{"start planned failover to itself", startPlanned},
	{"start forced failover to itself", startForced},
	{"ask to close", askToClose},
	{"accept request to close", acceptClose},
	{"close", closeEpoch},
	{"abort", abort},
	{"give up the operation", giveUp},
	{"renew", renew},
	{"lapse", lapse},
	{"see the peer's lease lapsed", seeLapse},
	{"fence the peer", fence},
	{"end copy", endCopy},
	{"go on with the copy", resumeCopy},
	{"read fork", readFork},
	{"claim", claim},
	{"claim again", claimAgain},
	{"take the pen back", takeBack},
	{"open", open},
	{"lose the pen", losePen},
	{"roll back", rollBack},
	{"fetch from peer", fetch},
	{"crash", crash},
	{"crash, unsynced record lost", crashLosing},
	{"crash, synced record lost", crashCutting},
	{"restart", restart},
	{"pause", pause},
	{"wake", wake},
}

// Operations. One at a time, in the directory; its target drives it.

func startOperation(c *Config, s State, target Region, forced bool) (State, bool) {
	if !s.alive(target) || s.op != 0 || s.ops == c.Ops || s.penRegion == target || s.penEpoch == c.Epochs {
		return s, false
	}
	s.ops++
	s.op, s.opForced, s.opTarget, s.opEpoch = s.ops, forced, target, s.penEpoch
	return s, true
}

func startPlanned(c *Config, s State, r Region) (State, bool) {
	if !s.penOpen {
		return s, false
	}
	return startOperation(c, s, r, false)
}

func startForced(c *Config, s State, r Region) (State, bool) { return startOperation(c, s, r, true) }

func (s *State) endOperation() { s.op, s.opForced, s.opTarget, s.opEpoch = 0, false, A, 0 }

// drives says whether r is to carry out the operation, which has not been overtaken by another claim.
func (s *State) drives(r Region) bool {
	return s.alive(r) && s.op != 0 && s.opTarget == r && s.opEpoch == s.penEpoch
}

func askToClose(_ *Config, s State, r Region) (State, bool) {
	if !s.drives(r) || s.opForced || s.askOp == s.op {
		return s, false
	}
	s.askOp, s.askEpoch = s.op, s.opEpoch
	return s, true
}

// acceptClose is the receiver's check. The request may be late, or come twice.
func acceptClose(c *Config, s State, r Region) (State, bool) {
	n := &s.nodes[r]
	if !s.alive(r) || n.role != Open || n.closing || s.askOp == 0 || s.askEpoch != n.epoch {
		return s, false
	}
	if c.Rules.CheckOperation && s.op != s.askOp {
		return s, false
	}
	n.closing = true
	return s, true
}

// closeEpoch comes after everything in flight was answered.
func closeEpoch(c *Config, s State, r Region) (State, bool) {
	n := &s.nodes[r]
	if !s.alive(r) || n.role != Open || !n.closing || n.pending != 0 || !n.valid {
		return s, false
	}
	s.push(c, r)
	s.at(n.epoch).close = n.tip.number()
	n.role, n.closing, n.alone = Closed, false, false
	return s, true
}

// abort is the source calling a planned failover off before it wrote CLOSE. The goroutine that writes CLOSE does it,
// so no accepted request is left behind. After CLOSE the only way back is claimAgain.
func abort(c *Config, s State, r Region) (State, bool) {
	n := &s.nodes[r]
	if !s.alive(r) || s.op == 0 || s.opForced || !s.holdsPen(r) {
		return s, false
	}
	if n.role == Closed && !c.Rules.CloseIsFinal {
		n.role = Open
	}
	if n.role != Open {
		return s, false
	}
	n.closing = false
	s.endOperation()
	return s, true
}

// giveUp is the driver calling the operation off.
func giveUp(c *Config, s State, r Region) (State, bool) {
	if !s.alive(r) || s.op == 0 || s.opTarget != r {
		return s, false
	}
	asked := !s.opForced && s.askOp == s.op && s.opEpoch == s.penEpoch && s.nodes[r.peer()].up
	if asked && c.Rules.SourceAborts {
		return s, false
	}
	s.endOperation()
	return s, true
}

// Lease and fence.

func renew(c *Config, s State, r Region) (State, bool) {
	n, peer := &s.nodes[r], &s.nodes[r.peer()]
	if !s.alive(r) || n.role != Open || !n.valid || s.fenced[r] {
		return s, false
	}
	news := peer.saw
	peer.saw = false
	if c.Cuts > 0 && n.acked && s.recorded != n.tip {
		s.recorded, news = n.tip, true
	}
	return s, news
}

// lapse is the holder's own count coming to its end. An answer that has passed its check leaves within the margin.
func lapse(c *Config, s State, r Region) (State, bool) {
	n := &s.nodes[r]
	if !s.alive(r) || !n.valid || n.checked {
		return s, false
	}
	if !c.Clocks { // nothing happens between a lapse and its being noticed that could not happen before it
		n.stop()
	}
	n.valid = false
	return s, true
}

func seeLapse(c *Config, s State, r Region) (State, bool) {
	n, peer := &s.nodes[r], &s.nodes[r.peer()]
	if !c.Clocks || !s.drives(r) || !s.opForced || n.saw || s.penFenced() || s.alive(r.peer()) && peer.valid {
		return s, false
	}
	n.saw = true
	return s, true
}

func fence(c *Config, s State, r Region) (State, bool) {
	n := &s.nodes[r]
	if !s.drives(r) || !s.opForced || s.penFenced() || c.Clocks && !n.saw && c.Rules.FenceWaitsForLapse {
		return s, false
	}
	n.saw = false
	s.fenced[s.penRegion] = true
	return s, true
}

// Fork and claim.

func endCopy(_ *Config, s State, r Region) (State, bool) {
	n := &s.nodes[r]
	if !s.drives(r) || n.role != Idle || n.ended != 0 {
		return s, false
	}
	n.ended = s.penEpoch
	return s, true
}

// resumeCopy goes on in a new part once there is no operation left for which the copy was ended.
func resumeCopy(_ *Config, s State, r Region) (State, bool) {
	n := &s.nodes[r]
	if !s.alive(r) || n.ended == 0 || n.role != Idle || s.drives(r) && n.ended == s.penEpoch {
		return s, false
	}
	n.ended = 0
	return s, true
}

func readFork(c *Config, s State, r Region) (State, bool) {
	n := &s.nodes[r]
	if !s.drives(r) || n.role != Idle || n.unsynced {
		return s, false
	}
	if c.Rules.EndBeforeFork && n.ended != s.penEpoch {
		return s, false
	}
	if !s.opForced && (!s.isClose(n.tip) || n.tip.epoch() != s.penEpoch) {
		return s, false
	}
	if c.Rules.RollBackBeforeClaim && s.strayed(r) {
		return s, false
	}
	p := plan{op: s.op, forced: s.opForced, epoch: s.penEpoch, open: s.penOpen, fork: n.tip, inSync: s.inSync}
	if n.plan == p {
		return s, false
	}
	n.plan = p
	return s, true
}

// claim is the target's transaction. The executor that sends it may have slept since it read its fork.
func claim(c *Config, s State, r Region) (State, bool) {
	n, rules := &s.nodes[r], &c.Rules
	p := n.plan
	if !s.alive(r) || n.role != Idle || p.op == 0 || s.penRegion == r || s.penEpoch == c.Epochs || s.fenced[r] {
		return s, false
	}
	if rules.ClaimComparesPen && s.penEpoch != p.epoch || rules.ClaimComparesState && s.penOpen != p.open {
		return s, false
	}
	if rules.CheckOperation && s.op != p.op {
		return s, false
	}
	whole := s.isClose(p.fork) && p.fork.epoch() == p.epoch // of a forced failover too, when the source has closed
	if !whole && rules.ClaimComparesFence && !s.penFenced() {
		return s, false
	}
	kind := Planned
	if !whole {
		kind = Lossy
		if rules.ClaimComparesSet {
			p.inSync = s.inSync
		}
		if c.Mode != Async && p.inSync {
			kind = InSync
		}
		s.inSync = false
	}
	if whole && c.Mode != Async {
		s.inSync = true // the region that closed has all of it
	}
	if s.op == p.op {
		s.endOperation()
	}
	s.cut(r, p.fork)
	s.newEpoch(r, kind, c.Opening == OpenAll || c.Opening == OpenWhole && whole)
	return s, true
}

// claimAgain is a region going on after a restart, a lapse, an abort after CLOSE or a change of the replication mode: a
// new epoch at the end of its own log.
func claimAgain(c *Config, s State, r Region) (State, bool) {
	if s.penRegion != r {
		return s, false
	}
	return goOn(c, s, r)
}

// takeBack is the region that was open last going on because the region that took the pen has not opened yet.
func takeBack(c *Config, s State, r Region) (State, bool) {
	last := s.at(s.lastOpened(s.penEpoch + 1))
	if s.penRegion == r || s.penOpen || last.region != r || !s.holds(s.nodes[r].tip, s.at(s.penEpoch).fork) {
		return s, false
	}
	return goOn(c, s, r)
}

func goOn(c *Config, s State, r Region) (State, bool) {
	n := &s.nodes[r]
	if !s.alive(r) || n.role != Idle && n.role != Closed || n.unsynced || s.fenced[r] {
		return s, false
	}
	mine := s.penRegion == r
	last := s.at(s.lastOpened(s.penEpoch + 1))
	if c.Cuts > 0 && !n.fetched && !s.mayGoOn(c, r) {
		return s, false
	}
	if mine && n.role == Idle && s.penPast && !c.Rules.NewEpochOnRestart {
		n.role, n.epoch, n.valid, s.penPast, s.penOpen = Open, s.penEpoch, true, false, true
		return s, true
	}
	if s.penEpoch == c.Epochs {
		return s, false
	}
	kind := Own
	if mine && !s.penOpen && last.region != r {
		kind = s.at(s.penEpoch).claim // it never served: what the former claim may miss, this one may
	}
	if n.role == Closed && s.op != 0 && s.opEpoch == n.epoch {
		s.endOperation()
	}
	if !mine {
		s.inSync = false
	}
	s.newEpoch(r, kind, c.Opening != OpenLater)
	return s, true
}

// mayGoOn is for a restarted holder that has not compared its log with the peer's. The position recorded in the
// directory is as old as the last renewal, so it can't tell whether the disk has lost what was acknowledged since.
func (s *State) mayGoOn(c *Config, r Region) bool {
	return !c.Rules.CompareOnRestart && (s.recorded == 0 || s.holds(s.nodes[r].tip, s.recorded))
}

// newEpoch gives the pen to r. Open at once: the directory says so in the same transaction. That the process comes to
// know it a moment later adds nothing to a process that takes no step for that moment.
func (s *State) newEpoch(r Region, kind Claim, opened bool) {
	n := &s.nodes[r]
	s.penEpoch++
	s.penRegion, s.penPast, s.penOpen = r, false, false
	s.epochs[s.penEpoch-1] = epoch{fork: n.tip, region: r, claim: kind}
	n.stop()
	n.role, n.epoch, n.valid, n.ended, n.plan, n.saw = Claimed, s.penEpoch, true, 0, plan{}, false
	s.nodes[r.peer()].saw = false
	if opened {
		n.role, s.penOpen, s.at(n.epoch).opened = Open, true, true
	}
}

func open(_ *Config, s State, r Region) (State, bool) {
	n := &s.nodes[r]
	if !s.alive(r) || n.role != Claimed || !n.valid || !s.holdsPen(r) {
		return s, false
	}
	n.role, s.penOpen, s.at(n.epoch).opened = Open, true, true
	return s, true
}

// losePen is a process finding out: fenced, or overtaken, or out of time. What was in flight stays unanswered.
func losePen(_ *Config, s State, r Region) (State, bool) {
	n := &s.nodes[r]
	if !s.alive(r) || n.role == Idle || s.holdsPen(r) && (n.valid || n.role == Closed) {
		return s, false
	}
	n.stop()
	return s, true
}

// stop ends all work under a pen.
func (n *node) stop() {
	n.role, n.epoch, n.pending = Idle, 0, 0
	n.valid, n.checked, n.acked, n.alone, n.closing = false, false, false, false, false
}
