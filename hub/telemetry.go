package hub

import (
	"encoding/binary"

	"tandem"
	"tandem/pairlog"

	"github.com/cespare/xxhash/v2"
)

// Telemetry is the data of a KindTelemetry entry. Its slices alias the entry.
//
//	data = partition (2), event number (8), length of the device id (1), it, length of the generation id (1), it, message
type Telemetry struct {
	Partition          int
	Number             int64
	Device, Generation []byte
	Message            []byte // as AppendMessage wrote it
}

const telemetryHead = 2 + 8

// DecodeTelemetry reads the data of a KindTelemetry entry; an error of kind Damaged.
func DecodeTelemetry(b []byte) (Telemetry, error) {
	r := cutter{b: b}
	head := r.take(telemetryHead)
	device := r.take(uint64(r.byte()))
	generation := r.take(uint64(r.byte()))
	if r.bad {
		return Telemetry{}, damagedTelemetry("it is cut short")
	}
	t := Telemetry{Partition: int(binary.BigEndian.Uint16(head)), Number: int64(binary.BigEndian.Uint64(head[2:])),
		Device: device, Generation: generation, Message: b[r.at:]}
	if t.Number < 0 || t.Partition >= MaxPartitions {
		return Telemetry{}, damagedTelemetry("it has no such number or partition")
	}
	return t, nil
}

func damagedTelemetry(what string) error {
	return &tandem.Error{Op: "decode telemetry: " + what, Kind: tandem.Damaged}
}

// Partition is the event partition of a device: XXH64 with seed 0 of its id, modulo count. It never changes.
func Partition(device tandem.DeviceID, count int) int {
	return int(xxhash.Sum64String(string(device)) % uint64(count))
}

// decideTelemetry gives a message its partition and number. ErrDeviceNotFound, ErrDeviceDisabled, ErrMessageTooLarge.
func (v *View) decideTelemetry(c *Command, b *pairlog.Batch) error {
	d := v.hot.get(c.Device)
	if d == nil || len(v.overlay) > 0 {
		var err error
		if d, err = v.sender(c.Device); err != nil {
			return err
		}
	}
	if d.disabled {
		return ErrDeviceDisabled
	}
	size := telemetryHead + 2 + len(c.Device) + int(d.length) + len(c.Body)
	if size > pairlog.MaxEntryBytes {
		return ErrMessageTooLarge
	}
	if !b.Fits(size) {
		return ErrRecordFull
	}
	n := Partition(c.Device, len(v.decided))
	head := binary.BigEndian.AppendUint16(v.scratch[:0], uint16(n))
	head = binary.BigEndian.AppendUint64(head, uint64(v.decided[n]))
	head = append(append(head, byte(len(c.Device))), c.Device...)
	head = append(append(head, d.length), d.text()...)
	v.scratch = head
	b.Add(KindTelemetry, head, c.Body)
	v.decided[n]++
	return nil
}

// sender returns a device as the overlay has it, else from hot, else from the view.
func (v *View) sender(id tandem.DeviceID) (*hotDevice, error) {
	if p, ok := v.overlay[id]; ok {
		if p.value == nil {
			return nil, ErrDeviceNotFound
		}
		v.pendingSender.set(p.value)
		return &v.pendingSender, nil
	}
	if d := v.hot.get(id); d != nil {
		return d, nil
	}
	if !validDeviceID(id) {
		return nil, ErrDeviceNotFound
	}
	value, err := v.read(id)
	if err != nil {
		return nil, err
	}
	if value == nil {
		return nil, ErrDeviceNotFound
	}
	return v.hot.add(id, value), nil
}

// foldTelemetry advances the partition of one event.
func (m *meta) foldTelemetry(data []byte, time int64) error {
	if len(data) < telemetryHead+2 {
		return damagedTelemetry("it is cut short")
	}
	n := int(binary.BigEndian.Uint16(data))
	number := int64(binary.BigEndian.Uint64(data[2:]))
	if n >= len(m.partitions) || number < m.partitions[n].next || number >= 1<<62 {
		return damagedTelemetry("its number does not go on from the one before")
	}
	p := &m.partitions[n]
	if p.first == p.next {
		p.first = number
	}
	p.next, p.lastTime = number+1, time
	return nil
}
