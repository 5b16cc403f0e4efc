package hub_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"tandem/hub"
	"tandem/pairlog"
)

// where tells for each event of some records where it lies.
type where struct {
	record, byte uint64
	time         time.Time
}

func TestEventsAreFoundByNumberAndTime(t *testing.T) {
	v, c := openView(t, t.TempDir()), newChain(t)
	var creates []hub.Command
	for i := range 20 {
		creates = append(creates, change(hub.OpDeviceCreate, fmt.Sprint("d", i)))
	}
	decide(t, v, c, creates...)
	events := map[int][]where{}
	starts := map[uint64]uint64{}
	for n := range 150 {
		c.time = c.time.Add(time.Duration(n%3) * time.Second)
		var commands []hub.Command
		for i := range 20 {
			commands = append(commands, said(fmt.Sprint("d", (n+i)%20), strings.Repeat("x", 1000+n*7)))
		}
		start := c.bytes
		rec, _ := decide(t, v, c, commands...)
		starts[rec.Header.Number] = start
		for _, e := range rec.Entries() {
			m, err := hub.DecodeTelemetry(e.Data)
			if err != nil {
				t.Fatal(err)
			}
			if m.Number != int64(len(events[m.Partition])) {
				t.Fatalf("event %d comes after %d", m.Number, len(events[m.Partition]))
			}
			events[m.Partition] = append(events[m.Partition], where{rec.Header.Number, start, rec.Header.Time})
		}
	}
	check := func(first map[int]int) {
		t.Helper()
		for p, list := range events {
			for n, w := range list {
				if n < first[p] {
					continue
				}
				got, err := v.FindEvent(p, int64(n))
				if err != nil || got > w.record || w.byte-starts[got] > 256<<10+64<<10 {
					t.Fatalf("event %d of partition %d lies in record %d; got %d (%v)", n, p, w.record, got, err)
				}
				at, err := v.FindTime(w.time)
				if err != nil || at > w.record {
					t.Fatalf("%v in record %d; got %d (%v)", w.time, w.record, at, err)
				}
				for q, other := range events { // nothing as new lies before it
					if i := len(other) - 1; i >= 0 && other[0].record < at && !other[0].time.Before(w.time) {
						t.Fatalf("partition %d has an event of %v before record %d", q, other[0].time, at)
					}
				}
			}
		}
	}
	check(nil)
	end := v.Applied().Number
	for p := range 4 {
		if got, err := v.FindEvent(p, int64(len(events[p]))); err != nil || got != end+1 {
			t.Errorf("the next event of partition %d: %d (%v), want %d", p, got, err, end+1)
		}
	}
	if got, _ := v.FindTime(c.time.Add(time.Second)); got != end+1 {
		t.Errorf("later than all: %d, want %d", got, end+1)
	}
	if got, _ := v.FindTime(noon.Add(-time.Hour)); got != 1 {
		t.Errorf("earlier than all: %d, want 1", got)
	}

	// Trimmed up to where the index is exact, First is exact.
	half, err := v.FindTime(noon.Add(75 * time.Second))
	if err != nil || half < 10 {
		t.Fatalf("%d (%v)", half, err)
	}
	apply(t, v, c.record(jsonEntry(pairlog.KindTrim, pairlog.Trim{Number: half - 1})))
	first := map[int]int{}
	for p, list := range events {
		for first[p] < len(list) && list[first[p]].record < half {
			first[p]++
		}
	}
	for _, s := range v.Partitions() {
		if s.First != int64(first[s.Partition]) {
			t.Errorf("partition %d begins at %d, want %d", s.Partition, s.First, first[s.Partition])
		}
	}
	check(first)
	if got, _ := v.FindEvent(0, 0); got != half {
		t.Errorf("a trimmed event: %d, want %d", got, half)
	}
	if got, _ := v.FindTime(noon); got != half {
		t.Errorf("a trimmed time: %d, want %d", got, half)
	}
}
