package hub

import (
	"math"

	"tandem"
	"tandem/pairlog"
)

// ErrRecordFull: the record being built has no room for what the command would add. Nothing was decided: append the record and
// decide again for the next. An empty batch has room for every command.
var ErrRecordFull = &tandem.Error{Op: "decide", Kind: tandem.Unavailable}

// timeOfRecord stands in the overlay for the time of a record that does not have one yet.
const timeOfRecord = math.MinInt64

// pending is a device as it will be once what was decided is applied.
type pending struct {
	value  stored // nil: deleted
	number uint64 // of the record
}

// answer is what Answer needs to know of a command that was decided.
type answer struct {
	id    tandem.DeviceID
	value stored // of a single change, nil for a deletion
	bulk  []error
}

// decideBulk decides each change for itself; one may refer to what an earlier one did. ErrTooManyDevices, kind Invalid
// when the whole is damaged, ErrRecordFull.
func (v *View) decideBulk(c *Command, at Stamp, b *pairlog.Batch) error {
	var changes [MaxBulk]change
	var broken [MaxBulk]error
	size := 0
	count, err := splitBulk(c.Body, func(n int, one []byte) error {
		changes[n], broken[n] = splitChange(one)
		size += len(one) + 8
		return nil
	})
	if err != nil {
		return err
	}
	if size+count*entryOverhead > pairlog.MaxRecordBytes-512 {
		return &tandem.Error{Op: "change the devices", Kind: tandem.TooLarge}
	}
	if count > 0 && (b.Len()+count > pairlog.MaxRecordEntries || b.Bytes()+size+count*entryOverhead > pairlog.MaxRecordBytes-512) {
		return ErrRecordFull
	}
	outcomes := make([]error, count)
	for n := range count {
		one := &changes[n]
		if outcomes[n] = broken[n]; outcomes[n] == nil {
			_, outcomes[n] = v.decideDevice(one.op, tandem.DeviceID(one.id), string(one.ifMatch), one.identity, at, b)
		}
	}
	v.answers[c] = answer{bulk: outcomes}
	return nil
}

// entryOverhead is more than an entry of the log takes besides its data.
const entryOverhead = 8

// decideSingle decides OpDeviceCreate, Update, Put and Delete.
func (v *View) decideSingle(c *Command, at Stamp, b *pairlog.Batch) error {
	id, ifMatch := c.Device, c.IfMatch
	var identity []byte
	if c.Op != OpDeviceDelete || len(c.Body) > 0 {
		one, err := splitChange(c.Body)
		if err != nil {
			return err
		}
		if id == "" {
			id = tandem.DeviceID(one.id)
		} else if len(one.id) > 0 && string(one.id) != string(id) {
			return invalidChange("the body names another device")
		}
		if ifMatch == "" {
			ifMatch = string(one.ifMatch)
		}
		identity = one.identity
	}
	if b.Len() > 0 && !b.Fits(len(identity)+len(id)+entryOverhead) {
		return ErrRecordFull
	}
	value, err := v.decideDevice(c.Op, id, ifMatch, identity, at, b)
	if err != nil {
		return err
	}
	v.answers[c] = answer{id: id, value: value}
	return nil
}

// decideDevice decides one change of one device. A put with an etag creates a device that is absent, as the import mode
// createOrUpdateIfMatchETag does.
func (v *View) decideDevice(op Op, id tandem.DeviceID, ifMatch string, identity []byte, at Stamp,
	b *pairlog.Batch) (stored, error) {
	if !validDeviceID(id) {
		if op == OpDeviceDelete || op == OpDeviceUpdate {
			return nil, ErrDeviceNotFound
		}
		return nil, invalidChange("the device id is empty, too long or has a character that ids may not have")
	}
	old, err := v.current(id)
	if err != nil {
		return nil, err
	}
	switch {
	case op < OpDeviceCreate || op > OpDeviceDelete:
		return nil, invalidChange("the operation is not one on a device")
	case op == OpDeviceCreate && old != nil:
		return nil, ErrDeviceExists
	case op != OpDeviceCreate && op != OpDevicePut && old == nil:
		return nil, ErrDeviceNotFound
	case op != OpDeviceCreate && old != nil && ifMatch != "" && ifMatch != "*" && ifMatch != old.etag().etag():
		return nil, ErrEtag
	}
	if op == OpDeviceDelete {
		v.scratch = appendText(append(v.scratch[:0], identityVersion), string(id))
		b.Add(KindDeviceDelete, v.scratch)
		v.overlay[id] = pending{number: at.Number}
		return nil, nil
	}
	now, err := splitIdentity(identity)
	if err != nil {
		return nil, err
	}
	var flags byte
	if old != nil {
		was, err := splitIdentity(old.identity())
		if err != nil {
			return nil, damagedView("a device does not decode")
		}
		if now.revokes(&was) {
			flags |= putRevokes
		}
	}
	v.scratch = appendText(append(v.scratch[:0], identityVersion, flags), string(id))
	index := b.Add(KindDevicePut, v.scratch, identity)
	position := pairlog.Position{Epoch: at.Epoch, Number: at.Number, Index: index}
	value := nextValue(make([]byte, 0, storedHead+len(identity)), position, old, identity, timeOfRecord)
	v.overlay[id] = pending{value: value, number: at.Number}
	return value, nil
}

