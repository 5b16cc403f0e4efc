package hub_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tandem"
	"tandem/hub"
	"tandem/pairlog"
)

// lossyLink loses, repeats and reorders what doors and holders send each other.
type lossyLink struct {
	pairlog.Link
	mu     sync.Mutex
	random *rand.Rand
	rate   float64 // of each kind of fault
	lose   func(subject string) bool
}

func (l *lossyLink) Send(to tandem.RegionName, subject string, data []byte) error {
	if !strings.HasSuffix(subject, ".commands") && !strings.HasSuffix(subject, ".answers") {
		return l.Link.Send(to, subject, data)
	}
	l.mu.Lock()
	fate, delay := l.random.Float64(), time.Duration(l.random.IntN(3000))*time.Microsecond
	lost := l.lose != nil && l.lose(subject)
	rate := l.rate
	l.mu.Unlock()
	switch {
	case lost, fate < rate:
		return nil
	case fate < 2*rate:
		_ = l.Link.Send(to, subject, data)
	case fate < 3*rate:
		data = slices.Clone(data)
		time.AfterFunc(delay, func() { _ = l.Link.Send(to, subject, data) })
		return nil
	}
	return l.Link.Send(to, subject, data)
}

// newLossyPair is newPair over links with faults; a has the pen.
func newLossyPair(t *testing.T, seed uint64, rate float64) (*pair, map[tandem.RegionName]*lossyLink) {
	t.Helper()
	links := map[tandem.RegionName]*lossyLink{}
	p := newPair(t, func(o *hub.ReplicaOptions) {
		links[o.Region] = &lossyLink{Link: o.Link, random: rand.New(rand.NewPCG(seed, uint64(len(links)))), rate: rate}
		o.Link = links[o.Region]
	})
	return p, links
}

// script is what one door asks for, and what has to come of it when each command is decided once and in order.
type script struct {
	commands []*hub.Command
	want     []tandem.Kind // okay when it is carried out
	devices  map[tandem.DeviceID]bool
	sent     []string // message ids of "there", in order
}

const okay tandem.Kind = 255

func newScript(random *rand.Rand, n int) *script {
	s := &script{devices: map[tandem.DeviceID]bool{"there": true}}
	for i := range n {
		id := tandem.DeviceID(fmt.Sprint("x", random.IntN(40)))
		c, want := telemetry("there", i), okay
		switch random.IntN(6) {
		case 0:
			c = create(id)
			if s.devices[id] {
				want = tandem.Exists
			}
			s.devices[id] = true
		case 1:
			c = &hub.Command{Op: hub.OpDeviceDelete, Device: id, IfMatch: "*"}
			if !s.devices[id] {
				want = tandem.NotFound
			}
			s.devices[id] = false
		case 2:
			c = telemetry(id, i)
			if !s.devices[id] {
				want = tandem.NotFound
			}
		default:
			s.sent = append(s.sent, fmt.Sprint(i))
		}
		s.commands, s.want = append(s.commands, c), append(s.want, want)
	}
	return s
}

// journal notes outcomes by tag.
type journal struct {
	mu    sync.Mutex
	order []uint64
	kinds []tandem.Kind
}

func (j *journal) Resolved(tag uint64, o *hub.Outcome) {
	j.mu.Lock()
	defer j.mu.Unlock()
	kind := okay
	if o.Err != nil {
		kind = tandem.KindOf(o.Err)
	}
	j.order, j.kinds = append(j.order, tag), append(j.kinds, kind)
}

func (j *journal) Flush() {}

func (j *journal) len() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.order)
}

