package pairlog_test

import (
	"fmt"
	"testing"

	"tandem/pairlog"
	"tandem/pairlog/logtest"
)

func TestMemoryStore(t *testing.T) {
	logtest.RunStore(t, func(t *testing.T) (pairlog.Store, func() pairlog.Store) {
		m := pairlog.NewMemory()
		return m, func() pairlog.Store { return m }
	})
}

func TestLogOnMemory(t *testing.T) {
	logtest.RunLog(t, memoryPair)
}

func memoryPair(t *testing.T) logtest.Pair {
	n := pairlog.NewMemoryNetwork()
	return logtest.Pair{
		A:    logtest.Side{Region: "west", Store: pairlog.NewMemory(), Link: n.Link("west")},
		B:    logtest.Side{Region: "east", Store: pairlog.NewMemory(), Link: n.Link("east")},
		Cut:  func() { n.Cut("west", "east") },
		Join: func() { n.Join("west", "east") },
	}
}

func TestWalks(t *testing.T) {
	seeds := 60
	if testing.Short() {
		seeds = 10
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			logtest.RunWalk(t, uint64(seed), 40, memoryPair)
		})
	}
}
