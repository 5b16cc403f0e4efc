package hub

import (
	"strings"

	"tandem"
)

// hot remembers what telemetry needs to know of the devices that send: bounded, the least used goes first (clock).
// It belongs to the goroutine that decides and applies.
type hot struct {
	slots []hotDevice
	index map[tandem.DeviceID]int32
	hand  int
	limit int
}

// hotDevice is one slot; free when the id is empty.
type hotDevice struct {
	id         tandem.DeviceID
	disabled   bool
	used       bool
	length     uint8
	generation [31]byte // as text
}

func (d *hotDevice) text() []byte { return d.generation[:d.length] }

// hotBytes is about what one device takes, its share of the map included.
const hotBytes = 160

func newHot(limit int) *hot {
	return &hot{limit: max(limit, 16), index: map[tandem.DeviceID]int32{}}
}

// get returns the device's slot, nil when it is not here. It is good until the next call that changes hot.
func (h *hot) get(id tandem.DeviceID) *hotDevice {
	n, ok := h.index[id]
	if !ok {
		return nil
	}
	d := &h.slots[n]
	d.used = true
	return d
}

// add puts a device in.
func (h *hot) add(id tandem.DeviceID, value stored) *hotDevice {
	n := h.slot()
	d := &h.slots[n]
	*d = hotDevice{id: tandem.DeviceID(strings.Clone(string(id))), used: true}
	d.set(value)
	h.index[d.id] = int32(n)
	return d
}

func (d *hotDevice) set(value stored) {
	d.disabled = value.disabled()
	d.length = uint8(len(value.generation().appendGeneration(d.generation[:0])))
}

// slot returns a free slot, making one.
func (h *hot) slot() int {
	if len(h.slots) < h.limit {
		h.slots = append(h.slots, hotDevice{})
		return len(h.slots) - 1
	}
	for {
		h.hand = (h.hand + 1) % len(h.slots)
		d := &h.slots[h.hand]
		if d.used {
			d.used = false
			continue
		}
		if d.id != "" {
			delete(h.index, d.id)
		}
		return h.hand
	}
}

// change follows an applied change; a nil value is a deletion.
func (h *hot) change(id []byte, value stored) {
	n, ok := h.index[tandem.DeviceID(id)]
	if !ok {
		return
	}
	if value == nil {
		delete(h.index, h.slots[n].id)
		h.slots[n] = hotDevice{}
		return
	}
	h.slots[n].set(value)
}
