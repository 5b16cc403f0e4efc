package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"tandem"
	"tandem/hub"
)

// The load: two devices that send at each region's door, two devices that are changed, a reader of every partition in
// each region.
const (
	perDoor  = 2
	window   = 16 // messages without an outcome, of one device
	pace     = 60 * time.Millisecond
	changing = 2
)

func sender(region tandem.RegionName, n int) tandem.DeviceID {
	return tandem.DeviceID(fmt.Sprintf("%s-device%d", region, n))
}

func keys(n byte) hub.Auth {
	return hub.Auth{Type: hub.AuthSAS, PrimaryKey: []byte{'p', n}, SecondaryKey: []byte{'s', n}}
}

// createDevices registers the senders and waits until both regions have them.
func (w *World) createDevices(ctx context.Context) error {
	l := w.regions[w.holder()].current()
	for _, name := range both {
		for n := range perDoor {
			id := sender(name, n)
			_, err := l.replica.Load().Handle().Do(ctx, &hub.Command{Op: hub.OpDeviceCreate, Device: id,
				Body: hub.AppendDeviceChange(nil, &hub.DeviceChange{Op: hub.OpDeviceCreate, ID: string(id), Status: hub.Enabled, Auth: keys(0)})})
			if err != nil {
				return err
			}
		}
	}
	return w.wait("both regions to have the devices", time.Minute, w.settled)
}

func (w *World) startLoad(rng *rand.Rand) {
	for _, name := range both {
		for n := range perDoor {
			d := &device{w: w, region: w.regions[name], id: sender(name, n), session: n%2 == 0, rng: rand.New(rand.NewPCG(rng.Uint64(), 2))}
			w.load.Go(d.run)
		}
		for p := range partitions {
			w.readers.Go(func() { w.follow(w.regions[name], p) })
		}
	}
	for n := range changing {
		c := &changer{w: w, id: tandem.DeviceID(fmt.Sprintf("registered%d", n)), rng: rand.New(rand.NewPCG(rng.Uint64(), 3))}
		w.load.Go(c.run)
	}
}

func (w *World) ended() bool {
	select {
	case <-w.stopped:
		return true
	default:
		return false
	}
}

func (w *World) readersEnded() bool {
	select {
	case <-w.read:
		return true
	default:
		return false
	}
}

// reach is the present life of a region; nil when the load has ended meanwhile.
func (w *World) reach(r *region) *life {
	for !w.ended() {
		if l := r.current(); l != nil {
			return l
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil
}

// A device sends messages, each once, through whichever process its region runs.
type device struct {
	w       *World
	region  *region
	id      tandem.DeviceID
	session bool // it connects; else it sends without a session
	rng     *rand.Rand
	order   int
}

func (d *device) run() {
	for {
		l := d.w.reach(d.region)
		if l == nil {
			return
		}
		d.connection(l)
	}
}

// A connection is a device at one door, until the process dies or the session is dropped.
type connection struct {
	d *device
	l *life

	mu      sync.Mutex
	waiting []*sent // in the order of sending
	room    chan struct{}
	dropped error
}

func (d *device) connection(l *life) {
	c := &connection{d: d, l: l, room: make(chan struct{}, 1)}
	handle := l.replica.Load().Handle()
	var number hub.SessionNumber
	if d.session {
		var err error
		number, err = handle.Connect(l.ctx, d.id, c.drop)
		if err != nil {
			if !tandem.KindOf(err).Retriable() && !l.gate.isDead() && l.ctx.Err() == nil {
				d.w.journal.violation("%s can't connect: %v", d.id, err)
			}
			time.Sleep(50 * time.Millisecond)
			return
		}
	}
	for !d.w.ended() && l.ctx.Err() == nil && !l.gate.isDead() && !c.gone() {
		time.Sleep(time.Duration(d.rng.Int64N(int64(2 * pace))))
		if !c.hasRoom() {
			select {
			case <-c.room:
			case <-l.ctx.Done():
			case <-d.w.stopped:
			}
			continue
		}
		for range 1 + d.rng.IntN(3) {
			c.send(handle, number)
		}
	}
	if d.w.ended() {
		c.finish()
	}
	if d.session && l.ctx.Err() == nil {
		handle.Disconnect(d.id, number)
	}
	c.abandon()
}

func (c *connection) drop(reason error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropped = reason
}

func (c *connection) gone() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dropped != nil
}

func (c *connection) hasRoom() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.waiting) < window
}

