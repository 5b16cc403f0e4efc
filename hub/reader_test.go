package hub_test

import (
	"fmt"
	"testing"

	"tandem"
	"tandem/hub"
)

// A back end reads in a region that is then failed over by force: it has read what is now a tail, and must not miss what
// the new epoch writes under the same record numbers.
func TestReaderOfATailGoesBackToTheFork(t *testing.T) {
	p := newPair(t)
	p.device("a", "d")
	eventually(t, "b has the device", func() bool { return p.regions["b"].replica.Facts().Applied == p.regions["a"].replica.Facts().Applied })
	p.net.Cut("a", "b")
	reader, err := p.handle("a").Events(t.Context(), hub.EventStart{Partition: -1})
	if err != nil {
		t.Fatal(err)
	}
	for n := range 5 {
		if _, err := p.handle("a").Do(t.Context(), telemetry("d", n)); err != nil {
			t.Fatal(err)
		}
		if e, err := reader.Next(t.Context()); err != nil || e.Message.MessageID != fmt.Sprint(n) {
			t.Fatalf("event %d: %s, %v", n, e.Message.MessageID, err)
		}
	}
	p.regions["a"].replica.Fence()
	fork, err := p.regions["b"].replica.EndCopy(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	p.net.Join("a", "b")
	p.claim("b", 2, fork, true)
	const first, more = 100, 10
	for n := first; n < first+more; n++ {
		if _, err := p.handle("b").Do(t.Context(), telemetry("d", n)); err != nil {
			t.Fatal(err)
		}
	}
	last := int64(0)
	for n := first; n < first+more; n++ {
		e, err := reader.Next(t.Context())
		if err != nil || e.Message.MessageID != fmt.Sprint(n) || e.Position.Epoch != 2 || e.Number <= last {
			t.Fatalf("event %s of %d, number %d, %v; want message %d", e.Message.MessageID, e.Position.Epoch, e.Number, err, n)
		}
		last = e.Number
	}
	if last < hub.JumpEvents {
		t.Fatalf("event number %d after a forced move", last)
	}
}

// Two forced epochs that go on from the same record, one stranded by the other, give no number twice.
func TestForcedEpochsFromOneForkShareNoNumbers(t *testing.T) {
	p := newPair(t)
	p.device("a", "d")
	eventually(t, "b has the device", func() bool { return p.regions["b"].replica.Facts().End == p.regions["a"].replica.Facts().End })
	p.net.Cut("a", "b")
	p.regions["a"].replica.Fence()
	fork, err := p.regions["b"].replica.EndCopy(t.Context(), 1)
	if err != nil || fork != p.regions["a"].replica.Facts().End {
		t.Fatalf("b ends at %+v, a at %+v: %v", fork, p.regions["a"].replica.Facts().End, err)
	}
	numbers := map[int64]string{}
	send := func(region tandem.RegionName) {
		for n := range 5 {
			if _, err := p.handle(region).Do(t.Context(), telemetry("d", n)); err != nil {
				t.Fatal(err)
			}
		}
		reader, err := p.handle(region).Events(t.Context(), hub.EventStart{Partition: -1})
		if err != nil {
			t.Fatal(err)
		}
		for range 5 {
			e, err := reader.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if was, used := numbers[e.Number]; used {
				t.Fatalf("event %d is %s's and %s's", e.Number, was, e.Position)
			}
			numbers[e.Number] = e.Position.String()
		}
	}
	p.claimOnly("b", 2, fork)
	send("b")
	p.regions["b"].replica.Fence()
	p.claimOnly("a", 3, fork) // it never heard of epoch 2
	send("a")
}
