// Package sim runs two regions in one process, on time that it owns, through faults that a seed chooses, and checks what
// Tandem promises on what is left.
//
//	seed ─▶ plan ─▶ World: two regions of the real code ◀─ devices, operators, readers
//	                  faults: cut, crash, pause, slow, full, clocks      │
//	                  heal ─▶ settle ─▶ check ◀──────── journal ─────────┘
//
// Everything above the log engine and the directory is the real thing: failover.Controller, hub.Replica and its Door,
// pairlog.Log, leases and fences. Below are pairlog.Memory, pairlog.MemoryNetwork and directory.Memory, each behind a
// wrapper of this package that takes time, loses and reorders as the contract of the thing allows, and ends at once when
// its process does. It all runs in a testing/synctest bubble: an hour of waiting takes no time.
//
// A seed fixes the plan, not how goroutines interleave: a failure that needs a certain interleaving may take several
// runs of its seed to come back.
package sim

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"tandem"
	"tandem/directory"
	"tandem/failover"
	"tandem/pairlog"
)

const (
	hubID tandem.HubID      = "00000000000000a1"
	west  tandem.RegionName = "westus2"
	east  tandem.RegionName = "westcentralus"

	partitions = 2
	leaseTTL   = time.Second
	pauseLimit = 2 * time.Second
)

var both = []tandem.RegionName{west, east}

func other(r tandem.RegionName) tandem.RegionName {
	if r == west {
		return east
	}
	return west
}

// A World is two regions, what joins them, and who uses them. It lives in one synctest bubble.
type World struct {
	Seed    uint64
	Mode    pairlog.Mode
	began   time.Time
	dir     string // of the views
	memory  *directory.Memory
	net     *pairlog.MemoryNetwork
	weather *weather
	logger  *slog.Logger
	regions map[tandem.RegionName]*region
	journal *journal
	lives   int
	load    sync.WaitGroup
	stopped chan struct{} // closed when the load ends
	readers sync.WaitGroup
	read    chan struct{} // closed when the readers end
	asks    sync.WaitGroup

	ambushMu sync.Mutex
	ambush   *ambush
}

// Run runs the schedule of one seed and returns what was promised and not kept. It must be called in a synctest bubble.
// Views are kept under dir; settle waits until all goroutines of the bubble are blocked (synctest.Wait).
func Run(ctx context.Context, seed uint64, dir string, settle func(), logger *slog.Logger) error {
	rng := rand.New(rand.NewPCG(seed, 0))
	w := &World{
		Seed: seed, Mode: []pairlog.Mode{pairlog.Async, pairlog.Async, pairlog.SyncAvailable, pairlog.SyncStrict}[rng.IntN(4)],
		began: time.Now(), dir: dir, memory: directory.NewMemory(), net: pairlog.NewMemoryNetwork(), weather: newWeather(seed),
		logger: logger, regions: map[tandem.RegionName]*region{}, stopped: make(chan struct{}), read: make(chan struct{}),
	}
	w.journal = newJournal(w)
	for _, name := range both {
		w.regions[name] = &region{w: w, name: name, clock: &clock{began: w.began}, disk: pairlog.NewMemory()}
	}
	logger.Info("seed", "seed", seed, "mode", w.Mode)
	defer w.end()
	for _, name := range both {
		w.boot(name)
	}
	if err := w.wait("the hub to open", time.Minute, w.settled); err != nil {
		return err
	}
	if err := w.createDevices(ctx); err != nil {
		return err
	}
	w.startLoad(rng)
	faults := plan(rng)
	for _, f := range faults {
		time.Sleep(f.after)
		w.note("fault: %s", f.text)
		w.bury(settle)
		f.do(w, settle)
		if len(w.journal.broken()) > 0 {
			return w.journal.verdict()
		}
	}
	time.Sleep(2 * time.Second)
	w.ambushMu.Lock()
	w.ambush = nil
	w.ambushMu.Unlock()
	w.bury(settle)
	w.heal()
	return w.check(ctx)
}

