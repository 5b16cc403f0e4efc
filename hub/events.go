package hub

import (
	"context"
	"errors"
	"time"

	"tandem"
	"tandem/pairlog"
)

// eventReadBytes is how much log an EventReader fetches at a time.
const eventReadBytes = 1 << 20

// An EventReader reads telemetry in log order from this region's copy of the log. It is not safe for concurrent use.
// It holds nothing open: dropping it is enough.
type EventReader struct {
	log       *pairlog.Log
	readable  func() error
	partition int          // < 0: all
	number    int64        // skip smaller ones
	time      time.Time    // skip older ones
	done      pairlog.Fork // the last record that was read; without its hash at the beginning
	shown     pairlog.Fork // the last record of which events were given out, or are in entries
	pending   []pairlog.Record
	entries   []Event // of the record being given out
}

// Next returns the next event. It waits for one until ctx ends and then returns ctx's error. ErrMoving says that this
// region may not serve events now (it is fenced); pairlog.ErrBehindTrim that what comes next was removed by retention.
func (r *EventReader) Next(ctx context.Context) (Event, error) {
	for {
		event, ok, err := r.Poll(ctx)
		if ok || err != nil {
			return event, err
		}
		if err := r.wait(ctx); err != nil {
			return Event{}, err
		}
	}
}

// Poll returns the next event if there is one already, else false.
func (r *EventReader) Poll(ctx context.Context) (Event, bool, error) {
	if err := r.readable(); err != nil {
		return Event{}, false, err
	}
	r.followChain()
	for {
		if len(r.entries) > 0 {
			event := r.entries[0]
			r.entries = r.entries[1:]
			return event, true, nil
		}
		if len(r.pending) > 0 {
			rec := r.pending[0]
			r.pending = r.pending[1:]
			r.shown = forkOf(&rec)
			if err := r.decode(&rec); err != nil {
				return Event{}, false, err
			}
			continue
		}
		switch err := r.read(ctx); {
		case errors.Is(err, errOtherChain):
			r.followChain()
			continue
		case err != nil:
			return Event{}, false, err
		case len(r.pending) == 0:
			return Event{}, false, nil
		}
	}
}

// errOtherChain: the log goes on from an earlier record than the last one that was read.
var errOtherChain = errors.New("the log goes on otherwise")

// followChain gives up what is not part of the log any more. After a forced failover it goes on from an earlier record
// than this reader may have reached: the reader goes back there, or it would miss what the new epoch wrote under the same
// record numbers. What it has not given out yet of a tail is never given out.
func (r *EventReader) followChain() {
	branches := r.log.Branches()
	if inChain(branches, r.done) {
		return
	}
	r.pending = nil
	if !inChain(branches, r.shown) {
		r.entries, r.shown = nil, lastInChain(branches, r.shown)
	}
	r.done = r.shown
}

// read fetches the next records.
func (r *EventReader) read(ctx context.Context) error {
	r.followChain()
	_, err := r.log.Read(ctx, r.done.Number, eventReadBytes, func(rec pairlog.Record) error {
		if r.done.Hash != (pairlog.Hash{}) && rec.Header.Prev != r.done.Hash {
			if inChain(r.log.Branches(), r.done) {
				return pairlog.ErrDamaged
			}
			return errOtherChain
		}
		r.pending = append(r.pending, rec)
		r.done = forkOf(&rec)
		return nil
	})
	return err
}

// wait returns when the log has grown, or after a second, so that a reader notices when its region was fenced.
func (r *EventReader) wait(ctx context.Context) error {
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if err := r.log.Wait(short, r.done.Number); err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return nil
}

func (r *EventReader) decode(rec *pairlog.Record) error {
	r.entries = r.entries[:0:0]
	for index, entry := range rec.Entries() {
		if entry.Kind != KindTelemetry {
			continue
		}
		t, err := DecodeTelemetry(entry.Data)
		if err != nil {
			return err
		}
		if r.partition >= 0 && (t.Partition != r.partition || t.Number < r.number) ||
			!r.time.IsZero() && rec.Header.Time.Before(r.time) {
			continue
		}
		message, err := DecodeMessage(t.Message)
		if err != nil {
			return err
		}
		r.entries = append(r.entries, Event{
			Partition: t.Partition, Number: t.Number, Enqueued: rec.Header.Time,
			Device: tandem.DeviceID(t.Device), Generation: string(t.Generation),
			Position: pairlog.Position{Epoch: rec.Header.Epoch, Number: rec.Header.Number, Index: index},
			Message:  message,
		})
	}
	return nil
}

func forkOf(rec *pairlog.Record) pairlog.Fork {
	return pairlog.Fork{Epoch: rec.Header.Epoch, Number: rec.Header.Number, Hash: rec.Header.Hash}
}
