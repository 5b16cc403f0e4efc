package hub

import (
	"runtime"
	"testing"
)

// A node has many hubs: one without devices takes next to nothing, and its root is that of all its zeros.
func TestEmptyBucketsAreSmall(t *testing.T) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	states := make([]*state, 20)
	for i := range states {
		states[i] = &state{buckets: new(buckets), doors: map[DoorID]doorMark{}}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if each := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / int64(len(states)); each > 32<<10 {
		t.Errorf("a hub without devices takes %d bytes", each)
	}
	full, one := states[0], states[1]
	for n := range rootBuckets { // pages that exist and are empty
		full.buckets.change(uint16(n), sum{}, sum{})
	}
	if full.root() != one.root() {
		t.Error("a page of zeros and no page differ in the root")
	}
	one.buckets.change(70, sum{}, sum{1})
	if full.root() == one.root() {
		t.Error("the root does not see a device")
	}
	one.buckets.change(70, sum{1}, sum{})
	if full.root() != one.root() {
		t.Error("the root does not forget a device")
	}
	runtime.KeepAlive(states)
}