func (s *script) check(t *testing.T, j *journal, p *pair, reader tandem.RegionName) {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := range j.order {
		if j.order[i] != uint64(i) {
			t.Fatalf("outcome %d came at place %d", j.order[i], i)
		}
		if j.kinds[i] != s.want[i] {
			t.Fatalf("command %d (op %d of %s): %v, want %v", i, s.commands[i].Op, s.commands[i].Device, j.kinds[i], s.want[i])
		}
	}
	var all int
	for _, want := range s.want {
		if want == okay {
			all++
		}
	}
	for i, c := range s.commands {
		if s.want[i] == okay && c.Op != hub.OpTelemetry {
			all--
		}
	}
	if got := p.events(reader, all)["there"]; !slices.Equal(got, s.sent) {
		t.Fatalf("%d events of the device, %d sent; first difference: %s", len(got), len(s.sent), difference(got, s.sent))
	}
	for id, exists := range s.devices {
		if _, err := p.handle(reader).Device(t.Context(), id); exists != (err == nil) || err != nil && !errors.Is(err, hub.ErrDeviceNotFound) {
			t.Errorf("device %s: %v, should exist: %v", id, err, exists)
		}
	}
}

func difference(got, want []string) string {
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return fmt.Sprintf("%s instead of %s at %d", got[i], want[i], i)
		}
	}
	return "the length"
}

// Whatever the link loses, repeats and reorders, and whoever has the pen meanwhile: each command is decided once, in
// order, and its door hears the right outcome.
func TestDoorOverALossyLink(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			p, _ := newLossyPair(t, seed, []float64{0, 0.03, 0.1, 0.2}[seed])
			p.device("a", "there")
			random := rand.New(rand.NewPCG(seed, 9))
			s, j := newScript(random, 3000), &journal{}
			var sending sync.WaitGroup
			sending.Go(func() {
				for i, c := range s.commands {
					if err := p.handle("b").Submit(t.Context(), c, j, uint64(i)); err != nil {
						t.Error(err)
						return
					}
					if i%100 == 0 {
						time.Sleep(2 * time.Millisecond)
					}
				}
			})
			for _, to := range []tandem.RegionName{"b", "a", "b", "a"} {
				time.Sleep(time.Duration(random.IntN(20)) * time.Millisecond)
				p.move(to)
			}
			sending.Wait()
			eventually(t, "all resolved", func() bool { return j.len() == len(s.commands) })
			s.check(t, j, p, "a")
		})
	}
}

// After a forced move to the door's own region, what another region had answered is decided again: the same comes of it,
// and what was refused stays refused.
func TestDoorOverALossyLinkForced(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			p, links := newLossyPair(t, seed, 0.05)
			p.device("a", "there")
			eventually(t, "b has the device", func() bool { return p.regions["b"].replica.Facts().Applied == p.regions["a"].replica.Facts().Applied })
			random := rand.New(rand.NewPCG(seed, 9))
			s, j := newScript(random, 2000), &journal{}
			var sending sync.WaitGroup
			half := make(chan struct{})
			sending.Go(func() {
				for i, c := range s.commands {
					if i == len(s.commands)/2 {
						close(half)
					}
					if err := p.handle("b").Submit(t.Context(), c, j, uint64(i)); err != nil {
						t.Error(err)
						return
					}
					if i%50 == 0 {
						time.Sleep(time.Millisecond)
					}
				}
			})
			<-half
			time.Sleep(time.Duration(random.IntN(10)) * time.Millisecond)
			if seed%2 == 0 {
				p.net.Cut("a", "b")
			}
			_ = links
			fork, err := p.regions["b"].replica.EndCopy(t.Context(), 1) // from here on what a answers is lost
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Duration(random.IntN(20)) * time.Millisecond)
			p.regions["a"].replica.Fence()
			p.net.Join("a", "b")
			p.claim("b", 2, fork, true)
			sending.Wait()
			eventually(t, "all resolved", func() bool { return j.len() == len(s.commands) })
			s.check(t, j, p, "b")
			eventually(t, "a follows", func() bool { return p.regions["a"].replica.Facts().Applied == p.regions["b"].replica.Facts().Applied })
			p.move("a") // compares the state roots
		})
	}
}
