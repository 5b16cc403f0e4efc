// Package model is a small exhaustive model of how the pen of one hub moves between two regions: pen, lease, fence
// before fork, CLOSE, abort, restart and the sync modes. It looks at every order in which the steps can happen, within
// bounds, and checks in each that what Tandem promises holds.
//
//	model.go     what a state of the world is: two regions, one directory, the history of every epoch
//	rules.go     the rules, and what a region may do next: operation, lease, fence, claim, each a pure function
//	data.go      the same for records: append, copy, answer, in-sync set, roll back
//	process.go   the same for processes: crash, restart, pause
//	promises.go  what must hold in every state and across every step
//	search.go    breadth first over all of it, so that what is found is found by its shortest interleaving
//
// It owns no production code and nothing imports it. A rule of the product that changes is changed here first.
//
// A process that is slow, cut off or stopped is one that takes no step for a while, which a search over all
// interleavings covers by itself. Without trusted clocks a taker may find a lease lapsed at any moment; with
// Config.Clocks it may do so only when the holder's own count is over, or the holder is paused or dead.
package model

import (
	"fmt"
	"strings"
)

// A Region is one of the two, A or B. A holds the pen at the start.
type Region uint8

// The two regions.
const (
	A Region = iota
	B
)

func (r Region) peer() Region { return 1 - r }

// String is "A" or "B".
func (r Region) String() string { return string(rune('A' + r)) }

const maxEpochs = 4

// A Pos is a record's place, (epoch, number within the epoch); zero is the empty log. Records are chained by hash, so
// that a log is known by the position of its last record.
type Pos uint8

func at(epoch, number uint8) Pos { return Pos(epoch<<4 | number) }
func (p Pos) epoch() uint8       { return uint8(p) >> 4 }
func (p Pos) number() uint8      { return uint8(p) & 15 }

// String is "epoch.number".
func (p Pos) String() string {
	if p == 0 {
		return "0"
	}
	return fmt.Sprintf("%d.%d", p.epoch(), p.number())
}

// A Role is what a region's process believes about the pen.
type Role uint8

// The roles. A Closed holder has written CLOSE and waits to see who comes next.
const (
	Idle Role = iota
	Claimed
	Open
	Closed
)

var roleNames = [...]string{"idle", "claimed", "open", "closed"}

// A Claim says how an epoch was come by, and so what it may miss.
type Claim uint8

// The kinds of claim. Own: the region that was open last goes on. InSync: forced, by a member of the in-sync set.
const (
	Own Claim = iota
	Planned
	InSync
	Lossy
)

// epoch is the history of one epoch: one holder, one fork, records 1, 2, 3 …
type epoch struct {
	fork     Pos // the last record of the log that the epoch goes on from
	region   Region
	past     bool // the incarnation that claimed it is no more
	claim    Claim
	opened   bool
	close    uint8 // number of its CLOSE record; 0: none
	answered uint8 // bit n: record n was answered
}

// node is one region: its disk, and its process as long as that lives.
type node struct {
	// On disk.
	tip   Pos
	kept  [maxEpochs]uint8 // sealed tails, one bit per record
	ended uint8            // the epoch whose copy is ended; 0: the copy goes on

	// In the process.
	up, paused bool
	role       Role
	epoch      uint8 // under which it is claimed, open or closed
	valid      bool  // the lease, by the holder's own count
	unsynced   bool  // the last record is stored but not yet on disk; readers can see it
	pending    Pos   // the record that waits for its answer
	checked    bool  // the lease was found valid, the answer is about to leave (with Clocks)
	acked      bool  // the peer has acknowledged all of the log
	alone      bool  // the holder answers without its peer
	closing    bool  // the request to close was accepted, writes are held
	fetched    bool  // since its restart it has compared its log with the peer's
	saw        bool  // as a taker: has seen the peer's lease lapse
	plan       plan  // as the target of an operation
}

// plan is what an executor has in its hand when it sends its claim.
type plan struct {
	op     uint8
	forced bool
	epoch  uint8
	open   bool // the pen was open then
	fork   Pos
	inSync bool
}

// State is the whole world at one moment. It is comparable: equal states are one state.
type State struct {
	nodes  [2]node
	epochs [maxEpochs]epoch

	// The directory. Every step reads and writes it in one transaction.
	penEpoch  uint8
	penRegion Region
	penPast   bool // it names an incarnation that is no more; a restart fences those at once
	penOpen   bool
	fenced    [2]bool // the present incarnation is fenced
	inSync    bool    // the region without the pen is in the in-sync set
	recorded  Pos     // last position acknowledged by the peer, as the holder's lease says (with Cuts)
	op        uint8   // the operation; 0: none
	opForced  bool
	opTarget  Region
	opEpoch   uint8

	// A request to close, on its way for as long as it likes.
	askOp, askEpoch uint8

	// What was used of the bounds.
	appends, ops, crashes, pauses, cuts uint8
}

