package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"tandem"
	"tandem/pairlog"
)

// patience is how long a caller without a deadline waits for a hub that is moving.
const patience = 30 * time.Second

// A Door is this node's way into a hub. It numbers every command and keeps it until its outcome is known; when the pen
// moves, it sends what is undecided to the new holder, in order, under the same numbers. Commands that another region
// answered are kept until this region's copy of the log has them, so that a forced failover to here loses none of them.
//
// Door implements Handle. Its Replica tells it where the pen is.
type Door struct {
	id      DoorID
	replica *Replica
	link    pairlog.Link
	logger  *slog.Logger
	full    atomic.Bool // the holder has no room
	wake    chan struct{}
	resolve sync.Mutex // one group of outcomes is told at a time

	sessions sessions

	mu      sync.Mutex
	ring    ring
	to      route
	freed   chan struct{} // closed when the ring may have room again
	blocked int           // how many wait for that, at most
	slab    []byte        // commands' bytes are copied here
	closed  bool          // nobody is answered any more

	told    []told // scratch of the goroutine that has resolve
	flushed map[Waiter]struct{}
}

// route says where commands go at the moment.
type route struct {
	region tandem.RegionName // empty: nowhere yet
	epoch  tandem.Epoch
	local  func() // wakes the writer here; nil when the holder is elsewhere

	// Of a holder elsewhere, which may lose what is sent to it or answers.
	progress time.Time     // when something was decided last, or asked for
	patience time.Duration // without progress before it is asked
	probes   []uint64      // empty frames to send, beginning at these numbers
	back     uint64        // the last number it went back to after a gap
}

// How long nothing is decided before the holder is asked what became of it: short at first, since a new holder may have
// opened after the first frame came to it.
const (
	firstPatience = 10 * time.Millisecond
	lastPatience  = 250 * time.Millisecond
)

type told struct {
	waiter  Waiter
	tag     uint64
	outcome Outcome
}

// doorsMade makes the names of doors differ that this process opens one after another: their numbers begin anew.
var doorsMade atomic.Uint64

func newDoorID(incarnation tandem.Incarnation) DoorID {
	return DoorID(fmt.Sprintf("%s-%d", incarnation, doorsMade.Add(1)))
}

func newDoor(id DoorID, r *Replica) *Door {
	return &Door{
		id: id, replica: r, link: r.o.Link, logger: r.o.Logger,
		wake: make(chan struct{}, 1), freed: make(chan struct{}), ring: newRing(), flushed: make(map[Waiter]struct{}),
	}
}

// Info implements Handle.
func (d *Door) Info() Info { return d.replica.o.Info }

// Submit implements Handle.
func (d *Door) Submit(ctx context.Context, c *Command, w Waiter, tag uint64) error {
	if d.full.Load() && !c.urgent() {
		return pairlog.ErrFull
	}
	d.mu.Lock()
	for !d.closed && !d.ring.makeRoom(len(c.Body)) {
		freed := d.freed
		d.blocked++
		d.mu.Unlock()
		if err := d.waitRoom(ctx, freed); err != nil {
			return err
		}
		d.mu.Lock()
	}
	if d.closed {
		d.mu.Unlock()
		return ErrMoving
	}
	kept := *c
	kept.Body = d.copyBody(c.Body)
	d.ring.push(slot{command: kept, waiter: w, tag: tag})
	local := d.to.local
	d.mu.Unlock()
	if local != nil {
		local()
	} else {
		d.poke()
	}
	return nil
}

func (d *Door) waitRoom(ctx context.Context, freed <-chan struct{}) error {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-freed:
		return nil
	case <-ctx.Done():
		return &tandem.Error{Op: "queue a command", Kind: tandem.Unavailable, Err: ctx.Err(), Hint: ErrMoving.Hint}
	case <-timer.C:
		return ErrMoving
	case <-d.replica.closing:
		return ErrMoving
	}
}

// copyBody keeps bodies in slabs: one allocation for many commands, freed together.
func (d *Door) copyBody(b []byte) []byte {
	const slabSize = 64 << 10
	if len(b) > slabSize/4 {
		return append([]byte(nil), b...)
	}
	if len(d.slab)+len(b) > cap(d.slab) {
		d.slab = make([]byte, 0, slabSize)
	}
	start := len(d.slab)
	d.slab = append(d.slab, b...)
	return d.slab[start:len(d.slab):len(d.slab)]
}

