package https_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"tandem"
	"tandem/hub"
)

// fakeHub is a hub.Handle over a map: the outcomes a real one would give, without a log.
type fakeHub struct {
	mu       sync.Mutex
	devices  map[tandem.DeviceID]hub.Device
	sent     []hub.Message
	commands int
	count    int
	fail     error // of every call, when set
}

func (f *fakeHub) Info() hub.Info { return hub.Info{} }

func (f *fakeHub) Identity(ctx context.Context, id tandem.DeviceID) (hub.Device, error) {
	return f.Device(ctx, id)
}

func (f *fakeHub) Device(_ context.Context, id tandem.DeviceID) (hub.Device, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if d, ok := f.devices[id]; ok || f.fail != nil {
		return d, f.fail
	}
	return hub.Device{}, hub.ErrDeviceNotFound
}

func (f *fakeHub) Devices(_ context.Context, after tandem.DeviceID, top int) ([]hub.Device, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []hub.Device
	for id, d := range f.devices {
		if id > after {
			all = append(all, d)
		}
	}
	slices.SortFunc(all, func(a, b hub.Device) int { return strings.Compare(a.ID, b.ID) })
	return all[:min(top, len(all))], f.fail
}

func (f *fakeHub) Statistics(context.Context) (hub.Statistics, error) {
	return hub.Statistics{Total: 3, Enabled: 2, Disabled: 1}, f.fail
}

func (f *fakeHub) Connect(context.Context, tandem.DeviceID, func(error)) (hub.SessionNumber, error) {
	panic("HTTPS has no sessions")
}

func (f *fakeHub) Disconnect(tandem.DeviceID, hub.SessionNumber) { panic("HTTPS has no sessions") }

func (f *fakeHub) Submit(ctx context.Context, c *hub.Command, w hub.Waiter, tag uint64) error {
	outcome, err := f.Do(ctx, c)
	outcome.Err = err
	w.Resolved(tag, &outcome)
	w.Flush()
	return nil
}

func (f *fakeHub) Do(_ context.Context, c *hub.Command) (hub.Outcome, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.commands++
	if f.fail != nil {
		return hub.Outcome{}, f.fail
	}
	switch c.Op {
	case hub.OpTelemetry:
		m, err := hub.DecodeMessage(slices.Clone(c.Body))
		f.sent = append(f.sent, m)
		return hub.Outcome{}, err
	case hub.OpDeviceDelete:
		return hub.Outcome{}, f.change(hub.DeviceChange{Op: c.Op, ID: string(c.Device), IfMatch: c.IfMatch})
	case hub.OpBulk:
		changes, err := hub.DecodeBulk(c.Body)
		var o hub.Outcome
		for _, change := range changes {
			o.Bulk = append(o.Bulk, f.change(change))
		}
		return o, err
	}
	change, err := hub.DecodeDeviceChange(c.Body)
	if err == nil {
		err = f.change(change)
	}
	if err != nil {
		return hub.Outcome{}, err
	}
	d := f.devices[c.Device]
	return hub.Outcome{Device: &d}, nil
}

func (f *fakeHub) change(c hub.DeviceChange) error {
	id := tandem.DeviceID(c.ID)
	old, exists := f.devices[id]
	switch {
	case c.Op == hub.OpDeviceCreate && exists:
		return fmt.Errorf("device %s: %w", c.ID, hub.ErrDeviceExists)
	case (c.Op == hub.OpDeviceUpdate || c.Op == hub.OpDeviceDelete) && !exists:
		return hub.ErrDeviceNotFound
	case c.IfMatch != "" && c.IfMatch != "*" && c.IfMatch != old.Etag:
		return &tandem.Error{Op: hub.ErrEtag.Op, Kind: hub.ErrEtag.Kind, On: c.ID} // as it comes from another node
	case c.Op == hub.OpDeviceDelete:
		delete(f.devices, id)
		return nil
	}
	f.count++
	f.devices[id] = hub.Device{ID: c.ID, Generation: "638000000000000001", Etag: fmt.Sprintf("AAAA%d=", f.count), Status: c.Status,
		StatusReason: c.StatusReason, StatusUpdated: time.Date(2026, 1, 2, 3, 4, 5, 678_900_000, time.UTC), Auth: c.Auth,
		EdgeCapable: c.EdgeCapable}
	return nil
}

func (f *fakeHub) Events(context.Context, hub.EventStart) (*hub.EventReader, error) {
	return nil, hub.ErrMoving
}

func (f *fakeHub) Partitions(context.Context) ([]hub.PartitionState, error) { return nil, f.fail }
