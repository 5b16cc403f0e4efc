package hub

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"tandem"
	"tandem/pairlog"

	"github.com/cockroachdb/pebble/v2"
)

// flushEvery is how many bytes of folded log may be lost to the live database by a crash, about; they are folded again.
const flushEvery = 256 << 20

// fold collects what one record changes. Nothing of the view is touched before all of the record is understood.
type fold struct {
	meta    meta
	devices []changedDevice
	byID    map[string]int // in devices
	doors   []changedDoor
	told    []toldDevice
	roots   []pairlog.Hash // logged in this record
	trimTo  uint64         // records up to here go; 0: none
	events  int64
	arena   []byte
	keys    []byte
	flushed uint64 // Header.FirstByte at the last flush
}

type changedDevice struct {
	id         []byte
	old, value stored // nil: none
}

type changedDoor struct {
	id   DoorID
	mark doorMark
	gone bool
}

type toldDevice struct {
	id    []byte
	value stored
}

func (f *fold) reset(m *meta) {
	m.copyTo(&f.meta)
	f.devices, f.doors, f.told, f.roots = f.devices[:0], f.doors[:0], f.told[:0], f.roots[:0]
	f.trimTo, f.events, f.arena, f.keys = 0, 0, f.arena[:0], f.keys[:0]
	clear(f.byID)
}

// Apply folds one durable record, the one after Applied, and removes from the overlay what it covers. The change is
// visible to readers when Apply returns; it is durable by the log, not by the view. One goroutine at a time.
//
// Errors leave the view as it was: kind Precondition for another number, pairlog.ErrDiverged when the record does not go on
// from the one folded last, ErrUnknownEntryKind, kind Damaged for entries that do not decode.
func (v *View) Apply(rec *pairlog.Record) error {
	v.folding.Lock()
	defer v.folding.Unlock()
	if err := v.usable(); err != nil {
		return err
	}
	h := &rec.Header
	at := v.s.meta.fork
	if h.Number != at.Number+1 {
		return &tandem.Error{Op: "fold a record", Kind: tandem.Precondition,
			Err: fmt.Errorf("it has number %d and the view is at %d", h.Number, at.Number)}
	}
	if at.Number > 0 && h.Prev != at.Hash {
		return &tandem.Error{Op: "fold a record", Kind: tandem.Damaged, Err: pairlog.ErrDiverged}
	}
	f := &v.fold
	f.reset(&v.s.meta)
	now := h.Time.UnixMicro()
	for i, e := range rec.Entries() {
		var err error
		switch e.Kind {
		case KindTelemetry:
			f.events++
			err = f.meta.foldTelemetry(e.Data, now)
		case KindDevicePut, KindDeviceDelete:
			err = v.foldDevice(e, pairlog.Position{Epoch: h.Epoch, Number: h.Number, Index: i}, now)
		default:
			err = v.foldOther(e)
		}
		if err != nil {
			return err
		}
	}
	if f.events > 0 {
		f.meta.telemetryDay(h.Time, f.events)
	}
	f.meta.fork = pairlog.Fork{Epoch: h.Epoch, Number: h.Number, Hash: h.Hash}
	f.meta.time = now
	return v.commit(rec)
}

// foldOther folds the entries that come once in a while.
func (v *View) foldOther(e pairlog.Entry) error {
	f := &v.fold
	switch e.Kind {
	case pairlog.KindHeartbeat:
	case KindDoor:
		entry, err := DecodeDoorEntry(e.Data)
		if err != nil {
			return err
		}
		d := v.foldedDoor(entry.Door)
		d.mark, d.gone = d.mark.with(entry), false
	case KindDoorGone:
		*v.foldedDoor(DoorID(e.Data)) = changedDoor{id: DoorID(e.Data), gone: true}
	case KindRoot:
		if len(e.Data) != len(pairlog.Hash{}) {
			return &tandem.Error{Op: "fold a state root", Kind: tandem.Damaged}
		}
		f.roots = append(f.roots, pairlog.Hash(e.Data))
	case pairlog.KindPen:
		var pen pairlog.Pen
		if err := json.Unmarshal(e.Data, &pen); err != nil {
			return &tandem.Error{Op: "fold a pen", Kind: tandem.Damaged, Err: err}
		}
		if pen.Forced {
			f.meta.jump(int64(pen.Epoch - pen.Fork.Epoch))
		}
	case pairlog.KindClose:
		var last pairlog.Close
		if err := json.Unmarshal(e.Data, &last); err != nil {
			return &tandem.Error{Op: "fold a close", Kind: tandem.Damaged, Err: err}
		}
		if last.Root != (pairlog.Hash{}) {
			f.roots = append(f.roots, last.Root)
		}
	case pairlog.KindTrim:
		var trim pairlog.Trim
		if err := json.Unmarshal(e.Data, &trim); err != nil {
			return &tandem.Error{Op: "fold a trim", Kind: tandem.Damaged, Err: err}
		}
		f.trimTo = max(f.trimTo, trim.Number)
	default:
		return &tandem.Error{Op: fmt.Sprintf("fold an entry of kind %d", e.Kind), Kind: tandem.Unsupported, Err: ErrUnknownEntryKind}
	}
	return nil
}