// Mode is the hub's replication mode.
type Mode uint8

// The replication modes.
const (
	Async Mode = iota
	SyncAvailable
	SyncStrict
)

// String is the mode as the command line spells it.
func (m Mode) String() string { return [...]string{"async", "sync-available", "sync-strict"}[m] }

// Opening says which claims the directory has as open in the same transaction. All others are claimed first and opened
// by a second one; until then the region that was open last may take the pen back with its whole log.
type Opening uint8

// OpenWhole, the design: a claim at CLOSE, and that of a region which goes on with its own log. OpenLater: none.
// OpenAll, a mistake: forced ones too.
const (
	OpenWhole Opening = iota
	OpenLater
	OpenAll
)

// String is what is opened at once.
func (o Opening) String() string { return [...]string{"whole claims", "none", "all claims"}[o] }

// Config bounds a search. Clocks trusts clocks of bounded drift and makes pauses a step of their own. Cuts lets a
// crash lose a record that had reached the disk and the peer: a disk that lies, or a machine restored from an image.
type Config struct {
	Mode                          Mode
	Opening                       Opening
	Clocks                        bool
	Appends, Epochs, Ops, Crashes uint8 // Appends at most 6, Epochs at most 4
	Pauses, Cuts                  uint8
	Rules                         Rules
}

func start() State {
	var s State
	s.epochs[0] = epoch{opened: true}
	s.nodes[A] = node{up: true, role: Open, epoch: 1, valid: true}
	s.nodes[B] = node{up: true}
	s.penEpoch, s.penRegion, s.penOpen, s.inSync = 1, A, true, true
	return s
}

func (s *State) at(e uint8) *epoch { return &s.epochs[e-1] }

// before is the record that p goes on from.
func (s *State) before(p Pos) Pos {
	if p.number() > 1 {
		return p - 1
	}
	return s.at(p.epoch()).fork
}

// holds says whether the log that ends at tip has the record p.
func (s *State) holds(tip, p Pos) bool {
	for tip.epoch() > p.epoch() {
		tip = s.at(tip.epoch()).fork
	}
	return tip.epoch() == p.epoch() && tip.number() >= p.number()
}

// after is the record that follows p in the log that ends at tip, which has p and more.
func (s *State) after(tip, p Pos) Pos {
	for s.before(tip) != p {
		tip = s.before(tip)
	}
	return tip
}

// has says whether region r still has the record p: in its log, or in a sealed tail.
func (s *State) has(r Region, p Pos) bool {
	n := &s.nodes[r]
	return s.holds(n.tip, p) || n.kept[p.epoch()-1]&(1<<p.number()) != 0
}

// cut takes region r's log back to the last record that it shares with the log that ends at fork, and keeps the tail.
func (s *State) cut(r Region, fork Pos) {
	n := &s.nodes[r]
	for n.tip != 0 && !s.holds(fork, n.tip) {
		n.kept[n.tip.epoch()-1] |= 1 << n.tip.number()
		n.tip = s.before(n.tip)
	}
}

// lastOpened is the newest epoch below e that was opened.
func (s *State) lastOpened(e uint8) uint8 {
	for e--; e > 1 && !s.at(e).opened; e-- {
	}
	return e
}

func (s *State) isClose(p Pos) bool  { return p != 0 && s.at(p.epoch()).close == p.number() }
func (s *State) penFenced() bool     { return s.penPast || s.fenced[s.penRegion] }
func (s *State) alive(r Region) bool { return s.nodes[r].up && !s.nodes[r].paused }

// holdsPen says whether the directory names this very process, for the epoch it believes in, unfenced.
func (s *State) holdsPen(r Region) bool {
	n := &s.nodes[r]
	return s.penRegion == r && s.penEpoch == n.epoch && !s.penPast && !s.fenced[r]
}

// String is the state in one line.
func (s State) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "pen %d%v", s.penEpoch, s.penRegion)
	if !s.penOpen {
		b.WriteString(" claimed")
	}
	if s.penFenced() {
		b.WriteString(" fenced")
	}
	if s.op != 0 {
		fmt.Fprintf(&b, ", op %d to %v", s.op, s.opTarget)
	}
	for r := A; r <= B; r++ {
		n := &s.nodes[r]
		fmt.Fprintf(&b, " | %v %s log %v", r, roleNames[n.role], n.tip)
		for _, f := range []struct {
			on   bool
			name string
		}{
			{!n.up, "down"}, {n.paused, "paused"}, {n.unsynced, "unsynced"}, {n.pending != 0, "unanswered"}, {n.acked, "acked"},
			{n.alone, "alone"}, {n.ended != 0, "copy ended"}, {n.plan.op != 0, "fork " + n.plan.fork.String()},
		} {
			if f.on {
				b.WriteString(", " + f.name)
			}
		}
	}
	return b.String()
}
