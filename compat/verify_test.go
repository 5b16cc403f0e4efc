package compat

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// message is one message by its device and the number that load.js gave it.
type message struct {
	device string
	n      int
}

func (m message) String() string { return m.device + "/" + strconv.Itoa(m.n) }

// history is what one client knows of one message.
type history struct {
	acked bool
	wires int // how often the client wrote it to a connection
	// The first time: which of the device's connections, and its place among all that was written to them.
	connection, place int
}

// verdict is what verify found. Problems are broken promises; the rest are figures.
type verdict struct {
	problems                           []string
	sent, acked, read, repeated, drops int
	stranded                           int // acknowledged, not in the log, and in a receipt
	receipted                          int // items in receipts
}

func (v *verdict) problem(format string, args ...any) {
	if len(v.problems) < 50 {
		v.problems = append(v.problems, fmt.Sprintf(format, args...))
	}
}

func (v *verdict) String() string {
	return fmt.Sprintf("sent %d, acknowledged %d, read back %d (%d repeated), connections dropped %d, acknowledged and stranded %d, items in receipts %d",
		v.sent, v.acked, v.read, v.repeated, v.drops, v.stranded, v.receipted)
}

// expectation is what must hold besides the rules that always do.
type expectation struct {
	noDrops   bool // no connection ends, so nothing is repeated either
	noMissing bool // everything acknowledged is in the log: planned moves, sync
}

// verify compares what the clients saw with what the hub has. What always holds: every message read was sent; event
// numbers rise within a partition; a message acknowledged is in the log or in a receipt; an item in a receipt was sent and
// its event is not in the log; a message is there no more often than its client wrote it; messages that were written
// once, to the same connection, are in the order in which they were written.
func verify(lines []line, events []event, receipts []receipt, want expectation) verdict {
	var v verdict
	messages, drops := histories(lines)
	for _, d := range drops {
		v.drops += d
	}
	if want.noDrops && v.drops > 0 {
		v.problem("%d connections dropped", v.drops)
	}

	read := map[message][]int{} // indexes into events
	numbers := map[int]int64{}
	numbered := map[[2]int64]bool{}
	for i := range events {
		e := &events[i]
		if last, ok := numbers[e.Partition]; ok && e.Number <= last {
			v.problem("partition %d has event %d after %d", e.Partition, e.Number, last)
		}
		numbers[e.Partition] = e.Number
		numbered[[2]int64{int64(e.Partition), e.Number}] = true
		m := message{e.DeviceID, e.message()}
		if m.n == 0 {
			continue // of another program
		}
		v.read++
		if messages[m] == nil {
			v.problem("%v was read and never sent", m)
			continue
		}
		read[m] = append(read[m], i)
	}

	listed := map[message]bool{}
	for i := range receipts {
		for _, item := range receipts[i].list {
			if item.Kind != "telemetry" {
				continue
			}
			v.receipted++
			device, number, _ := strings.Cut(item.MessageID, "/")
			n, _ := strconv.Atoi(number)
			m := message{device, n}
			listed[m] = true
			h := messages[m]
			switch {
			case h == nil:
				v.problem("receipt %s lists %q of %s, which nobody sent", receipts[i].ID, item.MessageID, item.Device)
			case numbered[[2]int64{int64(item.Partition), item.Number}]:
				v.problem("receipt %s lists %v, and its event %d of partition %d is in the log", receipts[i].ID, m, item.Number, item.Partition)
			case len(read[m]) >= h.wires:
				v.problem("receipt %s lists %v, which was written %d times and read %d times", receipts[i].ID, m, h.wires, len(read[m]))
			}
		}
	}

	for m, h := range messages {
		v.sent++
		if h.acked {
			v.acked++
		}
		count := len(read[m])
		switch {
		case count > h.wires || count > 1 && want.noDrops:
			v.problem("%v was read %d times, and written %d times", m, count, h.wires)
		case count > 1:
			v.repeated++
		case count == 0 && h.acked && want.noMissing:
			v.problem("%v was acknowledged and is missing", m)
		case count == 0 && h.acked && !listed[m]:
			v.problem("%v was acknowledged, is missing, and is in no receipt", m)
		case count == 0 && h.acked:
			v.stranded++
		}
	}
	v.order(messages, events)
	slices.Sort(v.problems)
	return v
}

// histories sorts the journal by message, and counts how often each device's connection ended.
func histories(lines []line) (messages map[message]*history, drops map[string]int) {
	messages, drops = map[message]*history{}, map[string]int{}
	for i, l := range lines {
		m := message{l.D, l.N}
		switch h := messages[m]; {
		case l.E == "sent":
			messages[m] = &history{}
		case l.E == "drop":
			drops[l.D]++
		case h == nil:
		case l.E == "acked":
			h.acked = true
		case l.E == "wire":
			if h.wires++; h.wires == 1 {
				h.connection, h.place = drops[l.D], i
			}
		}
	}
	return messages, drops
}

// order checks, for each device, the messages that were written once, to the same connection.
func (v *verdict) order(messages map[message]*history, events []event) {
	type connection struct {
		device string
		number int
	}
	last := map[connection]message{}
	for i := range events {
		m := message{events[i].DeviceID, events[i].message()}
		h := messages[m]
		if h == nil || h.wires != 1 {
			continue
		}
		c := connection{m.device, h.connection}
		if before, ok := last[c]; ok && messages[before].place > h.place {
			v.problem("%v stands after %v", m, before)
			continue
		}
		last[c] = m
	}
}

