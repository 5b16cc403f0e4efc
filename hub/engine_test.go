package hub_test

import (
	"context"
	"testing"

	"tandem"
	"tandem/hub"
	"tandem/pairlog"
	"tandem/pairlog/natslog"
)

// engine is a region's real log engine for as long as the test runs.
func engine(t *testing.T, region tandem.RegionName) pairlog.Store {
	t.Helper()
	s, err := natslog.Open(t.Context(), natslog.Options{Region: region, StoreDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return s.Store()
}

func TestTrimAndReseedOnTheRealEngine(t *testing.T) {
	stores := map[tandem.RegionName]pairlog.Store{"a": engine(t, "a"), "b": engine(t, "b")}
	p := newPair(t, func(o *hub.ReplicaOptions) { impatient(o); o.Store = stores[o.Region] })
	leaveBehind(t, p)
	p.reopen("b")
	p.device("a", "latest")
	p.same()
	p.move("b")
	p.send("b", "early", 200, 40)
	p.same()
	p.move("a")
}
