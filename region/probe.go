package region

import (
	"context"
	"errors"

	"tandem"
	"tandem/pairlog"
)

// A probe proves that this node's log engine takes durable writes: a small append to a segment of its own. A lease is
// renewed only while it succeeds.
type probe struct {
	store pairlog.Store
	id    pairlog.SegmentID
	last  uint64
	first uint64
}

// probeKept is how many probe records are kept before the old ones are removed.
const probeKept = 512

func newProbe(ctx context.Context, store pairlog.Store, region tandem.RegionName) (*probe, error) {
	p := &probe{store: store, id: pairlog.SegmentID{Hub: "probe", Epoch: 1, Holder: region}}
	if err := store.Create(ctx, p.id); err != nil {
		return nil, err
	}
	return p, p.resume(ctx)
}

func (p *probe) resume(ctx context.Context) error {
	state, err := p.store.State(ctx, p.id)
	if err == nil {
		p.first, p.last = state.First, state.Last
	}
	return err
}

// append returns when a record is on disk. One goroutine at a time.
func (p *probe) append(ctx context.Context) error {
	err := p.store.Append(ctx, p.id, p.last, []byte{1})
	if errors.Is(err, pairlog.ErrSequence) || tandem.KindOf(err) == tandem.Timeout && err != nil {
		if resumed := p.resume(ctx); resumed != nil { // an append that was not answered may have arrived
			return resumed
		}
		err = p.store.Append(ctx, p.id, p.last, []byte{1})
	}
	if err != nil {
		return err
	}
	p.last++
	if p.last-p.first > 2*probeKept {
		if err := p.store.Trim(ctx, p.id, p.last-probeKept); err != nil {
			return err
		}
		p.first = p.last - probeKept
	}
	return nil
}
