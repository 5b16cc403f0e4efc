package sim

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"tandem"
	"tandem/hub"
)

// A fate is what a client knows of one of its commands.
type fate uint8

const (
	open    fate = iota // no outcome yet
	acked               // it was answered: applied
	refused             // it was answered: definitely not applied
	unknown             // it was answered otherwise, or its connection is gone
)

// A sent is one message of a device.
type sent struct {
	id     string
	device tandem.DeviceID
	life   tandem.Incarnation // whose door it went through
	order  int                // among those of its device
	fate   fate
	err    error
	at     time.Duration // when the outcome came
}

// A place names an event.
type place struct {
	partition int
	number    int64
}

// The journal is what clients saw, and what was wrong with it on the spot.
type journal struct {
	w *World

	mu       sync.Mutex
	sent     map[string]*sent
	order    []*sent
	places   map[place]string                      // which message an event was
	seen     map[tandem.RegionName]map[string]bool // by the readers of a region
	newest   tandem.Epoch                          // of which an answer was given
	registry map[tandem.DeviceID][]*change
	moves    map[string]bool // operations that were started: with a loss accepted?
	failures []error
}

func newJournal(w *World) *journal {
	return &journal{
		w: w, sent: map[string]*sent{}, places: map[place]string{}, registry: map[tandem.DeviceID][]*change{},
		seen: map[tandem.RegionName]map[string]bool{west: {}, east: {}}, moves: map[string]bool{},
	}
}

func (j *journal) violation(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	j.w.logger.Error("violation", "what", err, "at", time.Since(j.w.began))
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.failures) < 20 {
		j.failures = append(j.failures, err)
	}
}

func (j *journal) broken() []error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.failures
}

func (j *journal) verdict() error { return errors.Join(j.broken()...) }

func (j *journal) send(s *sent) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.sent[s.id] = s
	j.order = append(j.order, s)
}

// outcome notes what a command's answer says. Kinds that may be tried again say nothing certain.
func (j *journal) outcome(s *sent, o *hub.Outcome) {
	j.mu.Lock()
	defer j.mu.Unlock()
	s.err, s.at = o.Err, time.Since(j.w.began)
	switch {
	case o.Err == nil:
		s.fate = acked
	case tandem.KindOf(o.Err).Retriable(), tandem.KindOf(o.Err) == tandem.Internal:
		s.fate = unknown
	default:
		s.fate = refused
	}
}

// answered checks promise 5 on an answer of a holder to a door on its own node: an answer of an older epoch never comes
// after one of a newer.
func (j *journal) answered(l *life, epoch tandem.Epoch) {
	if epoch == 0 || l.replica.Load().Role() != hub.RoleHolder { // else another region's answer, which takes its time
		return
	}
	j.mu.Lock()
	newest := j.newest
	j.newest = max(j.newest, epoch)
	j.mu.Unlock()
	if o := j.w.regions[other(l.r.name)].current(); o != nil && o.answers() {
		j.violation("%s answers in epoch %d while %s may", l.incarnation, epoch, o.incarnation)
	}
	if epoch < newest {
		j.violation("%s answers in epoch %d after epoch %d has answered", l.incarnation, epoch, newest)
	}
}

// event notes what a reader saw. It reports a number that named another message before.
func (j *journal) event(region tandem.RegionName, at place, id string) {
	j.mu.Lock()
	was, known := j.places[at]
	j.places[at] = id
	if seen := j.seen[region]; seen != nil {
		seen[id] = true
	}
	_, ours := j.sent[id]
	j.mu.Unlock()
	if known && was != id {
		j.violation("event %d of partition %d was %s and is %s", at.number, at.partition, was, id)
	}
	if !ours {
		j.violation("event %d of partition %d is %q, which nobody sent", at.number, at.partition, id)
	}
}