func (d *Door) poke() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// Do implements Handle.
func (d *Door) Do(ctx context.Context, c *Command) (Outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	w := make(doWaiter, 1)
	if err := d.Submit(ctx, c, w, 0); err != nil {
		return Outcome{}, err
	}
	select {
	case o := <-w:
		if o.Err == nil {
			o.Err = d.confirm(ctx, c, &o)
		}
		if o.Err == nil && o.again {
			o.Err = d.complete(ctx, c, &o)
		}
		return o, o.Err
	case <-ctx.Done():
		return Outcome{}, unknownOutcome(c, ctx.Err())
	}
}

func unknownOutcome(c *Command, err error) error {
	return &tandem.Error{Op: "wait for the outcome", Kind: tandem.Timeout, On: string(c.Device), Err: err,
		Hint: "whether it happened is unknown; read it back, or try again"}
}

// complete adds to an outcome of which the log only remembers that the command was carried out.
func (d *Door) complete(ctx context.Context, c *Command, o *Outcome) error {
	switch c.Op {
	case OpBulk:
		return unknownOutcome(c, errors.New("the hub moved, and with it went what became of each change"))
	case OpDeviceCreate, OpDeviceUpdate, OpDevicePut:
		device, err := d.Device(ctx, c.Device)
		if err != nil && !errors.Is(err, ErrDeviceNotFound) { // it may have been deleted since
			return unknownOutcome(c, err)
		}
		if err == nil {
			o.Device = &device
		}
	}
	return nil
}

type doWaiter chan Outcome

func (w doWaiter) Resolved(_ uint64, o *Outcome) { w <- *o }
func (w doWaiter) Flush()                        {}

// routeTo sends commands to the holder in another region from now on.
func (d *Door) routeTo(region tandem.RegionName, epoch tandem.Epoch) {
	d.mu.Lock()
	d.to = route{region: region, epoch: epoch, progress: time.Now(), patience: firstPatience}
	d.ring.rewind(false)
	d.full.Store(false) // until the new holder says so
	d.mu.Unlock()
	d.poke()
	d.announceSessions()
}

// routeNowhere keeps commands until a holder is known.
func (d *Door) routeNowhere() {
	d.mu.Lock()
	d.to = route{}
	d.mu.Unlock()
}

// routeHere gives commands to this node's writer from now on. What mark, of the log up to at, says was decided is
// resolved at once.
func (d *Door) routeHere(epoch tandem.Epoch, mark DoorMark, at uint64, wake func()) {
	d.resolve.Lock()
	d.mu.Lock()
	d.to = route{region: d.replica.o.Region, epoch: epoch, local: wake}
	if lost := d.replica.lost.Load(); lost != nil {
		d.ring.yieldTo(*lost)
	}
	d.ring.rewind(true)
	d.full.Store(false)
	d.told = d.told[:0]
	for d.ring.decided <= mark.Applied && d.ring.decided < d.ring.next {
		outcome := markOutcome(mark, d.ring.decided)
		outcome.Position = pairlog.Position{Epoch: epoch, Number: at}
		d.note(d.ring.decide(0), outcome)
	}
	d.release(^uint64(0))
	d.mu.Unlock()
	d.tell()
	d.resolve.Unlock()
	wake()
	d.announceSessions()
}

// markOutcome is what a door mark remembers of an old number.
func markOutcome(mark DoorMark, number uint64) Outcome {
	if kind, ok := mark.Refused[number]; ok {
		return Outcome{Err: &tandem.Error{Op: "apply", Kind: kind}}
	}
	return Outcome{again: true}
}

// take implements source for the writer on this node.
func (d *Door) take(works []work, room *room) []work {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.to.local == nil {
		return works
	}
	for d.ring.sent < d.ring.next {
		s := d.ring.at(d.ring.sent)
		if !room.admit(&s.command) {
			break
		}
		works = append(works, work{number: d.ring.sent, command: s.command})
		d.ring.sent++
	}
	return works
}

