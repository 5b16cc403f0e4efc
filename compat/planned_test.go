package compat

import (
	"slices"
	"testing"
	"time"
)

// A hub moves to the other region and back while devices send: nothing acknowledged is lost or repeated, each device's
// order holds, and no connection ends.
func TestPlannedMoves(t *testing.T) {
	moves := 20
	if testing.Short() {
		moves = 4
	}
	s := startSystem(t)
	l := startLoad(t, s, 10)
	from := time.Now()
	time.Sleep(2 * time.Second)
	baseline, _ := l.longestGap(from.Add(time.Second), time.Now())

	var gaps, waits []time.Duration
	for i := range moves {
		gap, wait := s.plannedMove(t, l)
		gaps, waits = append(gaps, gap), append(waits, wait)
		t.Logf("move %d: longest gap between acknowledgements %v, longest wait for one %v", i+1, gap, wait)
	}
	l.pause()
	slices.Sort(gaps)
	slices.Sort(waits)
	t.Logf("%d moves: gap median %v, longest %v; wait median %v, longest %v; gap without a move %v", moves,
		gaps[len(gaps)/2], gaps[len(gaps)-1], waits[len(waits)/2], waits[len(waits)-1], baseline)
	s.verify(t, l, expectation{noDrops: true, noMissing: true})
}

// plannedMove moves the hub to where it is not and returns the longest gap and wait meanwhile.
func (s *system) plannedMove(t *testing.T, l *load) (gap, wait time.Duration) {
	t.Helper()
	holder, err := s.holder()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	o, err := s.failover(move{To: other(holder)})
	if err != nil {
		t.Fatalf("planned failover to %s: %v", other(holder), err)
	}
	if o, err = s.follow(o.ID, 45*time.Second); err != nil {
		t.Fatal(err)
	}
	if !o.succeeded() {
		t.Fatalf("planned failover to %s: %v", other(holder), &o)
	}
	now, err := s.holder()
	if err != nil || now != other(holder) {
		t.Fatalf("after the failover to %s the holder is %q (%v)", other(holder), now, err)
	}
	if _, err := l.awaitAck(time.Now(), 10*time.Second); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	return l.longestGap(began, time.Now())
}
