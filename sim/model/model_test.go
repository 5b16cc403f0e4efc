package model_test

import (
	"flag"
	"reflect"
	"testing"

	"tandem/sim/model"
)

var deep = flag.Bool("deep", false, "search the wider bounds too: minutes instead of seconds")

// limit is far above what any of these searches reaches.
const limit = 4_000_000

// bounds are searched in every mode. least is the number of states below which a search has become vacuous.
type bounds struct {
	name   string
	config model.Config
	least  [3]int
}

var usual = []bounds{
	{"two moves", model.Config{Appends: 2, Epochs: 3, Ops: 2, Crashes: 1}, [3]int{150_000, 500_000, 120_000}},
	{"clocks", model.Config{Clocks: true, Appends: 2, Epochs: 2, Ops: 1, Crashes: 1}, [3]int{10_000, 30_000, 8_000}},
	{"clocks, a pause", model.Config{Clocks: true, Appends: 2, Epochs: 2, Ops: 1, Crashes: 1, Pauses: 1},
		[3]int{40_000, 100_000, 30_000}},
	{"a disk that lies", model.Config{Appends: 2, Epochs: 2, Ops: 1, Crashes: 1, Cuts: 1}, [3]int{10_000, 20_000, 5_000}},
}

// small is what there is time for under the race detector or -short.
var small = []bounds{
	{"one move", model.Config{Appends: 2, Epochs: 2, Ops: 1, Crashes: 1}, [3]int{3_000, 8_000, 2_500}},
	{"clocks, a pause", model.Config{Clocks: true, Appends: 1, Epochs: 2, Ops: 1, Pauses: 1}, [3]int{1_000, 1_000, 1_000}},
}

var wide = []bounds{
	{"three records", model.Config{Appends: 3, Epochs: 3, Ops: 2, Crashes: 1}, [3]int{450_000, 1_300_000, 300_000}},
	{"four records, one move", model.Config{Appends: 4, Epochs: 3, Ops: 1, Crashes: 1}, [3]int{230_000, 550_000, 110_000}},
	{"four records, two moves", model.Config{Appends: 4, Epochs: 3, Ops: 2}, [3]int{180_000, 530_000, 85_000}},
	{"four epochs", model.Config{Appends: 2, Epochs: 4, Ops: 2}, [3]int{140_000, 530_000, 120_000}},
	{"two crashes", model.Config{Appends: 2, Epochs: 3, Ops: 1, Crashes: 2}, [3]int{75_000, 190_000, 60_000}},
	{"clocks, three epochs", model.Config{Clocks: true, Appends: 2, Epochs: 3, Ops: 1, Crashes: 1}, [3]int{45_000, 140_000, 37_000}},
	{"clocks, three epochs, a pause", model.Config{Clocks: true, Appends: 2, Epochs: 3, Ops: 1, Pauses: 1},
		[3]int{37_000, 130_000, 28_000}},
}

// The rules of the design break no promise in any state within the bounds, and every step of the model is taken.
func TestDesignHolds(t *testing.T) {
	rows := usual
	switch {
	case race || testing.Short():
		rows = small
	case *deep:
		rows = append(rows, wide...)
	}
	taken := make(map[string]int)
	for _, row := range rows {
		for mode := model.Async; mode <= model.SyncStrict; mode++ {
			c := row.config
			c.Mode, c.Rules = mode, model.Design()
			result := model.Search(c, model.Promises, limit)
			t.Logf("%-30s %-15s %8d states, depth %d", row.name, mode, result.States, result.Depth)
			if result.Broken != nil {
				t.Fatalf("%s, %s: %s", row.name, mode, result.Broken)
			}
			if result.States < row.least[mode] {
				t.Errorf("%s, %s: only %d states, want at least %d", row.name, mode, result.States, row.least[mode])
			}
			for action, n := range result.Taken {
				taken[action] += n
			}
		}
	}
	if race || testing.Short() {
		return
	}
	for action, n := range taken {
		if n == 0 {
			t.Errorf("no state lets a region %s", action)
		}
	}
}

