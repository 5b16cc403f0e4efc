package hub

import (
	"context"
	"errors"
	"sync"
	"time"

	"tandem"
	"tandem/pairlog"
)

// The times of a holder's own entries.
const (
	heartbeatEvery = time.Second
	rootEvery      = 10 * time.Second
	ackEvery       = 100 * time.Millisecond // how often doors elsewhere learn what this region's peer has
)

// reservedEntries are kept free in a record for the entries the writer adds: door numbers and the state root.
const reservedEntries = 34

// A source is where commands come from: this node's door, or a door in another region.
type source interface {
	door() DoorID
	// take appends commands that room admits, consecutive numbers.
	take(works []work, r *room) []work
	// giveBack returns the last works taken: nothing became of them, and they come again.
	giveBack(works []work)
	// decided tells their outcomes, which are durable in the record.
	decided(works []work, record uint64)
	// resolvedMark is the number up to which the door needs no outcome again.
	resolvedMark() uint64
}

// work is one command on its way through the writer.
type work struct {
	number  uint64
	command Command
	outcome Outcome
}

// room is what is left of a record.
type room struct {
	entries, bytes int
	taken          bool
}

// admit counts a command in if it fits; the first always does.
func (r *room) admit(c *Command) bool {
	entries, bytes := 1, len(c.Body)+len(c.Device)+128
	if c.Op == OpBulk {
		entries, bytes = 100, bytes+100*128
	}
	if r.taken && (entries > r.entries || bytes > r.bytes) {
		return false
	}
	r.entries, r.bytes, r.taken = r.entries-entries, r.bytes-bytes, true
	return true
}

// group is the part of a record that came from one source.
type group struct {
	source   source
	from, to int // in works
}

// A writer is the one goroutine that decides and appends while this region has the pen.
type writer struct {
	r       *Replica
	pen     pairlog.Pen
	log     *pairlog.Writer
	wake    chan struct{}
	closing chan closeRequest
	trims   chan pairlog.Trim // what may go, from maintain
	acked   broadcast         // the peer's copy has more

	mu      sync.Mutex
	remotes map[DoorID]*remoteDoor
	order   []source // this node's door first

	batch   pairlog.Batch
	works   []work
	groups  []group
	turn    int
	scratch []byte
	refused []Refusal
	last    time.Time // of the last append
	rooted  time.Time
	next    uint64 // the number of the next record
}

type closeRequest struct {
	successor tandem.RegionName
	answer    chan<- closeAnswer
}

type closeAnswer struct {
	at  ClosedAt
	err error
}

func newWriter(r *Replica, log *pairlog.Writer, next uint64) *writer {
	w := &writer{
		r: r, pen: log.Pen(), log: log, next: next, wake: make(chan struct{}, 1), closing: make(chan closeRequest),
		trims: make(chan pairlog.Trim, 1), acked: newBroadcast(), remotes: make(map[DoorID]*remoteDoor), rooted: time.Now(), last: time.Now(),
	}
	w.order = []source{r.door}
	log.OnPeerAck(func(uint64) { w.acked.notify() })
	return w
}

