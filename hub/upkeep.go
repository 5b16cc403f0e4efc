package hub

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Upkeep says how often a replica looks after its snapshots and its log, and how far it goes. Zero fields mean defaults.
type Upkeep struct {
	Every time.Duration // between two looks; default 2 s

	// A snapshot is due after so much time, state entries or log, whichever comes first; defaults 5 min, 64 MiB, 1 GiB.
	SnapshotEvery time.Duration
	SnapshotState int64
	SnapshotLog   int64

	TrimEvery time.Duration // between two TRIM records; default a 48th of the retention

	// TRIM waits for a peer that does not get on: for the longer of HoldFor and until HoldShare of the disk is kept for it
	// alone; defaults 3 days, 0.20.
	HoldShare float64
	HoldFor   time.Duration

	TailsFor time.Duration // how long a tail is kept after it was found, at least; default 7 days

	ReseedBytes int64         // a second, at most, that a reseed asks of the peer; default 32 MiB
	ReseedHold  time.Duration // how long the holder keeps what a silent reseed still wants; default 2 min
}

func (u Upkeep) withDefaults(retention time.Duration) Upkeep {
	u.Every = cmp.Or(u.Every, 2*time.Second)
	u.SnapshotEvery = cmp.Or(u.SnapshotEvery, 5*time.Minute)
	u.SnapshotState = cmp.Or(u.SnapshotState, 64<<20)
	u.SnapshotLog = cmp.Or(u.SnapshotLog, 1<<30)
	u.TrimEvery = cmp.Or(u.TrimEvery, retention/48)
	u.HoldShare = cmp.Or(u.HoldShare, 0.20)
	u.HoldFor = cmp.Or(u.HoldFor, 3*24*time.Hour)
	u.TailsFor = cmp.Or(u.TailsFor, 7*24*time.Hour)
	u.ReseedBytes = cmp.Or(u.ReseedBytes, 32<<20)
	u.ReseedHold = cmp.Or(u.ReseedHold, 2*time.Minute)
	return u
}

// growth is what was folded since the newest snapshot.
type growth struct {
	records    int64
	state, log int64 // bytes
	changed    bool  // by more than signs of life
}

// idleSnapshots is how much rarer snapshots are while nothing but signs of life is written: they only let TRIM go on.
const idleSnapshots = 12

// snapshotDue tells whether a snapshot is worth it; age is the newest one's, if there is any.
func (u *Upkeep) snapshotDue(g growth, any bool, age time.Duration) bool {
	switch {
	case g.records == 0:
		return false
	case !any, g.state >= u.SnapshotState, g.log >= u.SnapshotLog:
		return true
	case g.changed:
		return age >= u.SnapshotEvery
	}
	return age >= idleSnapshots*u.SnapshotEvery
}

// A kept snapshot, in the words of the rules.
type keptSnapshot struct {
	number uint64
	chain  bool // its record is in the log's chain
	held   bool // a reseed reads it
}

// superfluous names the snapshots that may go. What stays: the newest; the newest older one that the peer's copy has
// reached, since no fork can lie before it; the oldest that it has not reached, which will be that one next. acked is the
// end of the peer's copy, known whether it was heard of; floor is the last record that is trimmed away.
func superfluous(snaps []keptSnapshot, acked uint64, known bool, floor uint64) (gone []keptSnapshot) {
	var chain []keptSnapshot
	for _, s := range snaps {
		if s.chain {
			chain = append(chain, s)
		}
	}
	slices.SortFunc(chain, func(a, b keptSnapshot) int { return cmp.Compare(a.number, b.number) })
	keep := make(map[uint64]bool)
	if n := len(chain); n > 0 {
		if !known {
			acked = chain[0].number
		}
		keep[chain[n-1].number] = true
		first := slices.IndexFunc(chain, func(s keptSnapshot) bool { return s.number > acked })
		if first < 0 {
			first = n - 1
		}
		keep[chain[first].number] = true
		if first > 0 {
			keep[chain[first-1].number] = true
		}
	}
	for _, s := range snaps {
		newest := len(chain) > 0 && s == chain[len(chain)-1]
		if !s.held && (!s.chain || !keep[s.number] || s.number < floor && !newest) {
			gone = append(gone, s)
		}
	}
	return gone
}

// trimFacts is what a holder knows when it asks how far the log may be trimmed.
type trimFacts struct {
	expired uint64 // the last record before which all telemetry is older than the retention
	trimmed uint64 // how far the last TRIM went
	newest  uint64 // newest complete snapshot here
	covered uint64 // newest complete snapshot here that the peer's copy has reached
	peer    uint64 // newest complete snapshot there
	alone   bool   // there is no peer
	hold    uint64 // a reseed needs everything after it; math.MaxUint64: none

	waiting time.Duration // since the peer last got on
	dark    bool          // it has not answered for a minute or more
	kept    float64       // share of the disk that is kept only for the peer
	used    float64       // share of the disk that is used
}

// pressed is the used share of the disk from which a dark peer is not waited for any longer than HoldShare says: the
// hub must not stop for the sake of its standby.
const pressed = 0.80

// nextTrim is the record up to which the log may go now, 0 for none, and whether the peer is left behind: it will need a
// reseed.
func (u *Upkeep) nextTrim(f trimFacts) (upTo uint64, left bool) {
	own := min(f.expired, f.newest, f.hold)
	both := own
	if !f.alone {
		both = min(own, f.covered, f.peer)
	}
	switch {
	case own <= f.trimmed:
		return 0, false
	case both < own && f.kept > u.HoldShare && (f.waiting > u.HoldFor || f.dark && f.used > pressed):
		return own, true
	case both <= f.trimmed:
		return 0, false
	}
	return both, false
}

const noHold = math.MaxUint64