// check fails the test with the problems.
func (v *verdict) check(t *testing.T) {
	t.Helper()
	t.Log(v.String())
	if v.acked == 0 {
		t.Error("nothing was acknowledged: the test shows nothing")
	}
	if len(v.problems) > 0 {
		t.Errorf("%d promises broken, the first of them:\n  %s", len(v.problems), strings.Join(v.problems[:min(20, len(v.problems))], "\n  "))
	}
}

// The checker is itself checked: each of these stories breaks one promise, or none.
func TestVerify(t *testing.T) {
	s := func(n int, at float64) line { return line{E: "sent", D: "a", N: n, T: at} }
	k := func(n int, at float64) line { return line{E: "acked", D: "a", N: n, T: at} }
	w := func(n int, at float64) line { return line{E: "wire", D: "a", N: n, T: at} }
	drop := func(at float64) line { return line{E: "drop", D: "a", T: at} }
	ev := func(n int, number int64) event {
		text := strconv.Itoa(n)
		return event{DeviceID: "a", Number: number, Properties: map[string]*string{"n": &text}}
	}
	item := func(n int, number int64) receipt {
		return receipt{ID: "r", State: "complete", list: []receiptItem{{Kind: "telemetry", Device: "a", Number: number, MessageID: "a/" + strconv.Itoa(n)}}}
	}
	two := []line{s(1, 1), w(1, 1), k(1, 2), s(2, 3), w(2, 3), k(2, 4)}
	for _, story := range []struct {
		name     string
		lines    []line
		events   []event
		receipts []receipt
		want     expectation
		problem  string // part of the only one; empty: none
	}{
		{"all is well", two, []event{ev(1, 0), ev(2, 1)}, nil, expectation{true, true}, ""},
		{"one is missing", two, []event{ev(1, 0)}, nil, expectation{true, true}, "a/2 was acknowledged and is missing"},
		{"one is missing and in no receipt", two, []event{ev(1, 0)}, nil, expectation{}, "a/2 was acknowledged, is missing, and is in no receipt"},
		{"one is stranded", two, []event{ev(1, 0)}, []receipt{item(2, 1)}, expectation{}, ""},
		{"one is stranded in sync mode", two, []event{ev(1, 0)}, []receipt{item(2, 1)}, expectation{noMissing: true}, "a/2 was acknowledged and is missing"},
		{"a receipt lists what is in the log", two, []event{ev(1, 0), ev(2, 1)}, []receipt{item(2, 1)}, expectation{}, "is in the log"},
		{"a receipt lists what was sent once and read", two, []event{ev(1, 0), ev(2, 9)}, []receipt{item(2, 1)}, expectation{}, "written 1 times and read 1 times"},
		{"a receipt invents", two, []event{ev(1, 0), ev(2, 1)}, []receipt{item(7, 8)}, expectation{}, "which nobody sent"},
		{"a receipt lists what was sent again", []line{s(1, 1), w(1, 1), drop(2), w(1, 3), k(1, 3)}, []event{ev(1, 9)}, []receipt{item(1, 1)}, expectation{}, ""},
		{"read twice", two, []event{ev(1, 0), ev(2, 1), ev(2, 2)}, nil, expectation{}, "read 2 times, and written 1 times"},
		{"sent twice, read twice", []line{s(1, 1), w(1, 1), drop(2), w(1, 3), k(1, 3)}, []event{ev(1, 0), ev(1, 1)}, nil, expectation{}, ""},
		{"dropped", []line{s(1, 1), w(1, 1), drop(2), w(1, 3), k(1, 3)}, []event{ev(1, 0)}, nil, expectation{noDrops: true}, "1 connections dropped"},
		{"out of order", two, []event{ev(2, 0), ev(1, 1)}, nil, expectation{}, "a/1 stands after a/2"},
		{"numbers go back", two, []event{ev(1, 1), ev(2, 0)}, nil, expectation{}, "event 0 after 1"},
		{"nobody sent it", two, []event{ev(1, 0), ev(2, 1), ev(3, 2)}, nil, expectation{}, "a/3 was read and never sent"},
		{"sent, not answered, not there", []line{s(1, 1), w(1, 1)}, nil, nil, expectation{true, true}, ""},
	} {
		t.Run(story.name, func(t *testing.T) {
			v := verify(story.lines, story.events, story.receipts, story.want)
			switch {
			case story.problem == "" && len(v.problems) > 0:
				t.Errorf("found %q", v.problems)
			case story.problem != "" && (len(v.problems) != 1 || !strings.Contains(v.problems[0], story.problem)):
				t.Errorf("found %q, not %q alone", v.problems, story.problem)
			}
		})
	}
}

func TestLongestGap(t *testing.T) {
	lines := []line{{"sent", "a", 1, 0, ""}, {"acked", "a", 1, 5, ""}, {"sent", "a", 2, 6, ""}, {"acked", "a", 2, 31, ""}}
	gap, wait := longestGap(lines, 2, 100)
	if gap.Milliseconds() != 26 || wait.Milliseconds() != 25 {
		t.Errorf("gap %v, wait %v; want 26 ms and 25 ms", gap, wait)
	}
}