// foldedDoor is the door as this record leaves it so far.
func (v *View) foldedDoor(id DoorID) *changedDoor {
	f := &v.fold
	i := slices.IndexFunc(f.doors, func(d changedDoor) bool { return d.id == id })
	if i < 0 {
		i = len(f.doors)
		f.doors = append(f.doors, changedDoor{id: id, mark: v.s.doors[id]})
	}
	return &f.doors[i]
}

// foldDevice folds a put or a delete of one device.
func (v *View) foldDevice(e pairlog.Entry, at pairlog.Position, now int64) error {
	f := &v.fold
	var id, identity []byte
	var err error
	if e.Kind == KindDevicePut {
		id, _, identity, err = splitPut(e.Data)
	} else {
		id, err = splitDelete(e.Data)
	}
	if err != nil {
		return err
	}
	n, ok := f.byID[string(id)]
	if !ok {
		old, err := v.readInto(id)
		if err != nil {
			return err
		}
		n = len(f.devices)
		f.devices = append(f.devices, changedDevice{id: id, old: old, value: old})
		f.byID[string(id)] = n
	}
	d := &f.devices[n]
	f.meta.count(d.value, -1)
	if e.Kind == KindDevicePut {
		start := len(f.arena)
		f.arena = nextValue(f.arena, at, d.value, identity, now)
		d.value = stored(f.arena[start:len(f.arena):len(f.arena)])
	} else {
		d.value = nil
	}
	f.meta.count(d.value, 1)
	if v.o.OnDevice != nil {
		f.told = append(f.told, toldDevice{id, d.value})
	}
	return nil
}

func (m *meta) count(value stored, by int64) {
	if value != nil {
		m.total += by
		if value.disabled() {
			m.disabled += by
		}
	}
}

// readInto returns a device's applied value in the fold's memory.
func (v *View) readInto(id []byte) (stored, error) {
	f := &v.fold
	if !v.s.buckets.mayHave(id) {
		return nil, nil
	}
	f.keys = append(append(f.keys[:0], keyDevice), id...)
	value, closer, err := v.db.Get(f.keys)
	if err == pebble.ErrNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, readFailed(err)
	}
	start := len(f.arena)
	f.arena = append(f.arena, value...)
	if err := closer.Close(); err != nil {
		return nil, readFailed(err)
	}
	old := stored(f.arena[start:len(f.arena):len(f.arena)])
	if !old.ok() {
		return nil, damagedView("a device does not decode")
	}
	return old, nil
}

// commit makes the folded record the view's state: memory and one batch.
func (v *View) commit(rec *pairlog.Record) error {
	f, h := &v.fold, &rec.Header
	batch := v.db.NewBatchWithSize(4096 + 2*len(f.arena))
	defer batch.Close()
	if h.Number == 1 || v.s.meta.fork.Number == 0 {
		set(batch, []byte{keyAbout}, v.s.about())
	}
	v.commitPoint(batch, h)
	if err := v.commitTrim(batch); err != nil {
		return err
	}
	v.mu.Lock() // until the batch is in, so that whoever sees the new position sees its devices
	for _, want := range f.roots {
		v.check = RootCheck{Number: h.Number, Want: want, Got: v.s.root()}
		if !v.check.Equal() {
			v.o.Logger.Error("state roots differ", "hub", v.o.Hub, "number", h.Number, "want", want, "got", v.check.Got)
		}
	}
	v.commitDevices(batch)
	v.commitDoors(batch)
	f.meta.copyTo(&v.s.meta)
	f.keys = f.meta.append(f.keys[:0])
	set(batch, []byte{keyMeta}, f.keys)
	err := v.db.Apply(batch, pebble.NoSync)
	v.mu.Unlock()
	if err != nil {
		v.broken.Store(&tandem.Error{Op: "fold a record", Kind: tandem.Damaged, Err: err})
		return v.usable()
	}
	v.commitOverlay(h.Number)
	if v.o.OnDevice != nil {
		v.tell()
	}
	if h.FirstByte > f.flushed+flushEvery {
		f.flushed = h.FirstByte
		_, _ = v.db.AsyncFlush() // what fails here fails again in Snapshot and Close
	}
	return nil
}