// Whoever has the whole chain may open in the transaction of his claim, or in a second one: no promise breaks either way,
// nor when forced claims open at once. That mistake costs something else: nobody can take the pen back any more from a
// target that died before it opened.
func TestWhoOpensAtOnce(t *testing.T) {
	rows := []bounds{{"one move", model.Config{Appends: 2, Epochs: 3, Ops: 1, Crashes: 1}, [3]int{30_000, 80_000, 20_000}}}
	switch {
	case race || testing.Short():
		rows = []bounds{{"one move", model.Config{Appends: 1, Epochs: 3, Ops: 1, Crashes: 1}, [3]int{3_000, 5_000, 2_000}}}
	case *deep:
		rows = append(rows, usual...)
	}
	for _, variant := range []struct {
		opening     model.Opening
		opens, back bool // some claim is opened by a second transaction; some pen is taken back
	}{
		{model.OpenWhole, true, true},
		{model.OpenLater, true, true},
		{model.OpenAll, false, false},
	} {
		opens, back := 0, 0
		for _, row := range rows {
			for mode := model.Async; mode <= model.SyncStrict; mode++ {
				c := row.config
				c.Mode, c.Opening, c.Rules = mode, variant.opening, model.Design()
				result := model.Search(c, model.Promises, limit)
				t.Logf("opened at once: %-12s %-17s %-15s %7d states, depth %d, opened later %5d, taken back %4d", variant.opening,
					row.name, mode, result.States, result.Depth, result.Taken["open"], result.Taken["take the pen back"])
				if result.Broken != nil {
					t.Fatalf("%s, %s, %s: %s", variant.opening, row.name, mode, result.Broken)
				}
				if least := row.least[mode] * 4 / 5; result.States < least {
					t.Errorf("%s, %s, %s: only %d states, want at least %d", variant.opening, row.name, mode, result.States, least)
				}
				opens, back = opens+result.Taken["open"], back+result.Taken["take the pen back"]
			}
		}
		if (opens > 0) != variant.opens || (back > 0) != variant.back {
			t.Errorf("%s: opened later %d times, taken back %d times; want some: %v and %v", variant.opening, opens, back,
				variant.opens, variant.back)
		}
	}
}

