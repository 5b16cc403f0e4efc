package hub

import (
	"fmt"
	"strings"
	"testing"

	"tandem/pairlog"
)

// given is a source that keeps what it gets back.
type given struct {
	id   DoorID
	back []work
}

func (g *given) door() DoorID                      { return g.id }
func (g *given) take(works []work, _ *room) []work { return works }
func (g *given) giveBack(works []work)             { g.back = append(append([]work(nil), works...), g.back...) }
func (g *given) decided([]work, uint64)            {}
func (g *given) resolvedMark() uint64              { return 0 }

// A command for which the record has no room is decided with the next one: it is no refusal.
func TestFullRecordGivesBack(t *testing.T) {
	view, err := OpenView(t.Context(), ViewOptions{Dir: t.TempDir(), Hub: "00000000000000aa", Partitions: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	w := &writer{r: &Replica{view: view, door: &Door{}}, pen: pairlog.Pen{Epoch: 1}, next: 1}
	sources := []*given{{id: "one"}, {id: "two"}}
	bulk := func(first int) Command {
		var changes []DeviceChange
		for n := range 100 {
			changes = append(changes, DeviceChange{Op: OpDeviceCreate, ID: fmt.Sprint("d", first+n), Auth: Auth{Type: AuthNone}, DeviceScope: strings.Repeat("s", 2000)})
		}
		return Command{Op: OpBulk, Body: AppendBulk(nil, changes)}
	}
	for i := range 4 { // two fit
		w.works = append(w.works, work{number: uint64(i%3 + 1), command: bulk(100 * i)})
	}
	w.groups = []group{{sources[0], 0, 3}, {sources[1], 3, 4}}
	w.decide()
	if len(w.works) != 2 || len(w.groups) != 1 || w.groups[0].to != 2 || w.works[0].outcome.Err != nil || w.works[1].outcome.Err != nil {
		t.Fatalf("%d works in %d groups", len(w.works), len(w.groups))
	}
	if len(sources[0].back) != 1 || sources[0].back[0].number != 3 || len(sources[1].back) != 1 || sources[0].back[0].outcome.Err != nil {
		t.Fatalf("given back: %d and %d", len(sources[0].back), len(sources[1].back))
	}
	var doors int
	for _, e := range w.batch.Entries() {
		if e.Kind == KindDoor {
			entry, err := DecodeDoorEntry(e.Data)
			if err != nil || entry.Door != "one" || entry.First != 1 || entry.Count != 2 || len(entry.Refused) != 0 {
				t.Errorf("door entry %+v, %v", entry, err)
			}
			doors++
		}
	}
	if doors != 1 {
		t.Errorf("%d door entries", doors)
	}
}

// Whatever comes over the link, a frame is read or refused.
func FuzzFrames(f *testing.F) {
	f.Add(appendCommandFrame(nil, &commandFrame{Door: "d", Epoch: 1, Base: 1, First: 1, Commands: []Command{{Op: OpTelemetry, Device: "x", Body: []byte("b")}}}))
	o := Outcome{Err: ErrDeviceExists}
	f.Add(appendAnswerFrame(nil, &answerFrame{Epoch: 1, First: 1, Upto: 2, Record: 3, Details: []answerDetail{newDetail(2, &o)}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := decodeCommandFrame(data); err == nil && (c.Base == 0 || c.First < c.Base) {
			t.Errorf("numbers out of order: base %d, first %d", c.Base, c.First)
		}
		if a, err := decodeAnswerFrame(data); err == nil {
			for i := range a.Details {
				_ = a.Details[i].outcome()
			}
		}
	})
}
