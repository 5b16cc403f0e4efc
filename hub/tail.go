package hub

import (
	"context"
	"errors"

	"tandem/pairlog"
)

// again are the commands of a tail that their doors have sent again and that the log has after all: they are not lost.
type again map[DoorID]*resent

// resent are one door's numbers in a tail, and which of them the log has applied since.
type resent struct {
	first, last uint64
	applied     map[uint64]struct{} // at most a door's window
}

// sentAgain finds the commands of a tail that the log has, from the fork on. A door sends the oldest first, so looking
// ends once each door that was heard of since has gone past its last number in the tail.
func (r *Replica) sentAgain(ctx context.Context, tail func(fn func(pairlog.Record) error) error) (again, error) {
	doors, fork := again{}, pairlog.Fork{}
	err := tail(func(rec pairlog.Record) error {
		if len(doors) == 0 {
			fork = lastInChain(r.log.Branches(), pairlog.Fork{Epoch: rec.Header.Epoch, Number: rec.Header.Number})
		}
		return eachDoor(&rec, func(e DoorEntry) {
			if e.Count == 0 {
				return
			}
			d := doors[e.Door]
			if d == nil {
				d = &resent{first: e.First, applied: map[uint64]struct{}{}}
				doors[e.Door] = d
			}
			d.first, d.last = min(d.first, e.First), max(d.last, e.First+uint64(e.Count)-1)
		})
	})
	if err != nil {
		return nil, err
	}
	looked := map[DoorID]uint64{} // up to which number
	for id, d := range doors {
		if applied := r.view.Door(id).Applied; applied >= d.first {
			looked[id] = min(applied, d.last)
		}
	}
	for at := fork.Number; len(looked) > 0; {
		next, err := r.log.Read(ctx, at, 4<<20, func(rec pairlog.Record) error {
			return eachDoor(&rec, func(e DoorEntry) {
				if until, wanted := looked[e.Door]; wanted {
					doors[e.Door].take(&e)
					if e.First+uint64(e.Count) > until {
						delete(looked, e.Door)
					}
				}
			})
		})
		if errors.Is(err, pairlog.ErrBehindTrim) || err == nil && next == at {
			break
		} else if err != nil {
			return nil, err
		}
		at = next
	}
	return doors, nil
}

func (d *resent) take(e *DoorEntry) {
	refused := e.Refused
	for n := e.First; n < e.First+uint64(e.Count); n++ {
		for len(refused) > 0 && refused[0].Number < n {
			refused = refused[1:]
		}
		if n < d.first || n > d.last || len(refused) > 0 && refused[0].Number == n {
			continue
		}
		d.applied[n] = struct{}{}
	}
}

func eachDoor(rec *pairlog.Record, fn func(DoorEntry)) error {
	for _, entry := range rec.Entries() {
		if entry.Kind != KindDoor {
			continue
		}
		e, err := DecodeDoorEntry(entry.Data)
		if err != nil {
			return err
		}
		fn(e)
	}
	return nil
}

// of says of each entry of a record of the tail whether the log has it after all. A record's door entries name the
// commands in the order of what they added. A command of many changes may add any number of entries: a record with one
// counts as a whole.
func (a again) of(rec *pairlog.Record) (func(index uint32) bool, error) {
	var has []bool // of each command that was carried out
	all := true
	err := eachDoor(rec, func(e DoorEntry) {
		refused := e.Refused
		for n := e.First; n < e.First+uint64(e.Count); n++ {
			if len(refused) > 0 && refused[0].Number == n {
				refused = refused[1:]
				continue
			}
			_, here := a[e.Door].applied[n]
			has, all = append(has, here), all && here
		}
	})
	if err != nil {
		return nil, err
	}
	var changes []uint32
	for index, entry := range rec.Entries() {
		switch entry.Kind {
		case KindTelemetry, KindDevicePut, KindDeviceDelete:
			changes = append(changes, index)
		}
	}
	if len(changes) != len(has) {
		return func(uint32) bool { return all && len(has) > 0 }, nil
	}
	there := make(map[uint32]bool, len(changes))
	for i, index := range changes {
		there[index] = has[i]
	}
	return func(index uint32) bool { return there[index] }, nil
}
