// Package directory holds what both regions and the witness must agree on: resources, pens, leases, fences, in-sync
// sets, revocations and operations. It is small and linearizable: a transaction either happened for everybody or for
// nobody.
//
// Store is the contract. Etcd keeps it on embedded etcd (this package is etcd's only importer), one member per site;
// Memory is its twin for tests. A Holder proves by its Lease that its node lives, in Terms that end when it can't; a
// Taker concludes that another's does not, and fences it. The goroutine that keeps a lease is started by package region.
package directory

import (
	"context"

	"tandem"
)

// A Revision is the directory's own count of changes. Every change has a larger one than the change before it.
type Revision int64

// An Item is one key with its value at a revision.
type Item struct {
	Key      string
	Value    []byte
	Revision Revision // of the last change of this key; 0 in a compare means "the key does not exist"
}

// A Compare is a condition of a transaction: the key's revision is exactly this one (0: the key is absent).
type Compare struct {
	Key      string
	Revision Revision
}

// A Change sets a key, or deletes it when Delete is set.
type Change struct {
	Key    string
	Value  []byte
	Delete bool
}

// A Txn is a set of conditions and the changes to make when all of them hold. At most 128 of both together.
type Txn struct {
	If   []Compare
	Then []Change
}

// A Committed tells what became of a transaction.
type Committed struct {
	// OK is true when all conditions held and the changes were made, durably on a majority.
	OK bool
	// Revision of the changes when OK, else of the directory when it refused.
	Revision Revision
	// Now holds the present item of every compared key when not OK; absent keys are left out.
	Now []Item
}

// An Event is one change seen by a watch, in order of revision. Item.Revision is the change's; Deleted items carry no value.
type Event struct {
	Item    Item
	Deleted bool
}

// Store is the directory as every other package sees it. Keys are relative to the installation's prefix, which the
// implementation adds; they are made of path segments joined by '/', no leading slash ("pen/9f2c…").
//
// Every call may be made by many goroutines at once. Errors are *tandem.Error: Unavailable when there is no majority
// or the deadline passed before the request was sent, Timeout when the outcome is unknown, TooLarge beyond 1 MiB.
// A failed read is always Unavailable. Invalid is a key that is empty or begins with '/', a key changed twice, or a
// transaction without conditions and changes; Full a directory beyond its quota. A context without a deadline gets 2 s.
type Store interface {
	// Get reads one key, linearizably. ErrNotFound when it is absent.
	Get(ctx context.Context, key string) (Item, error)
	// List reads all keys that begin with prefix, linearizably, in key order, with the revision at which they were read.
	List(ctx context.Context, prefix string) ([]Item, Revision, error)
	// Commit carries out a transaction. A nil error with OK false is a definite "no"; a Timeout error is a "don't know".
	Commit(ctx context.Context, txn Txn) (Committed, error)
	// Watch delivers every change under prefix after revision from (0: from now on) in order, until ctx ends or the
	// directory no longer has that far back; then the channel is closed and the caller lists again.
	// The channel is buffered; a reader that falls behind by more than 4096 events is closed too.
	Watch(ctx context.Context, prefix string, from Revision) <-chan Event
}

// ErrNotFound is returned by Get for a key that does not exist.
var ErrNotFound = &tandem.Error{Op: "read the directory", Kind: tandem.NotFound}
