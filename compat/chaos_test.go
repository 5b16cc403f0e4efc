package compat

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Whoever drives a move, or takes part in it, is killed at a random moment of it. Once the killed process runs again the
// hub is active in exactly one region; what was acknowledged is there or in a receipt.
func TestChaos(t *testing.T) {
	rounds, _ := strconv.Atoi(os.Getenv("TANDEM_CHAOS_ROUNDS"))
	if rounds == 0 {
		t.Skip("TANDEM_CHAOS_ROUNDS is not set: run this with `make chaos`")
	}
	s := startSystem(t)
	l := startLoad(t, s, 10)
	random := seeded(t)
	steps := map[string]int{}
	span := 150 * time.Millisecond // how long a planned move takes here; learnt from those that were not hit
	for round := range rounds {
		holder, err := s.holder()
		if err != nil {
			t.Fatal(err)
		}
		target := other(holder)
		victim := [2]string{target, holder}[random.IntN(2)]
		forced := random.IntN(3) == 0
		var began time.Time
		var o operation
		if err := waitFor(t.Context(), 20*time.Second, func() (err error) { // the regions may only just have found each other
			began = time.Now()
			o, err = s.failover(move{To: target, Forced: forced})
			return err
		}); err != nil {
			t.Fatalf("round %d: %v", round+1, err)
		}
		time.Sleep(time.Duration(random.Int64N(int64(span))))
		var now operation
		_ = s.armAt(other(victim), http.MethodGet, "/tandem/operations/"+o.ID, nil, &now)
		if !now.running() && now.ID != "" {
			span = max(20*time.Millisecond, time.Since(began)*2/3)
		} else {
			span += 5 * time.Millisecond
		}
		s.signal(victim, syscall.SIGKILL)
		kind := map[bool]string{true: "forced", false: "planned"}[forced]
		role := map[bool]string{true: "target", false: "source"}[victim == target]
		steps[fmt.Sprintf("%s, %s killed at %s", kind, role, now.step())]++
		time.Sleep(time.Duration(random.IntN(800)) * time.Millisecond)
		s.start(victim)
		took, err := l.awaitAck(time.Now(), 60*time.Second)
		if err != nil {
			status, _ := s.status()
			t.Fatalf("round %d (%s, %s killed, %v after the order): %v\nstatus: %v", round+1, kind, role, time.Since(began), err, status)
		}
		if ended, err := s.follow(o.ID, 60*time.Second); err != nil {
			t.Fatalf("round %d: %v", round+1, err)
		} else {
			t.Logf("round %d: %s, %s killed: %v; first acknowledgement %v after it ran again", round+1, kind, role, &ended,
				took.Round(time.Millisecond))
		}
		s.settled(t)
	}
	l.pause()
	s.verify(t, l, expectation{})
	var table []string
	for _, step := range slices.Sorted(maps.Keys(steps)) {
		table = append(table, fmt.Sprintf("%4d  %s", steps[step], step))
	}
	t.Logf("kills by step:\n%s", strings.Join(table, "\n"))
}
