package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"tandem"
	"tandem/hub"
)

// A change is one operation on the identity of a device.
type change struct {
	op       hub.Op
	tag      string // its StatusReason; a delete has none
	status   hub.Status
	fate     fate
	position tandem.Epoch // of the record, when the answer said it
}

// takesAway says whether a change takes a right away: such a one outlives any failover once it was answered.
func (c *change) takesAway() bool { return c.op == hub.OpDeviceDelete || c.status == hub.Disabled }

// A changer changes one device, a change at a time, at a door of its choice.
type changer struct {
	w   *World
	id  tandem.DeviceID
	rng *rand.Rand
}

func (c *changer) run() {
	for n := 1; !c.w.ended(); n++ {
		time.Sleep(time.Duration(c.rng.Int64N(int64(time.Second))))
		l := c.w.reach(c.w.regions[both[c.rng.IntN(2)]])
		if l == nil {
			return
		}
		c.look(l)
		one := &change{op: hub.OpDevicePut, tag: fmt.Sprintf("%s change %d", c.id, n), status: hub.Enabled}
		switch c.rng.IntN(4) {
		case 0:
			one.op, one.tag, one.status = hub.OpDeviceDelete, "", ""
		case 1:
			one.status = hub.Disabled
		}
		command := &hub.Command{Op: one.op, Device: c.id, IfMatch: "*"}
		if one.op == hub.OpDevicePut {
			command.IfMatch = ""
			command.Body = hub.AppendDeviceChange(nil, &hub.DeviceChange{Op: one.op, ID: string(c.id), Status: one.status,
				StatusReason: one.tag, Auth: keys(1)})
		}
		c.w.journal.mu.Lock()
		c.w.journal.registry[c.id] = append(c.w.journal.registry[c.id], one)
		c.w.journal.mu.Unlock()
		ctx, cancel := context.WithTimeout(l.ctx, 40*time.Second)
		o, err := l.replica.Load().Handle().Do(ctx, command)
		cancel()
		c.w.journal.mu.Lock()
		switch {
		case l.gate.isDead():
			one.fate = unknown
		case err == nil:
			one.fate, one.position = acked, o.Position.Epoch
		case tandem.KindOf(err).Retriable(), tandem.KindOf(err) == tandem.Internal:
			one.fate = unknown
		default:
			one.fate = refused
		}
		c.w.journal.mu.Unlock()
		c.w.note("%s at %s: operation %d %q %s: position %s, %v", c.id, l.incarnation, one.op, one.tag, one.status, o.Position, err)
	}
}

// look reads the device: a right that was taken away does not come back by itself.
func (c *changer) look(l *life) {
	ctx, cancel := context.WithTimeout(l.ctx, 3*time.Second)
	defer cancel()
	d, err := l.replica.Load().Handle().Device(ctx, c.id)
	if err != nil || d.Status != hub.Enabled || l.gate.isDead() {
		return
	}
	c.w.journal.mu.Lock()
	var made, last *change
	for _, one := range c.w.journal.registry[c.id] {
		if one.tag == d.StatusReason {
			made = one
		}
		if one.fate == acked {
			last = one
		}
	}
	c.w.journal.mu.Unlock()
	if made != nil && made.fate == acked && made != last && last.takesAway() {
		c.w.journal.violation("%s is enabled again (%s), though %+v was answered", c.id, d.StatusReason, *last)
	}
}

// checkRegistry compares what a device is in the end with what was done to it.
func (w *World) checkRegistry(ctx context.Context, l *life, lost map[tandem.DeviceID]bool) {
	for id, changes := range w.journal.registry {
		d, err := l.replica.Load().Handle().Device(ctx, id)
		absent := err != nil && tandem.KindOf(err) == tandem.NotFound
		if err != nil && !absent {
			w.journal.violation("%s can't be read in the end: %v", id, err)
			continue
		}
		last := -1
		for n, c := range changes {
			if c.fate == acked {
				last = n
			}
		}
		made := func(c *change) bool {
			if c.op == hub.OpDeviceDelete {
				return absent
			}
			return !absent && d.StatusReason == c.tag
		}
		fits := last < 0 && absent || last >= 0 && made(changes[last])
		for _, c := range changes {
			fits = fits || (c.fate == unknown || c.fate == open) && made(c)
		}
		switch {
		case fits:
		case last >= 0 && changes[last].takesAway() && !absent && d.Status == hub.Enabled:
			w.journal.violation("%s is enabled again (%s), though %+v was answered", id, d.StatusReason, *changes[last])
		case last >= 0 && !lost[id] && !changes[last].takesAway():
			w.journal.violation("%s is %q (absent %v), though %+v was answered and is on no receipt", id, d.StatusReason, absent, *changes[last])
		}
	}
}