// decided implements source: outcomes of consecutive numbers, from this node's own writer.
func (d *Door) decided(works []work, _ uint64) {
	d.resolve.Lock()
	defer d.resolve.Unlock()
	d.mu.Lock()
	d.told = d.told[:0]
	for i := range works {
		if works[i].number == d.ring.decided {
			d.note(d.ring.decide(0), works[i].outcome)
		}
	}
	d.release(^uint64(0))
	d.mu.Unlock()
	d.tell()
}

func (d *Door) resolvedMark() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ring.base - 1
}

// answers takes a frame from the holder in another region.
func (d *Door) answers(from tandem.RegionName, data []byte) {
	f, err := decodeAnswerFrame(data)
	if err != nil {
		d.logger.Error("answer frame refused", "hub", d.Info().Name, "from", from, "error", err)
		return
	}
	d.resolve.Lock()
	defer d.resolve.Unlock()
	d.mu.Lock()
	if d.to.local != nil || d.to.region != from || d.to.epoch != f.Epoch {
		d.mu.Unlock()
		return // of a holder that no longer is
	}
	d.full.Store(f.Full)
	d.told = d.told[:0]
	switch {
	case f.Upto < f.First: // it is about no number
	case f.First > d.ring.decided: // the answer before it was lost
		d.to.patience = firstPatience
	default:
		d.takeAnswers(&f)
	}
	if f.Gap && f.Next < d.ring.sent && f.Next != d.to.back {
		d.to.back = f.Next
		d.ring.restart(f.Next)
	}
	d.release(f.Acked)
	d.mu.Unlock()
	d.tell()
	d.poke()
}

// takeAnswers resolves the numbers of a frame that are not decided yet. Called with mu held.
func (d *Door) takeAnswers(f *answerFrame) {
	details := f.Details
	for d.ring.decided <= f.Upto && d.ring.decided < d.ring.next {
		number := d.ring.decided
		for len(details) > 0 && details[0].Number < number {
			details = details[1:]
		}
		outcome := Outcome{again: f.Again}
		if len(details) > 0 && details[0].Number == number {
			outcome = details[0].outcome()
			outcome.again = f.Again
		}
		if outcome.Position.Number == 0 {
			outcome.Position = pairlog.Position{Epoch: f.Epoch, Number: f.Record}
		}
		d.note(d.ring.decide(f.Record), outcome)
		d.to.progress, d.to.patience, d.to.back = time.Now(), lastPatience, 0
	}
}

// note remembers whom to tell about an outcome; nobody when it was told before.
func (d *Door) note(s *slot, o Outcome) {
	if s.waiter != nil {
		d.told = append(d.told, told{s.waiter, s.tag, o})
		s.waiter, s.refused = nil, o.definite()
	}
}

// tell tells waiters their outcomes, and lets each flush once.
func (d *Door) tell() {
	for i := range d.told {
		d.told[i].waiter.Resolved(d.told[i].tag, &d.told[i].outcome)
	}
	if len(d.told) == 0 {
		return
	}
	for i := range d.told {
		w := d.told[i].waiter
		if _, done := d.flushed[w]; !done {
			d.flushed[w] = struct{}{}
			w.Flush()
		}
		d.told[i] = told{}
	}
	clear(d.flushed)
}

// release drops what is decided and durable in this region's copy, and lets waiting callers look for room: what is only
// decided goes when it is needed. Called with mu held.
func (d *Door) release(acked uint64) {
	d.ring.release(acked)
	if d.blocked > 0 && (d.ring.base < d.ring.decided || d.ring.room(0)) {
		d.unblock()
	}
}

// unblock wakes those who wait for room. Called with mu held.
func (d *Door) unblock() {
	close(d.freed)
	d.freed, d.blocked = make(chan struct{}), 0
}

// listen lets the holder in the other region answer this door, until the stops are called.
func (d *Door) listen() (stops []func(), err error) {
	for verb, receive := range map[string]func(tandem.RegionName, []byte){"answers": d.answers, "drop": d.dropped} {
		stop, err := d.link.Receive(doorSubject(d.Info().ID, d.id, verb), receive)
		if err != nil {
			return stops, err
		}
		stops = append(stops, stop)
	}
	return stops, nil
}

// announceEvery is how often sessions are announced again: a message that told a door to drop one may have been lost.
const announceEvery = time.Minute