// note writes a line to the log of the run.
func (w *World) note(format string, args ...any) {
	w.logger.Info(fmt.Sprintf(format, args...), "at", time.Since(w.began).Round(time.Microsecond))
}

// wait looks every few milliseconds whether something has become so, for at most a time.
func (w *World) wait(what string, most time.Duration, holds func() string) error {
	deadline := time.Now().Add(most)
	for {
		why := holds()
		switch {
		case why == "":
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("waited %v in vain for %s: %s", most, what, why)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// settled says why the hub is not at rest: active in one region, followed to the end by the other, nothing under way.
func (w *World) settled() string {
	var facts []failover.ReplicaFacts
	for _, name := range both {
		l := w.regions[name].life
		if l == nil || l.replica.Load() == nil {
			return string(name) + " is not open"
		}
		facts = append(facts, driven{l.replica.Load()}.Facts())
	}
	for _, f := range facts {
		if f.Damaged != "" || f.NeedsReseed {
			return fmt.Sprintf("%s is damaged: %s", f.Region, f.Damaged)
		}
	}
	a, b := facts[0], facts[1]
	if b.Role == failover.RoleHolder {
		a, b = b, a
	}
	switch {
	case a.Role != failover.RoleHolder || b.Role != failover.RoleFollower:
		return fmt.Sprintf("%s is %s, %s is %s", a.Region, a.Role, b.Region, b.Role)
	case a.End != b.End || a.Applied != a.End || b.Applied != b.End:
		return fmt.Sprintf("%s is at %d, folded %d; %s at %d, folded %d", a.Region, a.End.Number, a.Applied.Number, b.Region, b.End.Number, b.Applied.Number)
	}
	items, _, err := w.memory.Client("witness").List(context.Background(), directory.HubOperationKey(""))
	if err != nil || len(items) > 0 {
		return fmt.Sprintf("%d operations are under way", len(items))
	}
	return ""
}

// holder is the region that has the pen, when the world is settled.
func (w *World) holder() tandem.RegionName {
	for _, name := range both {
		if l := w.regions[name].life; l != nil && l.replica.Load() != nil && l.replica.Load().Facts().Role == "holder" {
			return name
		}
	}
	return ""
}

// heal ends every fault.
func (w *World) heal() {
	w.note("heal")
	w.weather.clear()
	w.net.Join(west, east)
	for _, name := range both {
		w.memory.Client(string(name)).Join()
		r := w.regions[name]
		r.disk.SetFull(false)
		r.disk.HangAppends(0, false)
		r.disk.SetSpace(pairlog.Space{Total: 1 << 30, Free: 1 << 30})
		if r.life != nil {
			r.life.gate.wake()
		} else {
			w.boot(name)
		}
	}
}

// bury takes note of processes that were killed in an ambush.
func (w *World) bury(settle func()) {
	for _, name := range both {
		if l := w.regions[name].life; l != nil && l.gate.isDead() {
			l.crash(settle)
		}
	}
}

// end stops everything; afterwards nothing of the world runs.
func (w *World) end() {
	if !w.ended() {
		close(w.stopped)
	}
	close(w.read)
	w.heal0()
	for _, name := range both {
		if l := w.regions[name].life; l != nil {
			l.stop()
		}
	}
	w.load.Wait()
	w.readers.Wait()
	w.asks.Wait()
	w.weather.flying.Wait()
}

// heal0 only lets go of what is held up.
func (w *World) heal0() {
	for _, name := range both {
		if l := w.regions[name].life; l != nil {
			l.gate.wake()
		}
	}
}

func (w *World) viewDir(incarnation tandem.Incarnation) string {
	return filepath.Join(w.dir, string(incarnation))
}

// copyTree copies what a process that was killed leaves in its view's directory.
func copyTree(to, from string) error {
	return os.CopyFS(to, os.DirFS(from))
}
