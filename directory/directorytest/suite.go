// Package directorytest is what every directory.Store does, as one test suite, with a clock that tests turn by hand and
// certificates for members on loopback.
package directorytest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"tandem"
	"tandem/directory"
)

// Run runs the suite. Open returns a store that nobody else writes to; it is called once per test.
func Run(t *testing.T, open func(t testing.TB) directory.Store) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, directory.Store)
	}{
		{"absent", testAbsent},
		{"compare and set", testCompareAndSet},
		{"all or nothing", testAllOrNothing},
		{"list", testList},
		{"compare only", testCompareOnly},
		{"deleted key", testDeletedKey},
		{"limits", testLimits},
		{"ended context", testEndedContext},
		{"counter", testCounter},
		{"watch order", testWatchOrder},
		{"watch from now", testWatchFromNow},
		{"watch ends", testWatchEnds},
		{"slow reader", testSlowReader},
		{"lease", testLease},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

// Set sets keys unconditionally ("key=value") and returns the revision.
func Set(t testing.TB, store directory.Store, pairs ...string) directory.Revision {
	t.Helper()
	var txn directory.Txn
	for _, pair := range pairs {
		key, value, _ := strings.Cut(pair, "=")
		txn.Then = append(txn.Then, directory.Change{Key: key, Value: []byte(value)})
	}
	return commit(t, store, txn, true).Revision
}

func commit(t testing.TB, store directory.Store, txn directory.Txn, want bool) directory.Committed {
	t.Helper()
	done, err := store.Commit(t.Context(), txn)
	if err != nil {
		t.Fatalf("Commit: %v", err)
	}
	if done.OK != want {
		t.Fatalf("Commit = %+v, want OK %t", done, want)
	}
	return done
}

func kind(t testing.TB, err error, want tandem.Kind) {
	t.Helper()
	var e *tandem.Error
	if !errors.As(err, &e) || e.Kind != want {
		t.Fatalf("error %v, want kind %q", err, want)
	}
}

func get(t testing.TB, store directory.Store, key string) directory.Item {
	t.Helper()
	item, err := store.Get(t.Context(), key)
	if err != nil {
		t.Fatalf("Get(%s): %v", key, err)
	}
	return item
}

func testAbsent(t *testing.T, store directory.Store) {
	_, err := store.Get(t.Context(), "pen/a")
	if !errors.Is(err, directory.ErrNotFound) {
		t.Fatalf("Get of an absent key: %v", err)
	}
	items, _, err := store.List(t.Context(), "pen/")
	if err != nil || len(items) != 0 {
		t.Fatalf("List = %v, %v", items, err)
	}
}

func testCompareAndSet(t *testing.T, store directory.Store) {
	create := directory.Txn{
		If:   []directory.Compare{{Key: "pen/a"}},
		Then: []directory.Change{{Key: "pen/a", Value: []byte("one")}},
	}
	first := commit(t, store, create, true)
	refused := commit(t, store, create, false)
	want := directory.Item{Key: "pen/a", Value: []byte("one"), Revision: first.Revision}
	if len(refused.Now) != 1 || !same(refused.Now[0], want) || refused.Revision < first.Revision {
		t.Fatalf("refused = %+v, want the present item %+v", refused, want)
	}
	second := commit(t, store, directory.Txn{
		If:   []directory.Compare{{Key: "pen/a", Revision: first.Revision}, {Key: "fence/x"}},
		Then: []directory.Change{{Key: "pen/a", Value: []byte("two")}},
	}, true)
	if second.Revision <= first.Revision {
		t.Fatalf("revision %d after %d", second.Revision, first.Revision)
	}
	if got := get(t, store, "pen/a"); !same(got, directory.Item{Key: "pen/a", Value: []byte("two"), Revision: second.Revision}) {
		t.Fatalf("Get = %+v", got)
	}
}

func testAllOrNothing(t *testing.T, store directory.Store) {
	Set(t, store, "a=1")
	refused := commit(t, store, directory.Txn{
		If:   []directory.Compare{{Key: "a"}, {Key: "b"}, {Key: "a", Revision: 1 << 40}},
		Then: []directory.Change{{Key: "c", Value: []byte("x")}, {Key: "a", Delete: true}},
	}, false)
	if len(refused.Now) != 1 || refused.Now[0].Key != "a" {
		t.Fatalf("Now = %+v, want a alone, once", refused.Now)
	}
	items, _, err := store.List(t.Context(), "")
	if err != nil || len(items) != 1 || items[0].Key != "a" {
		t.Fatalf("List = %+v, %v: something was changed", items, err)
	}
	moved := commit(t, store, directory.Txn{Then: []directory.Change{
		{Key: "a", Delete: true}, {Key: "b", Value: []byte("2")}, {Key: "c", Value: nil},
	}}, true)
	items, revision, err := store.List(t.Context(), "")
	if err != nil || len(items) != 2 || items[0].Revision != moved.Revision || items[1].Revision != moved.Revision {
		t.Fatalf("List = %+v, %v, want b and c at revision %d", items, err, moved.Revision)
	}
	if revision < moved.Revision {
		t.Fatalf("listed at %d, before the commit's own %d", revision, moved.Revision)
	}
}

func testList(t *testing.T, store directory.Store) {
	Set(t, store, "hub/b=2", "hub/a=1", "hubop/x=9", "hub/c/d=3", "pen/a=4")
	items, _, err := store.List(t.Context(), "hub/")
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, item := range items {
		keys = append(keys, item.Key+"="+string(item.Value))
	}
	if want := []string{"hub/a=1", "hub/b=2", "hub/c/d=3"}; !slices.Equal(keys, want) {
		t.Fatalf("List = %v, want %v", keys, want)
	}
}

func testCompareOnly(t *testing.T, store directory.Store) {
	revision := Set(t, store, "a=1")
	commit(t, store, directory.Txn{If: []directory.Compare{{Key: "a", Revision: revision}, {Key: "b"}}}, true)
	refused := commit(t, store, directory.Txn{If: []directory.Compare{{Key: "a", Revision: -1}, {Key: "b", Revision: -1}}}, false)
	if len(refused.Now) != 1 || string(refused.Now[0].Value) != "1" {
		t.Fatalf("Now = %+v", refused.Now)
	}
}

func testDeletedKey(t *testing.T, store directory.Store) {
	first := Set(t, store, "a=1")
	commit(t, store, directory.Txn{Then: []directory.Change{{Key: "a", Delete: true}, {Key: "b", Delete: true}}}, true)
	if _, err := store.Get(t.Context(), "a"); !errors.Is(err, directory.ErrNotFound) {
		t.Fatalf("Get of a deleted key: %v", err)
	}
	again := commit(t, store, directory.Txn{
		If:   []directory.Compare{{Key: "a"}},
		Then: []directory.Change{{Key: "a", Value: []byte("1")}},
	}, true)
	if again.Revision <= first {
		t.Fatalf("revision %d of the key made anew, %d before", again.Revision, first)
	}
	commit(t, store, directory.Txn{
		If: []directory.Compare{{Key: "a", Revision: first}}, Then: []directory.Change{{Key: "a", Delete: true}},
	}, false)
}

func testLimits(t *testing.T, store directory.Store) {
	many := directory.Txn{}
	for i := range directory.MaxTxnParts {
		many.Then = append(many.Then, directory.Change{Key: "k/" + strconv.Itoa(i)})
	}
	commit(t, store, many, true)
	compares := directory.Txn{}
	for i := range directory.MaxTxnParts {
		compares.If = append(compares.If, directory.Compare{Key: "k/" + strconv.Itoa(i)})
	}
	if refused := commit(t, store, compares, false); len(refused.Now) != directory.MaxTxnParts {
		t.Fatalf("%d present items", len(refused.Now))
	}
	many.If = []directory.Compare{{Key: "x"}}
	_, err := store.Commit(t.Context(), many)
	kind(t, err, tandem.TooLarge)
	large := func(n int) directory.Txn {
		return directory.Txn{Then: []directory.Change{{Key: "large", Value: make([]byte, n)}}}
	}
	commit(t, store, large(directory.MaxBytes-len("large")), true)
	if got := get(t, store, "large"); len(got.Value) != directory.MaxBytes-len("large") {
		t.Fatalf("read %d bytes back", len(got.Value))
	}
	_, err = store.Commit(t.Context(), large(directory.MaxBytes))
	kind(t, err, tandem.TooLarge)
	for _, txn := range []directory.Txn{
		{},
		{Then: []directory.Change{{Key: ""}}},
		{Then: []directory.Change{{Key: "/a"}}},
		{Then: []directory.Change{{Key: "a"}, {Key: "a", Delete: true}}},
	} {
		_, err = store.Commit(t.Context(), txn)
		kind(t, err, tandem.Invalid)
	}
	_, err = store.Get(t.Context(), "")
	kind(t, err, tandem.Invalid)
}

func testEndedContext(t *testing.T, store directory.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := store.Commit(ctx, directory.Txn{Then: []directory.Change{{Key: "a"}}})
	kind(t, err, tandem.Unavailable)
	_, err = store.Get(ctx, "a")
	kind(t, err, tandem.Unavailable)
	_, _, err = store.List(ctx, "a")
	kind(t, err, tandem.Unavailable)
	if _, err = store.Get(t.Context(), "a"); !errors.Is(err, directory.ErrNotFound) {
		t.Fatalf("a commit whose context had ended happened: %v", err)
	}
}

func testCounter(t *testing.T, store directory.Store) {
	const writers, each = 8, 10
	Set(t, store, "n=0")
	var lanes sync.WaitGroup
	for range writers {
		lanes.Go(func() {
			for range each {
				if err := increment(t.Context(), store); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	lanes.Wait()
	if got := string(get(t, store, "n").Value); got != strconv.Itoa(writers*each) {
		t.Fatalf("counted %s, want %d", got, writers*each)
	}
}

func increment(ctx context.Context, store directory.Store) error {
	item, err := store.Get(ctx, "n")
	for err == nil {
		n, _ := strconv.Atoi(string(item.Value))
		var done directory.Committed
		done, err = store.Commit(ctx, directory.Txn{
			If:   []directory.Compare{{Key: "n", Revision: item.Revision}},
			Then: []directory.Change{{Key: "n", Value: []byte(strconv.Itoa(n + 1))}},
		})
		if err == nil && done.OK {
			return nil
		}
		if err == nil {
			item = done.Now[0]
		}
	}
	return err
}

func testWatchOrder(t *testing.T, store directory.Store) {
	before := Set(t, store, "w/a=0")
	Set(t, store, "w/a=1", "other=x")
	past := store.Watch(t.Context(), "w/", before)
	Set(t, store, "w/a=2", "w/b=3")
	commit(t, store, directory.Txn{Then: []directory.Change{{Key: "w/a", Delete: true}}}, true)
	last := before
	var got []string
	for range 4 {
		event := next(t, past)
		if event.Item.Revision < last {
			t.Fatalf("revision %d after %d", event.Item.Revision, last)
		}
		last = event.Item.Revision
		text := fmt.Sprintf("%s=%s", event.Item.Key, event.Item.Value)
		if event.Deleted {
			text = event.Item.Key + " gone"
		}
		got = append(got, text)
	}
	if want := []string{"w/a=1", "w/a=2", "w/b=3", "w/a gone"}; !slices.Equal(got, want) {
		t.Fatalf("watched %q, want %q", got, want)
	}
}

func testWatchFromNow(t *testing.T, store directory.Store) {
	Set(t, store, "w/a=old")
	events := store.Watch(t.Context(), "w/", 0)
	revision := Set(t, store, "w/a=new") // after Watch has returned: it must be seen
	if event := next(t, events); string(event.Item.Value) != "new" || event.Item.Revision != revision {
		t.Fatalf("first event %+v, want new at %d", event, revision)
	}
}

func testWatchEnds(t *testing.T, store directory.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	events := store.Watch(ctx, "w/", 0)
	cancel()
	closed(t, events)
}

func testSlowReader(t *testing.T, store directory.Store) {
	events := store.Watch(t.Context(), "w/", 0)
	txn := directory.Txn{}
	for i := range 100 {
		txn.Then = append(txn.Then, directory.Change{Key: "w/" + strconv.Itoa(i)})
	}
	for range 45 {
		commit(t, store, txn, true)
	}
	deadline := time.After(10 * time.Second)
	for len(events) < 4096 {
		select {
		case <-deadline:
			t.Fatalf("%d events waiting, want 4096", len(events))
		case <-time.After(time.Millisecond):
		}
	}
	closed(t, events)
}

func testLease(t *testing.T, store directory.Store) {
	clock := NewClock()
	a := directory.NewHolder(store, clock, directory.HolderOptions{Incarnation: "a"})
	if err := a.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	term := a.Term()
	taker := directory.NewTaker(store, clock, "b", 0)
	for range 6 {
		if err := taker.Fence(t.Context(), "a"); !errors.Is(err, directory.ErrAlive) {
			t.Fatalf("Fence of a living holder: %v", err)
		}
		if _, err := taker.Observe(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		clock.Advance(directory.DefaultTTL / 4)
	}
	if term.Valid() {
		t.Fatal("valid after the TTL")
	}
	if s, err := taker.Observe(t.Context(), "a"); err != nil || !s.Lapsed || s.Lease.Incarnation != "a" {
		t.Fatalf("Observe = %+v, %v, want lapsed", s, err)
	}
	if err := taker.Fence(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if err := a.Renew(t.Context()); !errors.Is(err, directory.ErrFenced) {
		t.Fatalf("Renew after the fence: %v", err)
	}
	if s, err := taker.Observe(t.Context(), "a"); err != nil || !s.Fenced {
		t.Fatalf("Observe = %+v, %v, want fenced", s, err)
	}
}

func same(a, b directory.Item) bool {
	return a.Key == b.Key && string(a.Value) == string(b.Value) && a.Revision == b.Revision
}

func next(t *testing.T, events <-chan directory.Event) directory.Event {
	t.Helper()
	select {
	case event, ok := <-events:
		if !ok {
			t.Fatal("the watch was closed")
		}
		return event
	case <-time.After(10 * time.Second):
		t.Fatal("no event")
	}
	panic("unreachable")
}

// closed reads what is left and fails unless the channel is closed then.
func closed(t *testing.T, events <-chan directory.Event) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		select {
		case _, ok := <-events:
			if !ok {
				return
			}
		case <-deadline:
			t.Fatal("the watch was not closed")
		}
	}
}