// nextValue is what a put at a position makes of a device, whose value was old (nil: none).
func nextValue(dst []byte, at pairlog.Position, old stored, identity []byte, time int64) stored {
	etag := makeOrigin(at)
	generation, statusUpdated := etag, int64(0)
	if old != nil {
		generation, statusUpdated = old.generation(), old.statusUpdated()
		if old.disabled() != (identity[0]&flagDisabled != 0) {
			statusUpdated = time
		}
	}
	return appendStored(dst, etag, generation, statusUpdated, identity)
}

// current returns a device as the overlay has it, else as the view has it; nil when there is none.
func (v *View) current(id tandem.DeviceID) (stored, error) {
	if p, ok := v.overlay[id]; ok {
		return p.value, nil
	}
	return v.read(id)
}

// read returns a copy of a device's applied value, nil when there is none.
func (v *View) read(id tandem.DeviceID) (stored, error) {
	v.open.RLock()
	defer v.open.RUnlock()
	if err := v.usable(); err != nil {
		return nil, err
	}
	var space [1 + MaxDeviceID]byte
	if len(id) > MaxDeviceID {
		return nil, nil
	}
	key := append(append(space[:0], keyDevice), id...)
	v.mu.RLock()
	may := v.s.buckets.mayHave(key[1:])
	v.mu.RUnlock()
	if !may {
		return nil, nil
	}
	value, err := getValue(v.db, key)
	if err == nil && value != nil && !stored(value).ok() {
		err = damagedView("a device does not decode")
	}
	return value, err
}

// Answer completes the outcome of a command that Decide took, once its record is applied and before the next one is:
// o.Device after OpDeviceCreate, OpDeviceUpdate and OpDevicePut, o.Bulk after OpBulk. c is the pointer that Decide was
// given. It belongs to the goroutine that decides.
func (v *View) Answer(c *Command, o *Outcome) {
	a, ok := v.answers[c]
	if !ok {
		return
	}
	delete(v.answers, c)
	if a.bulk != nil {
		o.Bulk = a.bulk
		return
	}
	if a.value == nil {
		return
	}
	value := a.value
	if now, err := v.read(a.id); err == nil && now != nil && now.etag() == value.etag() {
		value = now
	} else if value.statusUpdated() == timeOfRecord { // a later command of the record changed the device again
		value = appendStored(nil, value.etag(), value.generation(), v.s.meta.time, value.identity())
	}
	if d, err := value.device(string(a.id)); err == nil {
		o.Device = &d
	}
}

// A DeviceEntry is what a KindDevicePut or KindDeviceDelete entry says, as far as others than View need it.
type DeviceEntry struct {
	Device tandem.DeviceID
	// Revokes is set when the entry ends something that was allowed: a delete, a disabling, a key or thumbprint gone.
	// Such an entry must reach the peer or the directory before it is answered.
	Revokes bool
}

// DecodeDeviceEntry reads the data of a KindDevicePut or KindDeviceDelete entry. An error of kind Damaged, or
// Unsupported for a newer version and for other kinds.
func DecodeDeviceEntry(kind pairlog.Kind, data []byte) (DeviceEntry, error) {
	switch kind {
	case KindDevicePut:
		id, flags, _, err := splitPut(data)
		return DeviceEntry{Device: tandem.DeviceID(id), Revokes: flags&putRevokes != 0}, err
	case KindDeviceDelete:
		id, err := splitDelete(data)
		return DeviceEntry{Device: tandem.DeviceID(id), Revokes: true}, err
	}
	return DeviceEntry{}, &tandem.Error{Op: "decode a device entry", Kind: tandem.Unsupported}
}

func splitPut(data []byte) (id []byte, flags byte, identity []byte, err error) {
	r := cutter{b: data}
	if len(data) > 0 && data[0] != identityVersion {
		return nil, 0, nil, r.wrongVersion("decode a device entry")
	}
	r.byte()
	flags, id = r.byte(), r.text()
	if r.bad || !validDeviceID(id) {
		return nil, 0, nil, damagedEntry()
	}
	identity = data[r.at:]
	if _, err := splitIdentity(identity); err != nil {
		if tandem.KindOf(err) == tandem.Unsupported {
			return nil, 0, nil, err
		}
		return nil, 0, nil, damagedEntry()
	}
	return id, flags, identity, nil
}

func splitDelete(data []byte) (id []byte, err error) {
	r := cutter{b: data}
	if len(data) > 0 && data[0] != identityVersion {
		return nil, r.wrongVersion("decode a device entry")
	}
	r.byte()
	if id = r.text(); r.bad || r.at != len(data) || !validDeviceID(id) {
		return nil, damagedEntry()
	}
	return id, nil
}

func damagedEntry() error { return &tandem.Error{Op: "decode a device entry", Kind: tandem.Damaged} }
