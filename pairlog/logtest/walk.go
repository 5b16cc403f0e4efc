package logtest

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"tandem"
	"tandem/pairlog"
)

// RunWalk drives a pair through steps chosen by seed: appends, cuts, restarts, planned and forced moves of the pen, trims.
// A move goes to a new epoch as the directory would allow it. At the end both regions hold the same log, verified; every
// record that was ever appended is in it or in a tail; and what a sync append answered is in the log.
func RunWalk(t *testing.T, seed uint64, steps int, pair func(t *testing.T) Pair) {
	rng := rand.New(rand.NewPCG(seed, 1))
	p := pair(t)
	w := &walk{t: t, rng: rng, p: p, appended: make(map[pairlog.Hash]string), answered: make(map[pairlog.Hash]string)}
	w.holder = (&side{Side: p.A, t: t, peer: p.B.Region}).open()
	w.other = (&side{Side: p.B, t: t, peer: p.A.Region}).open()
	w.sync = rng.IntN(2) == 0
	w.claim()
	w.followOther()
	for range steps {
		w.step()
		if t.Failed() {
			break
		}
	}
	w.note("end")
	w.join()
	w.write(1)
	w.other.caughtUp(w.holder)
	w.check()
	if t.Failed() {
		t.Logf("seed %d: %v", seed, w.done)
	}
}

type walk struct {
	t             *testing.T
	rng           *rand.Rand
	p             Pair
	holder, other *side
	epoch         tandem.Epoch
	branches      []pairlog.Branch
	set           *inSync
	sync, cut     bool
	stop          func() error // the follower's
	ended         <-chan error
	trimmed       uint64
	appended      map[pairlog.Hash]string
	answered      map[pairlog.Hash]string // by sync appends whose peer was in the set
	done          []string
}

func (w *walk) note(format string, a ...any) { w.done = append(w.done, fmt.Sprintf(format, a...)) }

// claim begins the next epoch at the holder.
func (w *walk) claim() {
	w.epoch++
	o := pairlog.WriterOptions{PeerTimeout: 50 * time.Millisecond}
	if w.sync {
		w.set = &inSync{in: map[tandem.RegionName]bool{}}
		o.Mode, o.InSync = pairlog.SyncAvailable, w.set
	}
	w.holder.begin(w.epoch, o)
	w.branches = w.holder.w.Pen().Forks
	w.keep(w.holder.log.End().Hash, "pen")
}

func (w *walk) keep(h pairlog.Hash, what string) {
	w.appended[h] = fmt.Sprintf("%s of epoch %d", what, w.epoch)
}

func (w *walk) followOther() { w.stop, w.ended = w.other.follow(w.epoch) }

func (w *walk) write(n int) {
	for i := range n {
		var b pairlog.Batch
		b.Add(pairlog.KindTelemetry, payload(i))
		rec, err := w.holder.w.Append(w.t.Context(), &b)
		must(w.t, err)
		w.keep(rec.Header.Hash, fmt.Sprintf("record %d", rec.Header.Number))
		if w.sync && w.set.Contains(w.other.Region) {
			w.answered[rec.Header.Hash] = w.appended[rec.Header.Hash]
		}
	}
}

func (w *walk) join() {
	if w.cut {
		w.p.Join()
		w.cut = false
	}
}