// set puts a key into a batch, which only fails when the batch is used up.
func set(b *pebble.Batch, key, value []byte) { _ = b.Set(key, value, nil) }

// commitPoint adds an index point before the record when enough of the log has passed.
func (v *View) commitPoint(batch *pebble.Batch, h *pairlog.Header) {
	m := &v.fold.meta
	if m.points && h.FirstByte < m.pointByte+indexEvery {
		return
	}
	m.points, m.pointByte = true, h.FirstByte
	v.fold.keys = v.s.meta.appendPoint(v.fold.keys[:0], m.time)
	set(batch, eventKey(h.Number), v.fold.keys)
}

// commitTrim forgets what the record trims: the partitions begin at the newest index point that is kept whole.
func (v *View) commitTrim(batch *pebble.Batch) error {
	f := &v.fold
	if f.trimTo <= f.meta.trimmed || f.trimTo >= f.meta.fork.Number {
		return nil
	}
	f.meta.trimmed = f.trimTo
	it, err := v.db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyEvent}, UpperBound: []byte{keyEvent + 1}})
	if err != nil {
		return readFailed(err)
	}
	defer it.Close()
	if !it.SeekLT(eventKey(f.trimTo + 2)) {
		return it.Error()
	}
	for i := range f.meta.partitions {
		p := &f.meta.partitions[i]
		p.first = max(p.first, point(it.Value()).next(i))
	}
	_ = batch.DeleteRange([]byte{keyEvent}, slices.Clone(it.Key()), nil)
	return it.Error()
}

func (v *View) commitDevices(batch *pebble.Batch) {
	f := &v.fold
	for i := range f.devices {
		d := &f.devices[i]
		if d.old == nil && d.value == nil {
			continue
		}
		var before, after sum
		if d.old != nil {
			before = v.hasher.device(d.id, d.old)
		}
		f.keys = append(append(f.keys[:0], keyDevice), d.id...)
		if d.value != nil {
			after = v.hasher.device(d.id, d.value)
			set(batch, f.keys, d.value)
		} else {
			_ = batch.Delete(f.keys, nil)
		}
		n, mark := bucketOf(d.id)
		v.s.buckets.change(n, before, after)
		v.s.buckets.count(n, mark, d.old != nil, d.value != nil)
		f.keys = v.s.buckets.append(binary.BigEndian.AppendUint16(append(f.keys[:0], keyBucket), n), n)
		set(batch, f.keys[:3], f.keys[3:])
		v.hot.change(d.id, d.value)
	}
}

func (v *View) commitDoors(batch *pebble.Batch) {
	for _, d := range v.fold.doors {
		key := append([]byte{keyDoor}, d.id...)
		if d.gone {
			delete(v.s.doors, d.id)
			_ = batch.Delete(key, nil)
			continue
		}
		v.s.doors[d.id] = d.mark
		set(batch, key, d.mark.append(nil))
	}
}

// commitOverlay drops what was decided for records up to number, and lets Decide go on from there.
func (v *View) commitOverlay(number uint64) {
	if len(v.overlay) > 0 {
		for id, p := range v.overlay {
			if p.number <= number {
				delete(v.overlay, id)
			}
		}
	}
	for i := range v.decided {
		v.decided[i] = max(v.decided[i], v.s.meta.partitions[i].next)
	}
}

// tell gives the changes of the record to OnDevice.
func (v *View) tell() {
	for _, t := range v.fold.told {
		if t.value == nil {
			v.o.OnDevice(tandem.DeviceID(t.id), nil)
			continue
		}
		d, err := t.value.device(string(t.id))
		if err != nil { // it was checked when it was folded
			panic(err)
		}
		v.o.OnDevice(tandem.DeviceID(t.id), &d)
	}
}

// recordTime is a time as records have it.
func recordTime(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return time.UnixMicro(micros).UTC()
}
