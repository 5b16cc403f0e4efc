package hub

import (
	"slices"
	"testing"
	"time"
)

func TestSnapshotDue(t *testing.T) {
	u := Upkeep{}.withDefaults(24 * time.Hour)
	busy := growth{records: 10, state: 1000, log: 5000, changed: true}
	for name, c := range map[string]struct {
		g    growth
		any  bool
		age  time.Duration
		want bool
	}{
		"nothing new":               {growth{}, true, time.Hour, false},
		"the first":                 {growth{records: 1}, false, time.Second, true},
		"young":                     {busy, true, time.Minute, false},
		"old":                       {busy, true, 5 * time.Minute, true},
		"much state":                {growth{records: 1, state: 64 << 20, changed: true}, true, time.Second, true},
		"much log":                  {growth{records: 1, log: 1 << 30, changed: true}, true, time.Second, true},
		"signs of life only":        {growth{records: 300}, true, 10 * time.Minute, false},
		"an hour of signs of life":  {growth{records: 3600}, true, time.Hour, true},
		"nothing new for a day yet": {growth{}, false, 24 * time.Hour, false},
	} {
		if got := u.snapshotDue(c.g, c.any, c.age); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestSuperfluous(t *testing.T) {
	chain := func(numbers ...uint64) (snaps []keptSnapshot) {
		for _, n := range numbers {
			snaps = append(snaps, keptSnapshot{number: n, chain: true})
		}
		return snaps
	}
	for name, c := range map[string]struct {
		snaps []keptSnapshot
		acked uint64
		known bool
		floor uint64
		want  []uint64
	}{
		"none":                        {nil, 5, true, 0, nil},
		"one":                         {chain(10), 0, true, 0, nil},
		"all acknowledged":            {chain(10, 20, 30), 35, true, 0, []uint64{10}},
		"a follower":                  {chain(10, 20, 30), noHold, true, 0, []uint64{10}},
		"the next to be acknowledged": {chain(10, 20, 30, 40), 15, true, 0, []uint64{30}},
		"none acknowledged":           {chain(10, 20, 30), 5, true, 0, []uint64{20}},
		"a peer never heard of":       {chain(10, 20, 30, 40), 0, false, 0, []uint64{30}},
		"before the log":              {chain(10, 20, 30), 15, true, 12, []uint64{10}},
		"only before the log":         {chain(10), 15, true, 12, nil},
		"outside the chain":           {append(chain(10, 30), keptSnapshot{number: 40}), 15, true, 0, []uint64{40}},
		"read by a reseed":            {append(chain(10, 20, 30), keptSnapshot{number: 5, chain: true, held: true}), 35, true, 0, []uint64{10}},
	} {
		var got []uint64
		for _, s := range superfluous(c.snaps, c.acked, c.known, c.floor) {
			got = append(got, s.number)
		}
		if slices.Sort(got); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v goes, want %v", name, got, c.want)
		}
	}
}

func TestNextTrim(t *testing.T) {
	u := Upkeep{}.withDefaults(24 * time.Hour)
	well := trimFacts{expired: 100, trimmed: 50, newest: 200, covered: 190, peer: 180, hold: noHold}
	with := func(change func(f *trimFacts)) trimFacts {
		f := well
		change(&f)
		return f
	}
	for name, c := range map[string]struct {
		f    trimFacts
		upTo uint64
		left bool
	}{
		"what is old":                       {well, 100, false},
		"nothing is old":                    {with(func(f *trimFacts) { f.expired = 50 }), 0, false},
		"no snapshot here":                  {with(func(f *trimFacts) { f.newest, f.covered = 0, 0 }), 0, false},
		"as far as the snapshot here":       {with(func(f *trimFacts) { f.newest, f.covered = 80, 80 }), 80, false},
		"as far as the snapshot there":      {with(func(f *trimFacts) { f.peer = 70 }), 70, false},
		"as far as the peer could roll us":  {with(func(f *trimFacts) { f.covered = 60 }), 60, false},
		"a reseed reads":                    {with(func(f *trimFacts) { f.hold = 75 }), 75, false},
		"no peer":                           {trimFacts{expired: 100, newest: 90, alone: true, hold: noHold}, 90, false},
		"dark for long, but little is kept": {with(func(f *trimFacts) { f.peer, f.waiting, f.kept, f.dark = 0, 90*time.Hour, 0.1, true }), 0, false},
		"dark, and much is kept":            {with(func(f *trimFacts) { f.peer, f.waiting, f.kept, f.dark = 0, time.Hour, 0.3, true }), 0, false},
		"dark for long, and much is kept":   {with(func(f *trimFacts) { f.peer, f.waiting, f.kept, f.dark = 0, 90*time.Hour, 0.3, true }), 100, true},
		"dark, and the disk is nearly full": {with(func(f *trimFacts) { f.peer, f.waiting, f.kept, f.dark, f.used = 0, time.Hour, 0.3, true, 0.85 }), 100, true},
		"slow, and the disk is nearly full": {with(func(f *trimFacts) { f.peer, f.waiting, f.kept, f.used = 0, time.Hour, 0.3, 0.85 }), 0, false},
		"left behind, but a reseed reads":   {with(func(f *trimFacts) { f.peer, f.waiting, f.kept, f.hold = 0, 90*time.Hour, 0.3, 75 }), 75, true},
	} {
		if upTo, left := u.nextTrim(c.f); upTo != c.upTo || left != c.left {
			t.Errorf("%s: up to %d, left behind %v", name, upTo, left)
		}
	}
}
