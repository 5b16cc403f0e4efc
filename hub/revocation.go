package hub

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"tandem"
	"tandem/directory"
	"tandem/pairlog"
)

// A change that takes a right away (disable, delete, other keys) must survive even a forced failover that loses the
// record it stands in. So it is acknowledged only once the peer's copy has that record, or, when the peer does not
// answer in time, once a revocation stands in the directory; a new holder applies revocations before it opens.

const (
	// mostRevocations bounds what one hub may keep in the directory.
	mostRevocations = 10_000
	// revocationPatience is how long the peer's copy is waited for before the directory is written.
	revocationPatience = 300 * time.Millisecond
	revocationsPerTxn  = 50
)

// A revocation is one device as it has to be from Number on; a nil Device means deleted.
type revocation struct {
	ID     tandem.DeviceID `json:"id"`
	Epoch  tandem.Epoch    `json:"epoch"`
	Number uint64          `json:"number"`
	Device *Device         `json:"device,omitempty"`
}

// revocations are those of the present pen that stand in the directory.
type revocations struct {
	mu    tandem.Turn                // held while the directory is written
	until map[tandem.DeviceID]uint64 // the record after which the peer's copy makes it superfluous
}

// confirmRequest asks the holder to make a change safe against its own loss.
type confirmRequest struct {
	Epoch   tandem.Epoch      `json:"epoch"`
	Number  uint64            `json:"number"`
	Devices []tandem.DeviceID `json:"devices"`
}

// mayRevoke names the devices whose rights a command may take away.
func mayRevoke(c *Command) []tandem.DeviceID {
	switch c.Op {
	case OpDeviceUpdate, OpDevicePut, OpDeviceDelete:
		return []tandem.DeviceID{c.Device}
	case OpBulk:
		changes, err := DecodeBulk(c.Body)
		if err != nil {
			return nil
		}
		var ids []tandem.DeviceID
		for i := range changes {
			if changes[i].Op != OpDeviceCreate {
				ids = append(ids, tandem.DeviceID(changes[i].ID))
			}
		}
		return ids
	}
	return nil
}

// urgent reports whether a command may take rights away: then it may use the last room of a nearly full disk.
func (c *Command) urgent() bool {
	switch c.Op {
	case OpDeviceUpdate, OpDeviceDelete:
		return true
	case OpDevicePut:
		return c.IfMatch != ""
	case OpBulk:
		changes, err := DecodeBulk(c.Body)
		return err == nil && !slices.ContainsFunc(changes, func(d DeviceChange) bool {
			return d.Op != OpDeviceUpdate && d.Op != OpDeviceDelete
		})
	}
	return false
}

// confirm returns when a change that Do applied can no longer be undone by a failover. Only what takes a right away has to
// be confirmed.
func (d *Door) confirm(ctx context.Context, c *Command, o *Outcome) error {
	ids := o.revokes
	if o.again {
		ids = mayRevoke(c)
	}
	if len(ids) == 0 {
		return nil
	}
	var stands bool
	err := d.ask(ctx, "confirm", confirmRequest{o.Position.Epoch, o.Position.Number, ids}, &stands)
	if err == nil && !stands {
		err = unknownOutcome(c, errors.New("a forced failover came between, and the change was lost with the old region"))
	}
	return err
}

// confirm is the holder's side; it answers whether the change stands.
func (r *Replica) confirm(data []byte) (any, error) {
	var c confirmRequest
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, errBadFrame
	}
	r.mu.Lock()
	w := r.writer
	r.mu.Unlock()
	if w == nil {
		return nil, ErrMoving
	}
	if c.Epoch < w.pen.Epoch && !inChain(w.pen.Forks, pairlog.Fork{Epoch: c.Epoch, Number: c.Number}) {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(r.ctx, revocationPatience)
	defer cancel()
	if w.waitAcked(ctx, c.Number) {
		return true, nil
	}
	return true, r.revoke(w, c)
}