func (w *writer) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// run writes until ctx ends, the pen is lost or the hub was closed; nil after CLOSE.
func (w *writer) run(ctx context.Context) error {
	tick := time.NewTicker(ackEvery)
	defer tick.Stop()
	for {
		full, err := w.commit(ctx)
		if err != nil {
			return err
		}
		if len(w.works) > 0 && !full {
			select { // a close request goes before further work
			case c := <-w.closing:
				return w.close(ctx, c)
			case t := <-w.trims:
				if err := w.trim(ctx, t); err != nil {
					return err
				}
				continue
			default:
				continue
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case c := <-w.closing:
			return w.close(ctx, c)
		case t := <-w.trims:
			if err := w.trim(ctx, t); err != nil {
				return err
			}
		case <-w.wakeUnless(full):
		case <-tick.C:
			w.setFull(w.log.Full())
			w.tellAcked()
			if err := w.beat(ctx); err != nil {
				return err
			}
		}
	}
}

// wakeUnless keeps a full hub from spinning: it tries again with the tick.
func (w *writer) wakeUnless(full bool) <-chan struct{} {
	if full {
		return nil
	}
	return w.wake
}

// commit makes one record of what waits, if anything does, and tells the outcomes.
func (w *writer) commit(ctx context.Context) (full bool, err error) {
	w.gather()
	if len(w.works) == 0 {
		return false, nil
	}
	w.setFull(w.log.Full())
	w.decide()
	rec, err := w.log.Append(ctx, &w.batch)
	if errors.Is(err, pairlog.ErrFull) && !w.batch.Urgent { // it has just become full
		w.setFull(true)
		w.r.view.DropOverlay()
		w.decide()
		rec, err = w.log.Append(ctx, &w.batch)
	}
	switch {
	case err == nil:
	case errors.Is(err, pairlog.ErrFull):
		w.r.view.DropOverlay()
		for _, g := range w.groups {
			g.source.giveBack(w.works[g.from:g.to])
		}
		return true, nil
	case errors.Is(err, pairlog.ErrPeerBehind):
		for i := range w.works {
			w.works[i].outcome = Outcome{Err: err}
		}
	default:
		w.r.view.DropOverlay()
		return false, err
	}
	if err := w.apply(&rec); err != nil {
		return false, err
	}
	w.findRevoked(&rec)
	for i := range w.works {
		if k := &w.works[i]; k.outcome.Err == nil {
			w.r.view.Answer(&k.command, &k.outcome)
		}
	}
	for _, g := range w.groups {
		g.source.decided(w.works[g.from:g.to], rec.Header.Number)
	}
	return false, nil
}

// decide makes a record of the works, in order. Those for which it has no room go back to their sources. On a full disk
// it refuses what may wait: the last room is for what takes rights away.
func (w *writer) decide() {
	full := w.r.door.full.Load()
	w.batch.Reset()
	w.batch.Urgent = full
	at := Stamp{Epoch: w.pen.Epoch, Number: w.next}
	for i := range w.works {
		k := &w.works[i]
		k.outcome = Outcome{}
		switch {
		case !w.r.registry.allows(k.command.Device, k.command.Session):
			k.outcome.Err = ErrSessionTaken
		case full && !k.command.urgent():
			k.outcome.Err = pairlog.ErrFull
		default:
			k.outcome.Position = pairlog.Position{Epoch: at.Epoch, Number: at.Number, Index: uint32(w.batch.Len())}
			k.outcome.Err = w.r.view.Decide(&k.command, at, &w.batch)
		}
		if !errors.Is(k.outcome.Err, ErrRecordFull) {
			continue
		}
		if w.batch.Len() > 0 {
			w.keepFirst(i)
			break
		}
		k.outcome.Err = &tandem.Error{Op: ErrRecordFull.Op, Kind: tandem.TooLarge, On: string(k.command.Device)}
	}
	w.doorEntries()
	if !full {
		w.rootEntry()
	}
}

// keepFirst gives all works but the first n back.
func (w *writer) keepFirst(n int) {
	groups := w.groups[:0]
	for _, g := range w.groups {
		keep := min(max(n, g.from), g.to)
		if keep < g.to {
			back := w.works[keep:g.to]
			for i := range back {
				back[i].outcome = Outcome{}
			}
			g.source.giveBack(back)
		}
		if g.to = keep; g.to > g.from {
			groups = append(groups, g)
		}
	}
	w.works, w.groups = w.works[:n], groups
}

// findRevoked notes for each command which devices lost a right by it.
func (w *writer) findRevoked(rec *pairlog.Record) {
	if rec.Header.StateCount <= uint32(len(w.groups)) { // nothing but door entries
		return
	}
	at := -1
	for index, e := range rec.Entries() {
		if e.Kind != KindDevicePut && e.Kind != KindDeviceDelete {
			continue
		}
		for next := at + 1; next < len(w.works) && (w.works[next].outcome.Err != nil || w.works[next].outcome.Position.Index <= index); next++ {
			if w.works[next].outcome.Err == nil {
				at = next
			}
		}
		if entry, err := DecodeDeviceEntry(e.Kind, e.Data); err == nil && entry.Revokes && at >= 0 {
			w.works[at].outcome.revokes = append(w.works[at].outcome.revokes, entry.Device)
		}
	}
}

// gather takes from the sources in turn, so that none starves.
func (w *writer) gather() {
	w.works, w.groups = w.works[:0], w.groups[:0]
	r := room{entries: pairlog.MaxRecordEntries - reservedEntries, bytes: pairlog.MaxRecordBytes - 16<<10}
	w.mu.Lock()
	order := w.order
	w.mu.Unlock()
	if w.r.door.owes() { // before anything newer from elsewhere
		order = order[:1]
	}
	w.turn++
	for i := range order {
		if len(w.groups) == reservedEntries-2 {
			break
		}
		s := order[(w.turn+i)%len(order)]
		from := len(w.works)
		w.works = s.take(w.works, &r)
		if len(w.works) > from {
			w.groups = append(w.groups, group{s, from, len(w.works)})
		}
	}
}

// doorEntries writes down which numbers of each door this record decides.
func (w *writer) doorEntries() {
	for _, g := range w.groups {
		works := w.works[g.from:g.to]
		w.refused = w.refused[:0]
		for i := range works {
			if err := works[i].outcome.Err; err != nil {
				w.refused = append(w.refused, Refusal{Number: works[i].number, Kind: tandem.KindOf(err)})
			}
		}
		w.scratch = AppendDoorEntry(w.scratch[:0], g.source.door(), works[0].number, uint32(len(works)), g.source.resolvedMark(), w.refused)
		w.batch.Add(KindDoor, w.scratch)
	}
}

// rootEntry logs the state root now and then, so that the other region compares.
func (w *writer) rootEntry() {
	if time.Since(w.rooted) < rootEvery {
		return
	}
	root := w.r.view.Root()
	if w.batch.Fits(len(root)) {
		w.rooted = time.Now()
		w.batch.Add(KindRoot, root[:])
	}
}

// beat shows the other region that silence is not death.
func (w *writer) beat(ctx context.Context) error {
	if time.Since(w.last) < heartbeatEvery {
		return nil
	}
	w.batch.Reset()
	if !w.r.door.full.Load() { // then it is a heartbeat, which may use the last room
		w.rootEntry()
	}
	rec, err := w.log.Append(ctx, &w.batch)
	switch {
	case err == nil, errors.Is(err, pairlog.ErrPeerBehind):
		return w.apply(&rec)
	case errors.Is(err, pairlog.ErrFull):
		return nil
	}
	return err
}

func (w *writer) apply(rec *pairlog.Record) error {
	w.last, w.next = time.Now(), rec.Header.Number+1
	w.r.viewMu.Lock()
	err := w.r.apply(rec)
	w.r.viewMu.Unlock()
	if err != nil {
		return w.r.foldFailed(err)
	}
	w.r.folded.notify()
	return nil
}

// close writes CLOSE: final for this epoch.
func (w *writer) close(ctx context.Context, c closeRequest) error {
	root := w.r.view.Root()
	rec, err := w.log.Close(ctx, pairlog.Close{Root: root, Successor: c.successor})
	if err == nil {
		err = w.apply(&rec)
	}
	at := ClosedAt{Fork: pairlog.Fork{Epoch: rec.Header.Epoch, Number: rec.Header.Number, Hash: rec.Header.Hash}, Root: root}
	c.answer <- closeAnswer{at, err}
	return err
}

func (w *writer) setFull(full bool) {
	switch {
	case w.r.door.full.Swap(full) == full:
	case full:
		w.r.o.Logger.Warn("disk full, writes refused", "hub", w.r.o.Info.Name)
	default:
		w.r.o.Logger.Info("room on the disk, writes go on", "hub", w.r.o.Info.Name)
	}
}

// remote returns the source for a door elsewhere; it makes one at the first frame.
func (w *writer) remote(id DoorID, region tandem.RegionName) *remoteDoor {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := w.remotes[id]
	if d == nil {
		d = &remoteDoor{id: id, region: region, w: w}
		w.remotes[id] = d
		w.order = append(w.order[:len(w.order):len(w.order)], d)
	}
	return d
}

// tellAcked lets doors elsewhere forget what their region's copy has by now.
func (w *writer) tellAcked() {
	w.mu.Lock()
	remotes := make([]*remoteDoor, 0, len(w.remotes))
	for _, d := range w.remotes {
		remotes = append(remotes, d)
	}
	w.mu.Unlock()
	for _, d := range remotes {
		d.tellAcked()
	}
}

func (d *Door) door() DoorID { return d.id }

func (d *Door) giveBack(works []work) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ring.restart(works[0].number)
}