// Every rule is needed: without it a promise breaks, and the search shows the shortest way.
func TestEveryRuleIsNeeded(t *testing.T) {
	plain := model.Config{Appends: 2, Epochs: 3, Ops: 2, Crashes: 1}
	clocks := model.Config{Clocks: true, Appends: 2, Epochs: 2, Ops: 1}
	lying := model.Config{Appends: 2, Epochs: 2, Ops: 1, Crashes: 1, Cuts: 1}
	broken, off := make(map[string]bool), make(map[string]bool)
	for _, mistake := range []struct {
		name   string
		off    func(r *model.Rules) *bool
		config model.Config
		mode   model.Mode
		breaks model.Promise
	}{
		{"fork read before the copy ended", func(r *model.Rules) *bool { return &r.EndBeforeFork },
			plain, model.SyncStrict, model.InSyncKeepsAll},
		{"an ended copy goes on storing and acknowledging", func(r *model.Rules) *bool { return &r.EndedCopyRests },
			plain, model.SyncStrict, model.InSyncKeepsAll},
		{"an ended copy goes on storing", func(r *model.Rules) *bool { return &r.EndedCopyRests },
			plain, model.Async, model.EndedCopyIsStill},
		{"a restarted holder reuses its segment", func(r *model.Rules) *bool { return &r.NewEpochOnRestart },
			plain, model.Async, model.OneHistory},
		{"a restarted holder writes in its predecessor's segment", func(r *model.Rules) *bool { return &r.NewEpochOnRestart },
			plain, model.Async, model.OneWriter},
		{"a restarted holder trusts the recorded position", func(r *model.Rules) *bool { return &r.CompareOnRestart },
			lying, model.SyncStrict, model.OwnKeepsAll},
		{"a holder fetches what a fork left behind", func(r *model.Rules) *bool { return &r.FetchComparesFork },
			plain, model.Async, model.ForksLieOnTheLog},
		{"writing after CLOSE", func(r *model.Rules) *bool { return &r.CloseIsFinal },
			plain, model.Async, model.CloseIsLast},
		{"writing after CLOSE, and then a planned failover", func(r *model.Rules) *bool { return &r.CloseIsFinal },
			plain, model.Async, model.PlannedKeepsAll},
		{"a late driver sends its request to close", func(r *model.Rules) *bool { return &r.CheckOperation },
			plain, model.Async, model.ClosedOnPurpose},
		{"a late driver sends its claim", func(r *model.Rules) *bool { return &r.CheckOperation },
			plain, model.SyncStrict, model.InSyncKeepsAll},
		{"the driver calls off what the source has accepted", func(r *model.Rules) *bool { return &r.SourceAborts },
			plain, model.Async, model.ClosedOnPurpose},
		{"an answer without checking the lease", func(r *model.Rules) *bool { return &r.AnswerChecksLease },
			clocks, model.Async, model.AnswersInOrder},
		{"a fence that does not compare the lease", func(r *model.Rules) *bool { return &r.FenceWaitsForLapse },
			clocks, model.Async, model.AnswersInOrder},
		{"a claim that does not compare the pen", func(r *model.Rules) *bool { return &r.ClaimComparesPen },
			plain, model.Async, model.PlannedKeepsAll},
		{"a claim that compares the epoch, not the pen's state", func(r *model.Rules) *bool { return &r.ClaimComparesState },
			plain, model.Async, model.ForksLieOnTheLog},
		{"a claim that does not compare the fence", func(r *model.Rules) *bool { return &r.ClaimComparesFence },
			plain, model.Async, model.OnePen},
		{"a claim that does not compare the in-sync set", func(r *model.Rules) *bool { return &r.ClaimComparesSet },
			plain, model.SyncAvailable, model.InSyncKeepsAll},
		{"leading without having rolled back", func(r *model.Rules) *bool { return &r.RollBackBeforeClaim },
			plain, model.Async, model.ForksLieOnTheLog},
		{"rolling back while the new epoch is only claimed", func(r *model.Rules) *bool { return &r.RollBackWhenOpen },
			plain, model.Async, model.OwnKeepsAll},
		{"a tail listed before it is sealed", func(r *model.Rules) *bool { return &r.SealBeforeList },
			plain, model.Async, model.OneHistory},
		{"a tail dropped at roll-back", func(r *model.Rules) *bool { return &r.KeepTail },
			plain, model.Async, model.AnsweredIsDurable},
		{"an answer before the disk", func(r *model.Rules) *bool { return &r.SyncBeforeAnswer },
			plain, model.Async, model.AnsweredIsDurable},
		{"sync-available answers alone before the removal", func(r *model.Rules) *bool { return &r.RemoveBeforeAlone },
			plain, model.SyncAvailable, model.InSyncKeepsAll},
		{"a removal by a holder that was fenced", func(r *model.Rules) *bool { return &r.RemovalComparesPen },
			plain, model.SyncAvailable, model.InSyncKeepsAll},
		{"a follower that adds itself to the in-sync set", func(r *model.Rules) *bool { return &r.RejoinByHolder },
			plain, model.SyncAvailable, model.InSyncKeepsAll},
	} {
		t.Run(mistake.name, func(t *testing.T) {
			c := mistake.config
			c.Mode, c.Rules = mistake.mode, model.Design()
			*mistake.off(&c.Rules) = false
			rules := reflect.ValueOf(c.Rules)
			for i := range rules.NumField() {
				if !rules.Field(i).Bool() {
					off[rules.Type().Field(i).Name] = true
				}
			}
			result := model.Search(c, []model.Promise{mistake.breaks}, limit)
			if result.Broken == nil {
				t.Fatalf("nothing breaks in %d states: %q should", result.States, mistake.breaks.Name)
			}
			broken[result.Broken.Promise] = true
			t.Log(result.Broken)
		})
	}
	if rules := reflect.TypeFor[model.Rules](); len(off) != rules.NumField() {
		t.Errorf("%d of %d rules were switched off: %v", len(off), rules.NumField(), off)
	}
	for _, p := range model.Promises {
		if !broken[p.Name] && p.Name != model.EpochsRise.Name { // no rule here lets an epoch fall
			t.Errorf("no mistake breaks %q: is it checked?", p.Name)
		}
	}
}
