package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"tandem"
	"tandem/failover"
	"tandem/pairlog"
)

// A fault is one thing that happens to the world, some time after the one before. Operators count as faults too.
type fault struct {
	after time.Duration
	text  string
	do    func(w *World, settle func())
}

// plan is what a seed stands for.
func plan(rng *rand.Rand) []fault {
	kinds := []struct {
		weight int
		make   func(rng *rand.Rand) (string, func(*World, func()))
	}{
		{6, cutLink}, {3, joinLink}, {4, cutDirectory}, {4, joinDirectory}, {4, crash}, {1, restart}, {5, start},
		{3, stopped}, {4, goOn}, {8, planned}, {6, forced}, {2, stepClock}, {1, suspend}, {2, slowLink}, {2, fairWeather},
		{2, fullDisk}, {2, roomAgain}, {2, hangAppends}, {1, loseAnswers}, {4, ambushed},
		{10, takeOver},
	}
	total := 0
	for _, k := range kinds {
		total += k.weight
	}
	faults := make([]fault, 6+rng.IntN(20))
	for i := range faults {
		at := rng.IntN(total)
		for _, k := range kinds {
			if at -= k.weight; at < 0 {
				text, do := k.make(rng)
				faults[i] = fault{time.Duration(rng.ExpFloat64() * float64(700*time.Millisecond)), text, do}
				break
			}
		}
	}
	return faults
}

// A victim is a region, chosen when the fault happens.
type victim struct {
	name string
	of   func(w *World) tandem.RegionName
}

func anyRegion(rng *rand.Rand) victim {
	r := both[rng.IntN(2)]
	switch rng.IntN(5) {
	case 0, 1:
		return victim{"the holder", func(w *World) tandem.RegionName { return w.holderOr(r) }}
	case 2:
		return victim{"the follower", func(w *World) tandem.RegionName { return other(w.holderOr(other(r))) }}
	}
	return victim{string(r), func(*World) tandem.RegionName { return r }}
}

// holderOr is the region that has the pen, as the directory says; r when nobody has.
func (w *World) holderOr(r tandem.RegionName) tandem.RegionName {
	pen, _, err := pairlog.ReadPen(context.Background(), w.memory.Client("witness"), hubID)
	if err != nil {
		return r
	}
	return pen.Region
}

func cutLink(*rand.Rand) (string, func(*World, func())) {
	return "cut the link", func(w *World, _ func()) { w.net.Cut(west, east) }
}

func joinLink(*rand.Rand) (string, func(*World, func())) {
	return "join the link", func(w *World, _ func()) { w.net.Join(west, east) }
}

func cutDirectory(rng *rand.Rand) (string, func(*World, func())) {
	r := anyRegion(rng)
	return "cut " + r.name + " from the directory", func(w *World, _ func()) { w.memory.Client(string(r.of(w))).Cut() }
}

func joinDirectory(rng *rand.Rand) (string, func(*World, func())) {
	r := anyRegion(rng)
	return "join " + r.name + " to the directory", func(w *World, _ func()) { w.memory.Client(string(r.of(w))).Join() }
}

func crash(rng *rand.Rand) (string, func(*World, func())) {
	r := anyRegion(rng)
	return "kill " + r.name, func(w *World, settle func()) {
		if l := w.regions[r.of(w)].life; l != nil {
			l.crash(settle)
		}
	}
}

// restart ends a process in order.
func restart(rng *rand.Rand) (string, func(*World, func())) {
	r := anyRegion(rng)
	return "end " + r.name, func(w *World, _ func()) {
		if l := w.regions[r.of(w)].life; l != nil {
			l.gate.wake()
			l.stop()
		}
	}
}

func start(rng *rand.Rand) (string, func(*World, func())) {
	r := anyRegion(rng)
	return "start " + r.name, func(w *World, _ func()) {
		if w.regions[r.of(w)].life == nil {
			w.boot(r.of(w))
		}
	}
}

