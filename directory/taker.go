package directory

import (
	"context"
	"sync"
	"time"

	"tandem"
)

// A Taker finds out that another incarnation has stopped, and fences it. It believes nothing but its own spaced reads.
// All methods may be called at once; reads of one incarnation should come from one place.
type Taker struct {
	store Store
	clock tandem.Clock
	self  tandem.Incarnation
	ttl   time.Duration

	mu   sync.Mutex // guards rows
	rows map[tandem.Incarnation]row
}

// A row is what was seen of one lease: the count, and its text at the last look.
type row struct {
	Sightings
	text []byte
}

// NewTaker returns a taker that has seen nothing. Self is the incarnation in whose name it fences; ttl is the one all
// nodes use (DefaultTTL when 0).
func NewTaker(store Store, clock tandem.Clock, self tandem.Incarnation, ttl time.Duration) *Taker {
	if ttl == 0 {
		ttl = DefaultTTL
	}
	return &Taker{store: store, clock: clock, self: self, ttl: ttl, rows: make(map[tandem.Incarnation]row)}
}

// A Sighting is what one Observe saw and may conclude.
type Sighting struct {
	Exists    bool // the lease is there
	Lease     Lease
	Revision  Revision
	Fenced    bool          // somebody has fenced it: its holder holds nothing
	Unchanged time.Duration // how long it has certainly stood still
	Lapsed    bool          // it stood still for TTL + LeaseMargin, without a gap in the reads: Fence may follow
}

// Observe reads the lease of an incarnation linearizably and counts what it saw. Call it every TTL/4 or so: a gap of
// more than TTL/2 begins the count anew, and a failed call counts as none.
func (t *Taker) Observe(ctx context.Context, incarnation tandem.Incarnation) (Sighting, error) {
	key, fence := LeaseKey(incarnation), FenceKey(incarnation)
	sent := t.clock.Boot()
	// No key has a negative revision, so this always answers with both items as they are at one moment.
	done, err := t.store.Commit(ctx, Txn{If: []Compare{{Key: key, Revision: -1}, {Key: fence, Revision: -1}}})
	if err != nil {
		return Sighting{}, err
	}
	answered := t.clock.Boot()
	var s Sighting
	var text []byte
	for _, item := range done.Now {
		switch item.Key {
		case fence:
			s.Fenced = true
		case key:
			s.Exists, s.Revision, text = true, item.Revision, item.Value
			if s.Lease, err = DecodeLease(item); err != nil {
				return Sighting{}, err
			}
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	seen := t.rows[incarnation].See(s.Revision, sent, answered, t.ttl)
	t.rows[incarnation] = row{Sightings: seen, text: text}
	s.Unchanged = seen.Unchanged()
	s.Lapsed = seen.Lapsed(answered, t.ttl)
	return s, nil
}

// Fence fences an incarnation whose lease this taker has seen lapse. When it returns nil the fence is durable, whoever
// wrote it, and that incarnation's lease can't be renewed any more.
//
// ErrAlive when the lease has not lapsed by this taker's own count, or was renewed since; a Timeout means that it may
// have happened: call again.
func (t *Taker) Fence(ctx context.Context, incarnation tandem.Incarnation) error {
	t.mu.Lock()
	seen := t.rows[incarnation]
	t.mu.Unlock()
	if !seen.Lapsed(t.clock.Boot(), t.ttl) {
		return ErrAlive
	}
	key, fence := LeaseKey(incarnation), FenceKey(incarnation)
	txn := Txn{
		If:   []Compare{{Key: key, Revision: seen.Revision}, {Key: fence}},
		Then: []Change{{Key: fence, Value: encode(Fence{By: t.self, Lease: seen.Revision})}},
	}
	if seen.Revision > 0 { // written anew as it is, so that the store may send this twice: see Txn.guarded
		txn.Then = append(txn.Then, Change{Key: key, Value: seen.text})
	}
	done, err := t.store.Commit(ctx, txn)
	if err != nil {
		return err
	}
	if !done.OK && !contains(done.Now, fence) {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.rows, incarnation)
		return ErrAlive
	}
	return nil
}

// Forget drops what was seen of an incarnation, once it no longer matters.
func (t *Taker) Forget(incarnation tandem.Incarnation) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.rows, incarnation)
}

// FenceFormer fences an incarnation without waiting. Only who knows that it has ended may call it: a restarted node that
// holds the lock of its own data directory, for the incarnation that held it before; or an incarnation for itself. When
// it returns nil the fence is durable; it is no error when it was fenced before. After a Timeout call again.
func FenceFormer(ctx context.Context, store Store, former, by tandem.Incarnation) error {
	key := FenceKey(former)
	_, err := store.Commit(ctx, Txn{ // refused: somebody else's fence is there, which is as good
		If:   []Compare{{Key: key}},
		Then: []Change{{Key: key, Value: encode(Fence{By: by})}},
	})
	return err
}

func contains(items []Item, key string) bool {
	for _, item := range items {
		if item.Key == key {
			return true
		}
	}
	return false
}
