package hub

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// Check recomputes every bucket of the root and the counts from the devices, for the scrub: kind Damaged when the view
// does not hold what it folded. Folding goes on meanwhile.
func (v *View) Check(ctx context.Context) error {
	v.keeping.Lock()
	defer v.keeping.Unlock()
	v.folding.Lock()
	if err := v.usable(); err != nil {
		v.folding.Unlock()
		return err
	}
	frozen := v.db.NewSnapshot()
	v.folding.Unlock()
	s, err := loadState(frozen, string(v.o.Hub), v.o.Partitions)
	if err == nil {
		err = s.check(ctx, frozen)
	}
	return errors.Join(err, frozen.Close())
}

// check compares the state with the devices in db.
func (s *state) check(ctx context.Context, db pebble.Reader) error {
	again := new(buckets)
	h := newHasher(s.rootKey)
	var counts meta
	err := scan(db, []byte{keyDevice}, []byte{keyDevice + 1}, func(key, value []byte) error {
		if !stored(value).ok() {
			return damagedView("a device does not decode")
		}
		n, mark := bucketOf(key[1:])
		again.change(n, sum{}, h.device(key[1:], value))
		again.count(n, mark, false, true)
		if counts.count(value, 1); counts.total%1024 == 0 {
			return ctx.Err()
		}
		return nil
	})
	if err != nil {
		return err
	}
	for n := range rootBuckets {
		want, wantMarks := again.bucket(uint16(n))
		got, gotMarks := s.buckets.bucket(uint16(n))
		slices.Sort(wantMarks)
		if got != want || !slices.Equal(wantMarks, slices.Sorted(slices.Values(gotMarks))) {
			return damagedView(fmt.Sprintf("bucket %d of the root differs from the devices in it", n))
		}
	}
	if counts.total != s.meta.total || counts.disabled != s.meta.disabled {
		return damagedView("the counts differ from the devices")
	}
	return nil
}
