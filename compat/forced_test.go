package compat

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// seeded is a source of random moments whose seed is shown, and taken from SEED or TANDEM_CHAOS_SEED when that is set.
func seeded(t *testing.T) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	for _, name := range []string{"SEED", "TANDEM_CHAOS_SEED"} {
		if n, err := strconv.ParseUint(os.Getenv(name), 10, 64); err == nil {
			seed = n
		}
	}
	t.Logf("SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

func roundsOf(short, long int) int {
	if testing.Short() {
		return short
	}
	return long
}

// The region with the pen is killed, the operator forces a failover, the region comes back: what was acknowledged and is
// missing stands in a receipt, and nothing else does.
func TestKillAndReturn(t *testing.T) {
	s := startSystem(t)
	s.faults(t, roundsOf(2, 20), syscall.SIGKILL, expectation{})
}

// The same with synchronous replication: nothing is missing.
func TestKillAndReturnSync(t *testing.T) {
	s := startSystem(t)
	s.synchronous(t)
	s.faults(t, roundsOf(2, 20), syscall.SIGKILL, expectation{noMissing: true})
}

// The region with the pen is paused for ten seconds, the operator forces a failover, and the region wakes.
func TestPauseAndReturn(t *testing.T) {
	s := startSystem(t)
	s.faults(t, roundsOf(1, 10), syscall.SIGSTOP, expectation{})
}

// A pause with synchronous replication: nothing is missing.
func TestPauseAndReturnSync(t *testing.T) {
	s := startSystem(t)
	s.synchronous(t)
	s.faults(t, roundsOf(1, 10), syscall.SIGSTOP, expectation{noMissing: true})
}

// A pause without a failover: the region's lease ends, it wakes, and goes on with everything it had.
func TestPauseAndGoOn(t *testing.T) {
	s := startSystem(t)
	l := startLoad(t, s, 10)
	random := seeded(t)
	for range roundsOf(1, 5) {
		time.Sleep(time.Second + time.Duration(random.IntN(1000))*time.Millisecond)
		holder, err := s.holder()
		if err != nil {
			t.Fatal(err)
		}
		s.signal(holder, syscall.SIGSTOP)
		time.Sleep(10 * time.Second)
		s.signal(holder, syscall.SIGCONT)
		took, err := l.awaitAck(time.Now(), 60*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s acknowledges again %v after it woke", holder, took)
	}
	l.pause()
	s.verify(t, l, expectation{noMissing: true})
}

// With the target outside the in-sync set a forced failover is refused, unless the loss is accepted.
func TestSyncRefusesLoss(t *testing.T) {
	s := startSystem(t)
	s.synchronous(t)
	l := startLoad(t, s, 10)
	time.Sleep(time.Second)
	holder, err := s.holder()
	if err != nil {
		t.Fatal(err)
	}
	target := other(holder)
	s.signal(target, syscall.SIGKILL)
	if took, err := l.awaitAck(time.Now().Add(time.Second), 30*time.Second); err != nil {
		t.Fatalf("the holder does not go on alone: %v", err)
	} else {
		t.Logf("alone after %v", took)
	}
	time.Sleep(5 * time.Second)
	// The target may not catch up before the holder dies, or it would be in sync again.
	s.signal(holder, syscall.SIGKILL)
	s.start(target)
	time.Sleep(8 * time.Second)
	o, err := s.failover(move{To: target, Forced: true})
	if err == nil {
		if o, err = s.follow(o.ID, 60*time.Second); err == nil && o.succeeded() {
			t.Fatalf("a forced failover to a region outside the in-sync set succeeded without the loss being accepted: %v", &o)
		}
	}
	t.Logf("refused: %v %v", err, &o)
	s.forced(t, move{To: target, Forced: true, AcceptLoss: true})
	if _, err := l.awaitAck(time.Now(), 60*time.Second); err != nil {
		t.Fatal(err)
	}
	s.start(holder)
	s.settled(t)
	l.pause()
	s.verify(t, l, expectation{})
}

// A change of the replication mode takes effect by itself: soon the peer is in the in-sync set.
func TestReplicationChange(t *testing.T) {
	s := startSystem(t)
	if err := s.replicate("sync-available"); err != nil {
		t.Fatalf("set the replication mode: %v", err)
	}
	if err := s.inSync(15 * time.Second); err != nil {
		t.Fatal(err)
	}
}

// synchronous makes the hub sync-available and waits until the peer is in sync. The hub is moved on the way, so that a new
// epoch begins with the mode.
func (s *system) synchronous(t *testing.T) {
	t.Helper()
	if err := s.replicate("sync-available"); err != nil {
		t.Fatalf("set the replication mode: %v", err)
	}
	time.Sleep(2 * time.Second) // until both regions have read it
	holder, err := s.holder()
	if err != nil {
		t.Fatal(err)
	}
	o, err := s.failover(move{To: other(holder)})
	if err == nil {
		o, err = s.follow(o.ID, 45*time.Second)
	}
	if err != nil || !o.succeeded() {
		t.Fatalf("planned failover to %s: %v %v", other(holder), err, &o)
	}
	if err := s.inSync(30 * time.Second); err != nil {
		t.Fatal(err)
	}
}

func (s *system) inSync(limit time.Duration) error {
	return waitFor(context.Background(), limit, func() error {
		var hub struct {
			Properties struct {
				Tandem struct {
					Replication string
					InSync      []string
				}
			}
		}
		if err := s.arm(http.MethodGet, s.hubPath(), nil, &hub); err != nil {
			return err
		}
		if h := hub.Properties.Tandem; h.Replication != "sync-available" || len(h.InSync) < 2 {
			return fmt.Errorf("the hub says %+v", h)
		}
		return nil
	})
}

// faults brings rounds of one fault on the region that has the pen, each followed by a forced failover and a return.
func (s *system) faults(t *testing.T, rounds int, fault syscall.Signal, want expectation) {
	l := startLoad(t, s, 10)
	random := seeded(t)
	for round := range rounds {
		time.Sleep(time.Second + time.Duration(random.IntN(2000))*time.Millisecond)
		holder, err := s.holder()
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		s.signal(holder, fault)
		woken := make(chan struct{})
		go func() {
			defer close(woken)
			if fault == syscall.SIGSTOP {
				time.Sleep(10 * time.Second)
				s.signal(holder, syscall.SIGCONT)
			}
		}()
		time.Sleep(time.Duration(random.IntN(1500)) * time.Millisecond)
		took := s.forced(t, move{To: other(holder), Forced: true})
		first, err := l.awaitAck(began, 60*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("round %d: %v to %s; command to done %v, fault to first acknowledgement %v", round+1, fault, holder,
			took.Round(time.Millisecond), first.Round(time.Millisecond))
		<-woken
		if fault == syscall.SIGKILL {
			time.Sleep(time.Duration(random.IntN(2000)) * time.Millisecond)
			s.start(holder)
		}
		s.settled(t)
	}
	l.pause()
	s.verify(t, l, want)
}

// forced runs a forced failover to its end and returns how long that took.
func (s *system) forced(t *testing.T, m move) time.Duration {
	t.Helper()
	began := time.Now()
	// Right after a fault, no region may be able to take the order: the operator tries again.
	var o operation
	err := waitFor(context.Background(), 30*time.Second, func() (err error) {
		o, err = s.failover(m)
		var r *refusal
		if errors.As(err, &r) && r.status < 500 && r.status != http.StatusConflict {
			t.Fatalf("forced failover to %s: %v", m.To, err)
		}
		return err
	})
	if err != nil {
		t.Fatalf("forced failover to %s: %v", m.To, err)
	}
	if o, err = s.follow(o.ID, 60*time.Second); err != nil {
		t.Fatal(err)
	}
	if !o.succeeded() {
		t.Fatalf("forced failover to %s: %v", m.To, &o)
	}
	return time.Since(began)
}

// settled waits until the hub is held in one region, the other follows it, and no receipt is provisional.
func (s *system) settled(t *testing.T) {
	t.Helper()
	if err := waitFor(context.Background(), 60*time.Second, s.isSettled); err != nil {
		status, _ := s.status()
		t.Fatalf("the pair has not settled: %v\nstatus: %v", err, status)
	}
}

func (s *system) isSettled() error {
	holder, err := s.holder()
	if err != nil {
		return err
	}
	roles, err := s.roles()
	if err != nil {
		return err
	}
	if roles[holder].role != "holder" || roles[other(holder)].role != "follower" {
		return fmt.Errorf("the pen is in %s and the regions say %v", holder, roles)
	}
	receipts, err := s.receipts()
	if err != nil {
		return err
	}
	for _, r := range receipts {
		if r.State == "provisional" {
			return fmt.Errorf("receipt %s is provisional", r.ID)
		}
	}
	return nil
}

// fact is one region's part of the hub's status.
type fact struct {
	role    string
	number  float64 // of the last record folded
	root    string  // at the record rooted
	rooted  float64
	differs bool
}

// roles reads the status document: wherever it is nested, an object with a region and a role is one region's.
func (s *system) roles() (map[string]fact, error) {
	document, err := s.status()
	if err != nil {
		return nil, err
	}
	found := map[string]fact{}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, each := range v {
				walk(each)
			}
		case map[string]any:
			region, _ := v["region"].(string)
			role, _ := v["role"].(string)
			if region != "" && role != "" {
				f := fact{role: role}
				applied, _ := v["applied"].(map[string]any)
				f.number, _ = applied["number"].(float64)
				f.root, _ = v["root"].(string)
				f.rooted, _ = v["rootNumber"].(float64)
				f.differs, _ = v["rootDiffers"].(bool)
				found[region] = f
			}
			for _, each := range v {
				walk(each)
			}
		}
	}
	walk(document)
	if len(found) < 2 {
		return found, fmt.Errorf("the status document shows %d regions: %v", len(found), document)
	}
	return found, nil
}

// verify reads everything back through both regions, with nothing in flight, and compares it with the journal. Both
// regions must show the same events, log and state root; a planned failover, which compares roots itself, must succeed.
func (s *system) verify(t *testing.T, l *load, want expectation) {
	t.Helper()
	if err := waitFor(context.Background(), 60*time.Second, s.isSettled); err != nil {
		t.Errorf("the pair has not settled: %v", err)
	}
	time.Sleep(time.Second)
	events, err := s.events(regions[0])
	if err != nil {
		t.Fatalf("read the events in %s: %v", regions[0], err)
	}
	there, err := s.events(regions[1])
	if err != nil {
		t.Fatalf("read the events in %s: %v", regions[1], err)
	}
	if len(events) != len(there) {
		t.Errorf("%s shows %d events, %s %d", regions[0], len(events), regions[1], len(there))
	}
	receipts, err := s.receipts()
	if err != nil {
		t.Errorf("read the receipts: %v", err)
	}
	v := verify(l.journal(), events, receipts, want)
	v.check(t)
	facts, err := s.roles()
	if err != nil {
		t.Fatal(err)
	}
	after := max(facts[regions[0]].number, facts[regions[1]].number)
	if err := waitFor(context.Background(), 30*time.Second, func() error { return s.equal(after) }); err != nil {
		t.Errorf("the regions differ: %v", err)
	}
	if !t.Failed() {
		l.order("resume")
		s.plannedMove(t, l)
	}
}

// equal compares the state roots of both regions at one record, at or after the given one.
func (s *system) equal(after float64) error {
	facts, err := s.roles()
	if err != nil {
		return err
	}
	a, b := facts[regions[0]], facts[regions[1]]
	switch {
	case a.differs || b.differs:
		return fmt.Errorf("a region's root is not the one in the log: %+v", facts)
	case a.rooted <= after || a.rooted != b.rooted:
		return fmt.Errorf("no root that both have computed after record %.0f: %+v", after, facts)
	case a.root != b.root:
		return fmt.Errorf("at record %.0f one has the root %s, the other %s", a.rooted, a.root, b.root)
	}
	return nil
}
