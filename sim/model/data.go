package model

// push stores the next record of the epoch that r is open in. Without a crash to come, stored is as good as on disk.
func (s *State) push(c *Config, r Region) {
	n := &s.nodes[r]
	if n.tip.epoch() == n.epoch {
		n.tip++
	} else {
		n.tip = at(n.epoch, 1)
	}
	n.unsynced = s.crashes < c.Crashes
	n.acked = false
}

func appendRecord(c *Config, s State, r Region) (State, bool) {
	n := &s.nodes[r]
	if !s.alive(r) || n.role != Open || !n.valid || n.pending != 0 || n.unsynced || n.closing || s.appends == c.Appends {
		return s, false
	}
	s.appends++
	s.push(c, r)
	n.pending = n.tip
	return s, true
}

func syncDisk(_ *Config, s State, r Region) (State, bool) {
	n := &s.nodes[r]
	if !s.alive(r) || !n.unsynced {
		return s, false
	}
	n.unsynced = false
	return s, true
}

// replicate stores the next record of the holder's log in the follower's copy, durably.
func replicate(c *Config, s State, r Region) (State, bool) {
	n, peer := &s.nodes[r], &s.nodes[r.peer()]
	if !s.alive(r) || !s.alive(r.peer()) || n.role != Idle || n.unsynced || s.penRegion == r {
		return s, false
	}
	if n.ended != 0 && c.Rules.EndedCopyRests || n.tip == peer.tip || n.tip != 0 && !s.holds(peer.tip, n.tip) {
		return s, false
	}
	n.tip = s.after(peer.tip, n.tip)
	return s, true
}

// ack is the follower's copy reaching the holder's end. Whoever has claimed since acknowledges nothing of what it fetches.
func ack(c *Config, s State, r Region) (State, bool) {
	n, peer := &s.nodes[r], &s.nodes[r.peer()]
	if c.Mode == Async && c.Cuts == 0 || peer.acked || peer.role != Open || !s.alive(r.peer()) {
		return s, false
	}
	if !s.alive(r) || n.role != Idle || s.penRegion == r {
		return s, false
	}
	if n.ended != 0 && c.Rules.EndedCopyRests || n.tip != peer.tip {
		return s, false
	}
	peer.acked = true
	return s, true
}

// answerable says whether the record in flight is durable everywhere the mode asks for.
func answerable(c *Config, n *node) bool {
	if n.role != Open || n.pending == 0 || n.unsynced && c.Rules.SyncBeforeAnswer {
		return false
	}
	return c.Mode == Async || n.acked || c.Mode == SyncAvailable && n.alone
}

// checkLease and answer are two steps only where clocks are trusted; else time may pass in any step.
func checkLease(c *Config, s State, r Region) (State, bool) {
	n := &s.nodes[r]
	if !c.Clocks || !s.alive(r) || n.checked || !answerable(c, n) || !n.valid && c.Rules.AnswerChecksLease {
		return s, false
	}
	n.checked = true
	return s, true
}

func answer(c *Config, s State, r Region) (State, bool) {
	n := &s.nodes[r]
	if !s.alive(r) || !answerable(c, n) {
		return s, false
	}
	if c.Clocks && !n.checked || !c.Clocks && !n.valid && c.Rules.AnswerChecksLease {
		return s, false
	}
	s.at(n.epoch).answered |= 1 << n.pending.number()
	n.pending, n.checked = 0, false
	return s, true
}

// The in-sync set.

func removePeer(c *Config, s State, r Region) (State, bool) {
	n, rules := &s.nodes[r], &c.Rules
	if c.Mode != SyncAvailable || !s.alive(r) || n.role != Open || !n.valid || n.alone {
		return s, false
	}
	n.alone = true
	if !rules.RemoveBeforeAlone {
		return s, true
	}
	if rules.RemovalComparesPen && !s.holdsPen(r) {
		return s, false
	}
	if s.holdsPen(r) {
		s.inSync = false
	}
	return s, true
}

// awaitPeer comes before rejoin: the holder wants its peer's word for every answer again.
func awaitPeer(_ *Config, s State, r Region) (State, bool) {
	n := &s.nodes[r]
	if !s.alive(r) || n.role != Open || !n.alone {
		return s, false
	}
	n.alone = false
	return s, true
}

func rejoin(c *Config, s State, r Region) (State, bool) {
	n := &s.nodes[r]
	if c.Mode == Async || s.inSync || !s.alive(r) {
		return s, false
	}
	if !c.Rules.RejoinByHolder && n.role == Idle && s.penRegion != r && n.tip == s.nodes[r.peer()].tip {
		s.inSync = true // the follower adds itself
		return s, true
	}
	if n.role != Open || n.alone || !n.acked || !s.holdsPen(r) {
		return s, false
	}
	s.inSync = true
	return s, true
}

// Coming back.

// strayed says whether r's log has records that the fork of the present epoch left behind. An epoch that is only claimed
// has left nothing behind yet: the claim may still be overtaken.
func (s *State) strayed(r Region) bool {
	tip, last := s.nodes[r].tip, s.lastOpened(s.penEpoch+1)
	return tip != 0 && tip.epoch() < last && !s.holds(s.at(last).fork, tip)
}

// rollBack keeps the sealed tail and takes the log back to the fork, which the directory names.
func rollBack(c *Config, s State, r Region) (State, bool) {
	n := &s.nodes[r]
	if !s.alive(r) || n.role != Idle && (n.role != Open || c.Rules.SealBeforeList) || n.unsynced || s.penRegion == r {
		return s, false
	}
	fork := s.at(s.penEpoch).fork
	left := n.tip != 0 && n.tip.epoch() < s.penEpoch && !s.holds(fork, n.tip)
	if !left || c.Rules.RollBackWhenOpen && !s.strayed(r) {
		return s, false
	}
	tails := n.kept
	s.cut(r, fork)
	if !c.Rules.KeepTail {
		n.kept = tails
	}
	return s, true
}

// fetch is a restarted holder taking from its peer what its own disk has lost: of the epoch it held, not of an older one
// whose end was settled by a fork since.
func fetch(c *Config, s State, r Region) (State, bool) {
	n, peer := &s.nodes[r], &s.nodes[r.peer()]
	if !s.alive(r) || !s.alive(r.peer()) || n.role != Idle || n.unsynced || n.fetched || s.penRegion != r {
		return s, false
	}
	if c.Rules.FetchComparesFork && s.strayed(r.peer()) {
		return s, false
	}
	longer := n.tip != peer.tip && (n.tip == 0 || s.holds(peer.tip, n.tip))
	if !longer && c.Cuts == 0 {
		return s, false
	}
	if longer {
		n.tip = peer.tip
	}
	n.fetched = c.Cuts > 0
	return s, true
}