// run sends commands to a holder in another region until ctx ends.
func (d *Door) run(ctx context.Context) error {
	announce := time.NewTicker(announceEvery)
	defer announce.Stop()
	timer := time.NewTimer(announceEvery)
	defer timer.Stop()
	var buf []byte
	for {
		timer.Reset(d.untilProbe())
		select {
		case <-ctx.Done():
			return nil
		case <-d.wake:
		case <-timer.C:
			d.probeWhenStuck()
		case <-announce.C:
			d.announceSessions()
		}
		for {
			region, frame := d.nextFrame()
			if frame == nil {
				break
			}
			buf = appendCommandFrame(buf[:0], frame)
			if err := d.link.Send(region, hubSubject(d.Info().ID, "commands"), buf); err != nil {
				if !errors.Is(err, context.Canceled) {
					d.logger.Debug("commands not sent", "hub", d.Info().Name, "to", region, "error", err)
				}
				break // a probe finds out
			}
		}
	}
}

// nextFrame takes commands that were not sent yet, or a probe; nil when there are none or the holder is here.
func (d *Door) nextFrame() (tandem.RegionName, *commandFrame) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.to.local != nil || d.to.region == "" {
		return "", nil
	}
	f := &commandFrame{Door: d.id, Epoch: d.to.epoch, Base: d.ring.base}
	if len(d.to.probes) > 0 {
		f.First, d.to.probes = max(d.to.probes[0], d.ring.base), d.to.probes[1:]
		return d.to.region, f
	}
	if d.ring.sent >= d.ring.next {
		return "", nil
	}
	if d.ring.sent == d.ring.decided { // nothing was waited for until now
		d.to.progress = time.Now()
	}
	f.First = d.ring.sent
	for bytes := 0; d.ring.sent < d.ring.next && len(f.Commands) < frameCommands; d.ring.sent++ {
		c := &d.ring.at(d.ring.sent).command
		if bytes += len(c.Body) + 64; bytes > frameBytes && len(f.Commands) > 0 {
			break
		}
		f.Commands = append(f.Commands, *c)
	}
	return d.to.region, f
}

// probe asks the holder what it has decided beyond what is known here, and whether it has all that was sent: frames may
// have been lost in either direction. Called with mu held.
func (d *Door) probe() {
	d.to.probes = append(d.to.probes[:0:0], d.ring.decided, d.ring.sent)
	d.to.progress, d.to.back = time.Now(), 0
}

// probeWhenStuck probes when nothing was decided for a while, each time with more patience.
func (d *Door) probeWhenStuck() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.waiting() && time.Since(d.to.progress) >= d.to.patience {
		d.probe()
		d.to.patience = min(2*d.to.patience, lastPatience)
	}
}

// waiting reports whether a holder in another region has yet to decide something. Called with mu held.
func (d *Door) waiting() bool {
	return d.to.local == nil && d.to.region != "" && d.ring.decided < d.ring.sent
}

// untilProbe is how long to wait for the holder in peace.
func (d *Door) untilProbe() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.waiting() {
		return announceEvery
	}
	return max(d.to.patience-time.Since(d.to.progress), time.Millisecond)
}

// close tells everybody who waits that the outcome is not known, ends the sessions, and takes nothing any more. Nothing
// may decide commands any more when it is called.
func (d *Door) close() {
	d.resolve.Lock()
	defer d.resolve.Unlock()
	d.mu.Lock()
	d.closed, d.to, d.told = true, route{}, d.told[:0]
	for n := d.ring.base; n < d.ring.next; n++ {
		d.note(d.ring.at(n), Outcome{Err: ErrMoving})
	}
	d.ring = newRing()
	d.unblock()
	d.mu.Unlock()
	d.tell()
	d.sessions.endAll(ErrMoving)
}

func hubSubject(hub tandem.HubID, verb string) string { return "hub." + string(hub) + "." + verb }

func doorSubject(hub tandem.HubID, door DoorID, verb string) string {
	return "door." + string(hub) + "." + string(door) + "." + verb
}

// owes reports whether commands that were told by an earlier holder still have to be decided by the one here.
func (d *Door) owes() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.to.local != nil && d.ring.sent < d.ring.next && d.ring.at(d.ring.sent).waiter == nil
}