// waitAcked waits until the peer's copy has a record; false when it does not in time.
func (w *writer) waitAcked(ctx context.Context, number uint64) bool {
	for {
		changed := w.acked.wait()
		if acked, _, known := w.log.PeerAcked(); known && acked >= number {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// revoke writes revocations into the directory, durable on a majority when it returns nil.
func (r *Replica) revoke(w *writer, c confirmRequest) error {
	r.revoked.mu.Lock()
	defer r.revoked.mu.Unlock()
	if len(r.revoked.until)+len(c.Devices) > mostRevocations {
		return ErrRevocationsFull
	}
	ctx, cancel := context.WithTimeout(r.ctx, 2*time.Second)
	defer cancel()
	var changes []directory.Change
	for i, id := range c.Devices {
		value, err := json.Marshal(revocation{ID: id, Epoch: c.Epoch, Number: c.Number, Device: r.currentDevice(id)})
		if err != nil {
			return err
		}
		changes = append(changes, directory.Change{Key: directory.RevokedKey(r.o.Info.ID, id), Value: value})
		if len(changes) < revocationsPerTxn && i+1 < len(c.Devices) {
			continue
		}
		if err := r.unlessFenced(ctx, w, changes); err != nil {
			return err
		}
		for _, id := range c.Devices[i+1-len(changes) : i+1] {
			r.revoked.until[id] = max(r.revoked.until[id], c.Number)
		}
		changes = changes[:0]
	}
	return nil
}

// unlessFenced changes the directory in the name of the pen's incarnation.
func (r *Replica) unlessFenced(ctx context.Context, w *writer, changes []directory.Change) error {
	done, err := r.o.Directory.Commit(ctx, directory.Txn{
		If: []directory.Compare{{Key: directory.FenceKey(w.pen.Incarnation)}}, Then: changes,
	})
	if err == nil && !done.OK {
		return ErrMoving
	}
	return err
}

// forgetRevocations removes those that the peer's copy has passed.
func (r *Replica) forgetRevocations(ctx context.Context, w *writer) error {
	acked, _, known := w.log.PeerAcked()
	r.revoked.mu.Lock()
	defer r.revoked.mu.Unlock()
	if !known || len(r.revoked.until) == 0 {
		return nil
	}
	var changes []directory.Change
	var gone []tandem.DeviceID
	for id, number := range r.revoked.until {
		if number <= acked && len(changes) < revocationsPerTxn {
			changes = append(changes, directory.Change{Key: directory.RevokedKey(r.o.Info.ID, id), Delete: true})
			gone = append(gone, id)
		}
	}
	if len(changes) == 0 {
		return nil
	}
	if err := r.unlessFenced(ctx, w, changes); err != nil {
		return err
	}
	for _, id := range gone {
		delete(r.revoked.until, id)
	}
	return nil
}

// applyRevocations brings back what a lost tail had taken away, before the first command of a new holder.
func (r *Replica) applyRevocations(ctx context.Context, w *writer) error {
	items, _, err := r.o.Directory.List(ctx, directory.RevokedPrefix(r.o.Info.ID))
	if err != nil {
		return err
	}
	r.revoked.mu.Lock()
	defer r.revoked.mu.Unlock()
	r.revoked.until = make(map[tandem.DeviceID]uint64)
	w.batch.Reset()
	var lost []revocation
	defer func() { r.lost.Store(&lost) }()
	for _, item := range items {
		var v revocation
		if err := json.Unmarshal(item.Value, &v); err != nil {
			return &tandem.Error{Op: "read a revocation", Kind: tandem.Damaged, On: item.Key, Err: err}
		}
		r.revoked.until[v.ID] = v.Number
		if inChain(w.pen.Forks, pairlog.Fork{Epoch: v.Epoch, Number: v.Number}) {
			continue
		}
		lost = append(lost, v)
		c := revocationCommand(v)
		err := r.view.Decide(&c, Stamp{Epoch: w.pen.Epoch, Number: w.next}, &w.batch)
		if errors.Is(err, ErrRecordFull) {
			if err = w.appendOwn(ctx); err == nil {
				err = r.view.Decide(&c, Stamp{Epoch: w.pen.Epoch, Number: w.next}, &w.batch)
			}
		}
		if err != nil && !errors.Is(err, ErrDeviceNotFound) {
			return err
		}
		if w.batch.Len() >= pairlog.MaxRecordEntries-reservedEntries {
			if err := w.appendOwn(ctx); err != nil {
				return err
			}
		}
	}
	if w.batch.Len() > 0 {
		if err := w.appendOwn(ctx); err != nil {
			return err
		}
	}
	return r.renameRevocations(ctx, w, lost)
}

// yieldTo makes the changes of a device that a lost revocation came after into nothing. They were answered by the holder
// that is gone, and are about to be sent again: after the revocation, which they would undo.
func (r *ring) yieldTo(lost []revocation) {
	for n := r.base; n < r.next && len(lost) > 0; n++ {
		s := r.at(n)
		if s.waiter != nil {
			continue
		}
		switch s.command.Op {
		case OpDeviceCreate, OpDeviceUpdate, OpDevicePut, OpDeviceDelete:
			s.refused = s.refused || outlives(lost, s.command.Device, s.record)
		case OpBulk:
			changes, err := DecodeBulk(s.command.Body)
			if err != nil {
				continue
			}
			kept := slices.DeleteFunc(changes, func(c DeviceChange) bool { return outlives(lost, tandem.DeviceID(c.ID), s.record) })
			r.bytes -= len(s.command.Body)
			s.command.Body = AppendBulk(nil, kept)
			r.bytes += len(s.command.Body)
		}
	}
}

// outlives reports whether a revocation of the device came after a record.
func outlives(lost []revocation, id tandem.DeviceID, record uint64) bool {
	return slices.ContainsFunc(lost, func(v revocation) bool { return v.ID == id && record < v.Number })
}

// renameRevocations lets what was brought back stand in the directory as of this epoch: the next holder must not apply it
// to a device that was changed again meanwhile. Called with revoked.mu held.
func (r *Replica) renameRevocations(ctx context.Context, w *writer, lost []revocation) error {
	for len(lost) > 0 {
		n := min(len(lost), revocationsPerTxn)
		var changes []directory.Change
		for _, v := range lost[:n] {
			v.Epoch, v.Number = w.pen.Epoch, w.next-1
			value, err := json.Marshal(v)
			if err != nil {
				return err
			}
			changes = append(changes, directory.Change{Key: directory.RevokedKey(r.o.Info.ID, v.ID), Value: value})
			r.revoked.until[v.ID] = v.Number
		}
		if err := r.unlessFenced(ctx, w, changes); err != nil {
			return err
		}
		lost = lost[n:]
	}
	return nil
}

// revocationCommand is a revocation as a command: it takes rights away and gives none.
func revocationCommand(v revocation) Command {
	c := Command{Op: OpDeviceDelete, Device: v.ID, IfMatch: "*"}
	if v.Device == nil {
		return c
	}
	c.Op = OpDeviceUpdate
	c.Body = AppendDeviceChange(nil, &DeviceChange{
		Op: OpDeviceUpdate, ID: v.Device.ID, IfMatch: "*", Status: v.Device.Status, StatusReason: v.Device.StatusReason, Auth: v.Device.Auth,
		EdgeCapable: v.Device.EdgeCapable, DeviceScope: v.Device.DeviceScope, ParentScopes: v.Device.ParentScopes,
	})
	return c
}

// appendOwn appends what the holder itself decided.
func (w *writer) appendOwn(ctx context.Context) error {
	rec, err := w.log.Append(ctx, &w.batch)
	if err != nil && !errors.Is(err, pairlog.ErrPeerBehind) {
		w.r.view.DropOverlay()
		return err
	}
	w.batch.Reset()
	return w.apply(&rec)
}