func (c *connection) send(handle hub.Handle, number hub.SessionNumber) {
	d := c.d
	d.order++
	s := &sent{id: fmt.Sprintf("%s:%d", d.id, d.order), device: d.id, life: c.l.incarnation, order: d.order}
	m := hub.Message{MessageID: s.id, Body: []byte("payload")}
	d.w.journal.send(s)
	c.mu.Lock()
	c.waiting = append(c.waiting, s)
	c.mu.Unlock()
	err := handle.Submit(c.l.ctx, &hub.Command{Op: hub.OpTelemetry, Device: d.id, Session: number, Body: hub.AppendMessage(nil, &m)}, c, uint64(s.order))
	if err != nil {
		c.mu.Lock()
		c.waiting = c.waiting[:len(c.waiting)-1]
		c.mu.Unlock()
		d.w.journal.outcome(s, &hub.Outcome{Err: &tandem.Error{Op: "submit", Kind: tandem.Invalid, Err: err}}) // it was not queued
	}
}

// Resolved implements hub.Waiter: once for each, in the order of sending.
func (c *connection) Resolved(tag uint64, o *hub.Outcome) {
	if c.l.gate.isDead() {
		return // nobody hears it
	}
	c.mu.Lock()
	var s *sent
	if len(c.waiting) > 0 {
		s, c.waiting = c.waiting[0], c.waiting[1:]
	}
	c.mu.Unlock()
	select {
	case c.room <- struct{}{}:
	default:
	}
	if s == nil || uint64(s.order) != tag {
		c.d.w.journal.violation("%s: an outcome for message %d, out of turn", c.d.id, tag)
		return
	}
	c.d.w.journal.outcome(s, o)
	if o.Err == nil {
		c.d.w.journal.answered(c.l, o.Position.Epoch)
	} else if k := tandem.KindOf(o.Err); !k.Retriable() && !errors.Is(o.Err, hub.ErrSessionTaken) {
		c.d.w.journal.violation("%s is refused: %v", s.id, o.Err)
	}
}

// Flush implements hub.Waiter.
func (c *connection) Flush() {}

// finish waits for the outcomes of what was sent; every one has to come.
func (c *connection) finish() {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		c.mu.Lock()
		left := len(c.waiting)
		c.mu.Unlock()
		if left == 0 || c.l.ctx.Err() != nil {
			return
		}
	}
	c.mu.Lock()
	first, left := c.waiting[0], len(c.waiting)
	c.mu.Unlock()
	c.d.w.journal.violation("%d messages of %s have no outcome, the first is %s", left, c.d.id, first.id)
}

// abandon is the end of the connection: nobody knows what became of the rest.
func (c *connection) abandon() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.d.w.journal.mu.Lock()
	defer c.d.w.journal.mu.Unlock()
	for _, s := range c.waiting {
		if s.fate == open {
			s.fate = unknown
		}
	}
}

// follow is a back end at one region: it reads a partition from where it was, also after its region's process died.
func (w *World) follow(r *region, partition int) {
	next := int64(0)
	for !w.readersEnded() {
		l := r.current()
		if l == nil {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		reader, err := l.replica.Load().Handle().Events(l.ctx, hub.EventStart{Partition: partition, Number: next})
		for err == nil && !w.readersEnded() {
			var e hub.Event
			short, cancel := context.WithTimeout(l.ctx, 500*time.Millisecond)
			e, err = reader.Next(short)
			cancel()
			if err != nil {
				if errors.Is(err, context.DeadlineExceeded) && l.ctx.Err() == nil {
					err = nil
				}
				continue
			}
			if l.gate.isDead() {
				break
			}
			if e.Partition != partition || e.Number < next {
				w.journal.violation("a reader of partition %d in %s got event %d of partition %d after %d", partition, r.name, e.Number, e.Partition, next-1)
			}
			next = e.Number + 1
			w.journal.event(r.name, place{partition, e.Number}, e.Message.MessageID)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