func stopped(rng *rand.Rand) (string, func(*World, func())) {
	r := anyRegion(rng)
	return "stop " + r.name, func(w *World, _ func()) {
		if l := w.regions[r.of(w)].life; l != nil {
			l.gate.pause()
		}
	}
}

func goOn(rng *rand.Rand) (string, func(*World, func())) {
	r := anyRegion(rng)
	return "continue " + r.name, func(w *World, _ func()) {
		if l := w.regions[r.of(w)].life; l != nil {
			l.gate.wake()
		}
	}
}

func planned(rng *rand.Rand) (string, func(*World, func())) {
	return move(rng, failover.Request{ForcedIfLapsed: rng.IntN(4) == 0})
}

func forced(rng *rand.Rand) (string, func(*World, func())) {
	return move(rng, failover.Request{Forced: true, AcceptLoss: rng.IntN(2) == 0})
}

// move is an operator at one of the regions.
func move(rng *rand.Rand, r failover.Request) (string, func(*World, func())) {
	at := anyRegion(rng)
	r.Hub, r.Requested = hubID, "ann"
	text := fmt.Sprintf("ask %s for a failover, forced %v, loss accepted %v", at.name, r.Forced, r.AcceptLoss)
	return text, func(w *World, _ func()) { w.ask(at.of(w), r) }
}

func stepClock(rng *rand.Rand) (string, func(*World, func())) {
	r, by := anyRegion(rng), time.Duration(rng.IntN(3)-1)*time.Hour
	return fmt.Sprintf("set the wall clock of %s to %v", r.name, by), func(w *World, _ func()) { w.regions[r.of(w)].clock.stepped.Store(int64(by)) }
}

func suspend(rng *rand.Rand) (string, func(*World, func())) {
	r := anyRegion(rng)
	return "the machine of " + r.name + " has slept for six minutes", func(w *World, _ func()) {
		w.regions[r.of(w)].clock.slept.Add(int64(6 * time.Minute))
	}
}

func slowLink(rng *rand.Rand) (string, func(*World, func())) {
	most, lose := time.Duration(20+rng.IntN(400))*time.Millisecond, float64(rng.IntN(3))/10
	return fmt.Sprintf("the link takes up to %v and loses %.0f %% of messages", most, 100*lose), func(w *World, _ func()) { w.weather.set(most, lose) }
}

func fairWeather(*rand.Rand) (string, func(*World, func())) {
	return "the link is fast", func(w *World, _ func()) { w.weather.clear() }
}

// fullDisk is a disk that says that it is full, or an engine that falls silent.
func fullDisk(rng *rand.Rand) (string, func(*World, func())) {
	r, silent := anyRegion(rng), rng.IntN(2) == 0
	return fmt.Sprintf("the disk of %s is full, engine silent %v", r.name, silent), func(w *World, _ func()) {
		if silent {
			w.regions[r.of(w)].disk.SetFull(true)
		} else {
			w.regions[r.of(w)].disk.SetSpace(pairlog.Space{Total: 1 << 30, Free: 8 << 20})
		}
	}
}

func roomAgain(rng *rand.Rand) (string, func(*World, func())) {
	r := anyRegion(rng)
	return "the disk of " + r.name + " has room", func(w *World, _ func()) {
		w.regions[r.of(w)].disk.SetFull(false)
		w.regions[r.of(w)].disk.SetSpace(pairlog.Space{Total: 1 << 30, Free: 1 << 30})
	}
}

func hangAppends(rng *rand.Rand) (string, func(*World, func())) {
	r, n, keep := anyRegion(rng), 1+rng.IntN(4), rng.IntN(2) == 0
	return fmt.Sprintf("%d appends in %s stay unanswered, stored %v", n, r.name, keep), func(w *World, _ func()) { w.regions[r.of(w)].disk.HangAppends(n, keep) }
}

func loseAnswers(rng *rand.Rand) (string, func(*World, func())) {
	r, n := anyRegion(rng), 1+rng.IntN(2)
	return fmt.Sprintf("%d answers of the directory to %s get lost", n, r.name), func(w *World, _ func()) { w.memory.Client(string(r.of(w))).LoseAnswers(n) }
}

