package hub

import (
	"slices"
	"sort"
	"sync"

	"tandem"
)

// Bounds of what a holder keeps and sends for a door in another region.
const (
	keptOutcomes = 8 << 20   // bytes of outcomes that are more than "applied", until the door has them
	answerBytes  = 256 << 10 // of one answer frame, about
)

// A remoteDoor is a door in another region, as the holder sees it. Frames come in on the link's goroutine; all else
// happens on the writer's.
type remoteDoor struct {
	id     DoorID
	region tandem.RegionName
	w      *writer

	mu     sync.Mutex
	frames []commandFrame
	bytes  int

	known    bool   // next is set
	next     uint64 // the number to take next
	resolved uint64
	queue    []work
	told     answerFrame // the last one sent

	// Outcomes of numbers above since, for a door that did not get them; those not here were applied. Below it only the
	// log's door mark tells.
	since     uint64
	kept      []answerDetail // ascending
	keptBytes int
}

// frame takes a frame from the link; one that does not fit is dropped and will come again.
func (d *remoteDoor) frame(f commandFrame, size int) {
	d.mu.Lock()
	if d.bytes+size <= windowBytes {
		d.frames = append(d.frames, f)
		d.bytes += size
	}
	d.mu.Unlock()
	d.w.poke()
}

func (d *remoteDoor) door() DoorID         { return d.id }
func (d *remoteDoor) resolvedMark() uint64 { return d.resolved }

func (d *remoteDoor) take(works []work, r *room) []work {
	d.accept()
	n := 0
	for n < len(d.queue) && r.admit(&d.queue[n].command) {
		works = append(works, d.queue[n])
		n++
	}
	d.queue = d.queue[n:]
	return works
}

// accept queues the commands of new frames that are next in line.
func (d *remoteDoor) accept() {
	d.mu.Lock()
	frames := d.frames
	d.frames, d.bytes = nil, 0
	d.mu.Unlock()
	for i := range frames {
		f := &frames[i]
		if !d.known {
			d.since = d.w.r.view.Door(d.id).Applied
			d.next, d.known = d.since+1, true
		}
		d.resolve(f.Base - 1)
		if f.First > d.next {
			d.send(answerFrame{Gap: true})
			continue
		}
		if f.First < d.next {
			d.repeat(f.First)
		}
		for j := range f.Commands {
			if f.First+uint64(j) == d.next {
				d.queue = append(d.queue, work{number: d.next, command: f.Commands[j]})
				d.next++
			}
		}
	}
}

// resolve notes that the door needs nothing of the numbers up to n any more.
func (d *remoteDoor) resolve(n uint64) {
	d.resolved, d.next = max(d.resolved, n), max(d.next, n+1)
	done := 0
	for done < len(d.kept) && d.kept[done].Number <= d.resolved {
		d.keptBytes -= len(d.kept[done].Body)
		done++
	}
	d.kept = d.kept[done:]
}

// repeat answers again what was decided from a number on: the answer was lost, or an earlier holder gave it.
func (d *remoteDoor) repeat(first uint64) {
	mark := d.w.r.view.Door(d.id)
	record := d.w.next - 1
	if first <= d.since {
		f := answerFrame{First: first, Upto: min(d.since, mark.Applied), Record: record, Again: true}
		var details []answerDetail
		for number := range mark.Refused {
			if number >= f.First && number <= f.Upto {
				o := markOutcome(mark, number)
				details = append(details, newDetail(number, &o))
			}
		}
		slices.SortFunc(details, func(a, b answerDetail) int { return int(int64(a.Number - b.Number)) })
		d.sendAnswers(f, details)
		first = f.Upto + 1
	}
	d.sendAnswers(answerFrame{First: first, Upto: mark.Applied, Record: record}, d.keptFrom(first))
}

// keptFrom are the kept outcomes from a number on.
func (d *remoteDoor) keptFrom(first uint64) []answerDetail {
	return d.kept[sort.Search(len(d.kept), func(i int) bool { return d.kept[i].Number >= first }):]
}

func (d *remoteDoor) giveBack(works []work) {
	d.queue = append(append([]work(nil), works...), d.queue...)
}

func (d *remoteDoor) decided(works []work, record uint64) {
	first := works[0].number
	for i := range works {
		if o := &works[i].outcome; !o.plain() {
			d.keep(newDetail(works[i].number, o))
		}
	}
	d.sendAnswers(answerFrame{First: first, Upto: works[len(works)-1].number, Record: record}, d.keptFrom(first))
	for d.keptBytes > keptOutcomes {
		d.since = d.kept[0].Number
		d.keptBytes -= len(d.kept[0].Body)
		d.kept = d.kept[1:]
	}
}

func (d *remoteDoor) keep(detail answerDetail) {
	d.kept = append(d.kept, detail)
	d.keptBytes += len(detail.Body)
}

func (d *remoteDoor) tellAcked() {
	acked, _, known := d.w.log.PeerAcked()
	full := d.w.r.door.full.Load()
	if d.known && (known && acked > d.told.Acked && d.told.Acked < d.told.Record || full != d.told.Full) {
		d.send(answerFrame{})
	}
}

// sendAnswers sends the frame, in parts when the details are too many for one.
func (d *remoteDoor) sendAnswers(f answerFrame, details []answerDetail) {
	for upto := f.Upto; f.First <= upto; f.First = f.Upto + 1 {
		n, bytes := 0, 0
		for n < len(details) && details[n].Number <= upto && (n == 0 || bytes+len(details[n].Body) <= answerBytes) {
			bytes += len(details[n].Body)
			n++
		}
		f.Details, f.Upto = details[:n], upto
		if n < len(details) && details[n].Number <= upto {
			f.Upto = details[n].Number - 1
		}
		details = details[n:]
		d.send(f)
	}
}

// send completes and sends an answer; one that gets lost is asked for again.
func (d *remoteDoor) send(f answerFrame) {
	acked, _, _ := d.w.log.PeerAcked()
	f.Epoch, f.Acked, f.Next, f.Full = d.w.pen.Epoch, acked, d.next, d.w.r.door.full.Load()
	data := appendAnswerFrame(nil, &f)
	if err := d.w.r.o.Link.Send(d.region, doorSubject(d.w.r.o.Info.ID, d.id, "answers"), data); err != nil {
		d.w.r.o.Logger.Debug("answers not sent", "hub", d.w.r.o.Info.Name, "to", d.region, "error", err)
	}
	f.Details, f.Record = nil, max(f.Record, d.told.Record)
	d.told = f
}