func (w *walk) step() {
	switch w.rng.IntN(10) {
	case 0, 1, 2:
		n := 1 + w.rng.IntN(20)
		w.note("write %d", n)
		w.write(n)
	case 3:
		if w.cut {
			w.note("join")
			w.join()
		} else {
			w.note("cut")
			w.p.Cut()
			w.cut = true
		}
	case 4:
		w.note("follower restarts")
		w.stop()
		w.other.restart()
		w.followOther()
	case 5:
		w.note("holder restarts")
		w.holder.restart()
		w.stop()
		w.claim()
		w.followOther()
	case 6:
		w.note("planned move")
		w.join()
		rec, err := w.holder.w.Close(w.t.Context(), pairlog.Close{})
		must(w.t, err)
		w.keep(rec.Header.Hash, "close")
		must(w.t, within(w.t, w.ended))
		w.holder, w.other = w.other, w.holder
		w.claim()
		w.followOther()
	case 7:
		w.forced()
	case 8:
		w.note("failed claim")
		_, err := w.other.log.EndCopy(w.t.Context(), w.epoch)
		must(w.t, err)
		w.stop()
		if w.rng.IntN(2) == 0 {
			w.other.restart()
		}
		must(w.t, w.other.log.Resume(w.t.Context(), w.epoch))
		w.followOther()
	case 9:
		if w.cut {
			return
		}
		w.other.caughtUp(w.holder)
		if end := w.holder.log.End().Number; end > w.trimmed+10 {
			w.trimmed += 1 + uint64(w.rng.IntN(int(end-w.trimmed-1)))
			w.note("trim %d", w.trimmed)
			must(w.t, w.holder.log.Trim(w.t.Context(), w.trimmed))
			must(w.t, w.other.log.Trim(w.t.Context(), w.trimmed))
		}
	}
}

// forced moves the pen to a copy that may lack the holder's last records, while the holder may still be writing.
func (w *walk) forced() {
	inSet := w.sync && w.set.Contains(w.other.Region)
	fork, err := w.other.log.EndCopy(w.t.Context(), w.epoch)
	must(w.t, err)
	w.note("forced move at %v", fork)
	if w.sync { // the claim compares the set: from here on the old holder cannot change it
		w.set.mu.Lock()
		w.set.refuse = pairlog.ErrFenced
		w.set.mu.Unlock()
	}
	for range w.rng.IntN(4) { // it does not know yet
		rec, err := w.holder.w.Append(w.t.Context(), nil)
		if rec.Header.Number != 0 {
			w.keep(rec.Header.Hash, fmt.Sprintf("stranded %d", rec.Header.Number))
		}
		if err == nil && inSet {
			w.t.Errorf("record %d was answered beyond the fork %d", rec.Header.Number, fork.Number)
		}
		if err != nil {
			break
		}
	}
	w.stop()
	if !inSet { // a loss is allowed, never a silent one
		clear(w.answered)
	}
	w.holder, w.other = w.other, w.holder
	w.claim()
	if w.rng.IntN(2) == 0 {
		w.other.restart()
	}
	must(w.t, w.other.log.Seal(w.t.Context(), w.epoch-1))
	w.followOther()
}

func (w *walk) check() {
	t := w.t
	a, b := w.holder, w.other
	must(t, a.log.Check(t.Context()))
	must(t, b.log.Check(t.Context()))
	floor := max(a.log.Begins().Number, b.log.Begins().Number)
	x, y := a.hashes(), b.hashes()
	for n := floor + 1; n <= a.log.End().Number; n++ {
		if x[n] != y[n] || x[n] == (pairlog.Hash{}) {
			t.Fatalf("record %d: %v and %v", n, x[n], y[n])
		}
	}
	if w.trimmed > 0 {
		return // what was trimmed is rightly gone
	}
	have := make(map[pairlog.Hash]bool)
	for _, h := range x {
		have[h] = true
	}
	for h, what := range w.answered {
		if !have[h] {
			t.Errorf("%s was answered in sync and is not in the log", what)
		}
	}
	for _, s := range []*side{a, b} {
		tails, err := s.log.Tails(t.Context())
		must(t, err)
		for _, tail := range tails {
			must(t, s.log.Tail(t.Context(), tail.Epoch, func(r pairlog.Record) error {
				have[r.Header.Hash] = true
				return nil
			}))
		}
	}
	for h, what := range w.appended {
		if !have[h] {
			t.Errorf("%s is neither in the log nor in a tail", what)
		}
	}
}