// An ambush waits for a step of an operation and does something at that very moment.
type ambush struct {
	after int // so many steps more
	text  string
	do    func(w *World, driver *life)
}

func ambushed(rng *rand.Rand) (string, func(*World, func())) {
	a := ambush{after: rng.IntN(14)}
	victim := func(driver *life) *life { return driver }
	who := "who drives"
	if rng.IntN(2) == 0 {
		who, victim = "the other region", func(driver *life) *life { return driver.r.w.regions[other(driver.r.name)].current() }
	}
	switch rng.IntN(4) {
	case 0, 1:
		a.text, a.do = "kill "+who, func(_ *World, driver *life) {
			if l := victim(driver); l != nil {
				l.gate.kill()
			}
		}
	case 2:
		a.text, a.do = "stop "+who, func(_ *World, driver *life) {
			if l := victim(driver); l != nil {
				l.gate.pause()
			}
		}
	default:
		a.text, a.do = "cut the link", func(w *World, _ *life) { w.net.Cut(west, east) }
	}
	return fmt.Sprintf("an ambush: %s at step %d from here", a.text, a.after), func(w *World, _ func()) {
		w.ambushMu.Lock()
		defer w.ambushMu.Unlock()
		w.ambush = &a
	}
}

// step springs the ambush when it is time.
func (w *World) step(driver *life) {
	w.ambushMu.Lock()
	a := w.ambush
	if a == nil {
		w.ambushMu.Unlock()
		return
	}
	if a.after--; a.after >= 0 {
		w.ambushMu.Unlock()
		return
	}
	w.ambush = nil
	w.ambushMu.Unlock()
	w.note("ambush: %s", a.text)
	a.do(w, driver)
}

// takeOver is a whole story: the holder is lost in one way or another, the other region is told to take over by force,
// and the former holder comes back at a moment that may be a bad one.
func takeOver(rng *rand.Rand) (string, func(*World, func())) {
	how := []string{"stopped", "cut off", "cut off and stopped", "killed", "cut from the link"}[rng.IntN(5)]
	decided := time.Duration(rng.Int64N(int64(3 * time.Second)))
	returns := time.Duration(rng.Int64N(int64(6 * time.Second)))
	r := failover.Request{Hub: hubID, Forced: true, AcceptLoss: rng.IntN(4) > 0, Requested: "ann"}
	return fmt.Sprintf("the holder is %s, forced after %v, back after %v", how, decided, returns), func(w *World, settle func()) {
		lost := w.holderOr(west)
		l := w.regions[lost].current()
		if l == nil {
			return
		}
		if how != "stopped" && how != "killed" {
			w.net.Cut(west, east)
		}
		if how == "cut off" || how == "cut off and stopped" {
			w.memory.Client(string(lost)).Cut()
		}
		switch how {
		case "stopped", "cut off and stopped":
			l.gate.pause()
		case "killed":
			l.crash(settle)
		}
		time.Sleep(decided)
		w.ask(other(lost), r)
		time.Sleep(returns)
		w.bury(settle)
		if w.regions[lost].life == nil {
			w.boot(lost)
		}
		l.gate.wake()
		w.memory.Client(string(lost)).Join()
		time.Sleep(time.Duration(w.weather.takes(time.Second)))
		w.net.Join(west, east)
	}
}

// ask is an operator at one region.
func (w *World) ask(at tandem.RegionName, r failover.Request) {
	w.asks.Go(func() {
		l := w.regions[at].current()
		if l == nil {
			return
		}
		ctx, cancel := context.WithTimeout(l.ctx, 10*time.Second)
		defer cancel()
		o, err := l.controller.Load().Start(ctx, r)
		if err != nil {
			w.note("no failover: %v", err)
			return
		}
		w.note("operation %s, %s from %s to %s", o.ID, o.Kind, o.From, o.To)
	})
}
