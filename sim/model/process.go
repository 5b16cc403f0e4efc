package model

func crash(c *Config, s State, r Region) (State, bool) {
	if !s.nodes[r].up || s.crashes == c.Crashes {
		return s, false
	}
	s.crashes++
	s.die(r)
	return s, true
}

func (s *State) die(r Region) {
	n := &s.nodes[r]
	n.stop()
	n.up, n.paused, n.unsynced, n.fetched, n.saw, n.plan = false, false, false, false, false, plan{}
}

func crashLosing(c *Config, s State, r Region) (State, bool) {
	if !s.nodes[r].unsynced {
		return s, false
	}
	next, ok := crash(c, s, r)
	if ok {
		next.loseLast(r)
	}
	return next, ok
}

// crashCutting is the holder losing a record that had reached the disk; one that the peer has, else nothing could help.
func crashCutting(c *Config, s State, r Region) (State, bool) {
	n := &s.nodes[r]
	if s.cuts == c.Cuts || s.penRegion != r || n.unsynced || n.tip == 0 || !s.holds(s.nodes[r.peer()].tip, n.tip) {
		return s, false
	}
	next, ok := crash(c, s, r)
	if ok {
		next.cuts++
		next.loseLast(r)
	}
	return next, ok
}

func (s *State) loseLast(r Region) {
	n := &s.nodes[r]
	lost := n.tip
	n.tip = s.before(lost)
	if s.isClose(lost) && !s.has(r.peer(), lost) {
		s.at(lost.epoch()).close = 0
	}
}

// restart is a new incarnation, which fences the one before. A process that was fenced has no other way to go on.
func restart(_ *Config, s State, r Region) (State, bool) {
	n := &s.nodes[r]
	if n.up && (n.paused || n.role != Idle || n.unsynced || !s.fenced[r]) {
		return s, false
	}
	n.up, n.fetched, n.saw, n.plan = true, false, false, plan{}
	s.fenced[r] = false
	s.penPast = s.penPast || s.penRegion == r
	for e := range s.epochs[:s.penEpoch] {
		if s.epochs[e].region == r {
			s.epochs[e].past = true
		}
	}
	return s, true
}

func pause(c *Config, s State, r Region) (State, bool) {
	if !c.Clocks || !s.alive(r) || s.pauses == c.Pauses {
		return s, false
	}
	s.pauses++
	s.nodes[r].paused = true
	return s, true
}

// wake ends a pause. The clock went on, so whoever was given up meanwhile finds its lease lapsed at its next check.
func wake(_ *Config, s State, r Region) (State, bool) {
	n := &s.nodes[r]
	if !n.paused {
		return s, false
	}
	n.paused = false
	if s.nodes[r.peer()].saw || s.fenced[r] {
		n.valid = false
	}
	return s, true
}
