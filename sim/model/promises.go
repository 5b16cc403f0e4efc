package model

// A Promise is something that must hold. A step leads from one state to the next; the first state has no step.
type Promise struct {
	Name  string
	state func(c *Config, s *State) bool
	step  func(c *Config, before, after *State, what string, r Region) bool
}

// Promises is everything that is checked.
var Promises = []Promise{AnsweredIsDurable, OwnKeepsAll, PlannedKeepsAll, InSyncKeepsAll, OneHistory, OneWriter, ForksLieOnTheLog,
	CloseIsLast, ClosedOnPurpose, OnePen, EpochsRise, EndedCopyIsStill, AnswersInOrder}

// AnsweredIsDurable: an answered write is on the disk of the region that answered it, in its log or in a sealed tail.
// So what a forced failover leaves behind is listed by the receipt, whatever moment it came at.
var AnsweredIsDurable = Promise{
	Name: "an answered write is in its region's log or sealed tail",
	state: func(c *Config, s *State) bool {
		if c.Cuts > 0 { // a disk that lies breaks this by itself
			return true
		}
		return s.everyAnswered(func(p Pos) bool { return s.has(s.at(p.epoch()).region, p) })
	},
}

// OwnKeepsAll: a region that goes on after a restart or an abort has everything that was answered.
var OwnKeepsAll = Promise{
	Name:  "a region that goes on misses nothing",
	state: func(_ *Config, s *State) bool { return s.keepsAll(Own) },
}

// PlannedKeepsAll: after a planned failover nothing answered is missing.
var PlannedKeepsAll = Promise{
	Name:  "a planned failover misses nothing",
	state: func(_ *Config, s *State) bool { return s.keepsAll(Planned) },
}

// InSyncKeepsAll: nor after a forced failover to a member of the in-sync set.
var InSyncKeepsAll = Promise{
	Name:  "a failover to an in-sync copy misses nothing",
	state: func(_ *Config, s *State) bool { return s.keepsAll(InSync) },
}

// keepsAll looks at the claims of one kind. Answers that come after the claim count as well: the log that was left
// behind may have grown.
func (s *State) keepsAll(kind Claim) bool {
	for f := uint8(2); f <= s.penEpoch; f++ {
		if s.at(f).claim != kind {
			continue
		}
		last, fork := s.lastOpened(f), s.at(f).fork
		ok := s.everyAnswered(func(p Pos) bool {
			expected := p.epoch() == last || p.epoch() < last && s.holds(s.at(last).fork, p)
			return !expected || s.holds(fork, p)
		})
		if !ok {
			return false
		}
	}
	return true
}

func (s *State) everyAnswered(good func(Pos) bool) bool {
	for e := uint8(1); e <= s.penEpoch; e++ {
		for n, bits := uint8(0), s.at(e).answered; bits != 0; n, bits = n+1, bits>>1 {
			if bits&1 != 0 && !good(at(e, n)) {
				return false
			}
		}
	}
	return true
}

// OneHistory: no (epoch, number) names two records.
var OneHistory = Promise{
	Name: "a position names one record",
	step: func(_ *Config, before, after *State, what string, r Region) bool {
		return !wrote(what) || !before.has(A, after.nodes[r].tip) && !before.has(B, after.nodes[r].tip)
	},
}

// OneWriter: a segment is appended to only by the incarnation that opened it.
var OneWriter = Promise{
	Name: "a segment has one writer",
	step: func(_ *Config, _, after *State, what string, r Region) bool {
		n := &after.nodes[r]
		return !wrote(what) || after.at(n.epoch).region == r && !after.at(n.epoch).past
	},
}

func wrote(what string) bool { return what == "append" || what == "close" }

// ForksLieOnTheLog: an epoch goes on from a record of the log before it; what a fork left behind does not come back.
var ForksLieOnTheLog = Promise{
	Name: "a fork lies on the log before it",
	state: func(_ *Config, s *State) bool {
		for f := uint8(2); f <= s.penEpoch; f++ {
			last, fork := s.lastOpened(f), s.at(f).fork
			if fork != 0 && fork.epoch() != last && !s.holds(s.at(last).fork, fork) {
				return false
			}
		}
		return true
	},
}

// CloseIsLast: nothing is appended or answered in an epoch after its CLOSE.
var CloseIsLast = Promise{
	Name: "nothing is written or answered after CLOSE",
	step: func(_ *Config, before, _ *State, what string, r Region) bool {
		e := before.nodes[r].epoch
		return e == 0 || before.at(e).close == 0 || !wrote(what) && what != "answer"
	},
}

// ClosedOnPurpose: a hub is closed only for the operation that the directory holds; else nobody would open it again.
var ClosedOnPurpose = Promise{
	Name: "a hub is closed for an operation that goes on",
	step: func(_ *Config, before, _ *State, what string, r Region) bool {
		return what != "close" || before.op != 0 && !before.opForced && before.opEpoch == before.nodes[r].epoch
	},
}

// OnePen: at most one region is open with an unfenced pen.
var OnePen = Promise{
	Name: "one region is open",
	state: func(_ *Config, s *State) bool {
		return s.nodes[A].role != Open || s.nodes[B].role != Open || s.fenced[A] || s.fenced[B]
	},
}

// EpochsRise: no log and no process knows an epoch that the directory does not.
var EpochsRise = Promise{
	Name: "epochs rise",
	state: func(_ *Config, s *State) bool {
		for r := range s.nodes {
			if s.nodes[r].tip.epoch() > s.penEpoch || s.nodes[r].epoch > s.penEpoch {
				return false
			}
		}
		return true
	},
	step: func(_ *Config, before, after *State, _ string, _ Region) bool {
		return after.penEpoch >= before.penEpoch
	},
}

// EndedCopyIsStill: a follower neither stores nor acknowledges while its copy is ended.
var EndedCopyIsStill = Promise{
	Name: "an ended copy is still",
	step: func(_ *Config, before, after *State, what string, r Region) bool {
		return before.nodes[r].ended == 0 || what != "replicate" && what != "ack"
	},
}

// AnswersInOrder: with clocks of bounded drift and no paused machine, the last answer of an epoch precedes the first of
// the next.
var AnswersInOrder = Promise{
	Name: "answers come in order of epochs",
	step: func(c *Config, before, after *State, what string, r Region) bool {
		if !c.Clocks || after.pauses > 0 || what != "answer" {
			return true
		}
		for e := before.nodes[r].epoch + 1; e <= before.penEpoch; e++ {
			if before.at(e).answered != 0 {
				return false
			}
		}
		return true
	},
}
