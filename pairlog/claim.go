package pairlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	"tandem"
	"tandem/directory"
)

var (
	// ErrNoPen: nobody has claimed the hub's pen yet.
	ErrNoPen = &tandem.Error{Op: "read the pen", Kind: tandem.NotFound}
	// ErrClaimLost: the pen, the in-sync set or a fence is not what the claimant saw; read them again.
	ErrClaimLost = &tandem.Error{Op: "claim the pen", Kind: tandem.Conflict}
)

// ReadPen reads a hub's pen, linearizably. ErrNoPen when the hub has none yet.
func ReadPen(ctx context.Context, dir directory.Store, hub tandem.HubID) (Pen, directory.Revision, error) {
	var pen Pen
	rev, err := readJSON(ctx, dir, directory.PenKey(hub), &pen)
	if errors.Is(err, directory.ErrNotFound) {
		return Pen{}, 0, fmt.Errorf("hub %s: %w", hub, ErrNoPen)
	}
	return pen, rev, err
}

// A Claim is a pen that somebody wants, and what he saw when he decided so.
type Claim struct {
	Pen Pen // State is set to claimed, or open with Open
	// Open skips the claimed state: for who has the whole chain, so that nothing can be gained by taking the claim back.
	Open bool
	// From is the epoch of the pen that was read with PenRevision; when 0 it is read again here.
	From           tandem.Epoch
	PenRevision    directory.Revision // of the pen as read; 0: the hub's first
	InSyncRevision directory.Revision // of the in-sync set as read; 0: there is none
	InSync         *InSyncSet         // what the set becomes with the claim; nil leaves it
	Fenced         tandem.Incarnation // forced: fence/<it> must exist
	Self           tandem.Incarnation // fence/<it> must be absent
}

// ClaimPen takes the pen by compare-and-set over pen, in-sync set and fences. On success the pen is claimed, durably,
// and the returned revision is the pen's. ErrClaimLost when somebody else was first or a fence is not as it must be;
// Timeout means unknown: read the pen again and compare.
func ClaimPen(ctx context.Context, dir directory.Store, c Claim) (Pen, directory.Revision, error) {
	c.Pen.State = PenClaimed
	if c.Open {
		c.Pen.State = PenOpen
	}
	if c.From >= c.Pen.Epoch {
		return Pen{}, 0, fmt.Errorf("hub %s is at epoch %d: %w", c.Pen.Hub, c.From, ErrClaimLost)
	}
	n := len(c.Pen.Forks)
	if c.Pen.Epoch == 0 || n > 0 && (c.Pen.Forks[n-1].Epoch != c.Pen.Epoch || c.Pen.Forks[n-1].Fork != c.Pen.Fork) {
		return Pen{}, 0, &tandem.Error{Op: "claim the pen", Kind: tandem.Invalid, On: string(c.Pen.Hub),
			Err: errors.New("the last of the forks is not the pen's own")}
	}
	value, err := json.Marshal(c.Pen)
	if err != nil {
		return Pen{}, 0, &tandem.Error{Op: "claim the pen", Kind: tandem.Invalid, On: string(c.Pen.Hub), Err: err}
	}
	txn := directory.Txn{
		If: []directory.Compare{
			{Key: directory.PenKey(c.Pen.Hub), Revision: c.PenRevision},
			{Key: directory.InSyncKey(c.Pen.Hub), Revision: c.InSyncRevision},
		},
		Then: []directory.Change{{Key: directory.PenKey(c.Pen.Hub), Value: value}},
	}
	if c.PenRevision != 0 && c.From == 0 { // an epoch is never used twice and never falls
		old, rev, err := ReadPen(ctx, dir, c.Pen.Hub)
		if err != nil {
			return Pen{}, 0, err
		}
		if rev != c.PenRevision || old.Epoch >= c.Pen.Epoch {
			return Pen{}, 0, fmt.Errorf("hub %s is at epoch %d: %w", c.Pen.Hub, old.Epoch, ErrClaimLost)
		}
	}
	if c.Self != "" {
		txn.If = append(txn.If, directory.Compare{Key: directory.FenceKey(c.Self)})
	}
	if c.Fenced != "" { // a fence is written once: its revision stays
		item, err := dir.Get(ctx, directory.FenceKey(c.Fenced))
		if errors.Is(err, directory.ErrNotFound) {
			return Pen{}, 0, fmt.Errorf("%s is not fenced: %w", c.Fenced, ErrClaimLost)
		} else if err != nil {
			return Pen{}, 0, err
		}
		txn.If = append(txn.If, directory.Compare{Key: item.Key, Revision: item.Revision})
	}
	if c.InSync != nil {
		value, err := json.Marshal(c.InSync)
		if err != nil {
			return Pen{}, 0, &tandem.Error{Op: "claim the pen", Kind: tandem.Invalid, On: string(c.Pen.Hub), Err: err}
		}
		txn.Then = append(txn.Then, directory.Change{Key: directory.InSyncKey(c.Pen.Hub), Value: value})
	}
	done, err := dir.Commit(ctx, txn)
	if err != nil {
		return Pen{}, 0, err
	}
	if !done.OK {
		return Pen{}, 0, fmt.Errorf("hub %s: %w", c.Pen.Hub, ErrClaimLost)
	}
	return c.Pen, done.Revision, nil
}

// OpenPen marks a claimed pen as open: from then on its holder may answer, and nobody takes the next epoch without
// fencing or asking it. It compares the pen's revision and that the holder is not fenced: ErrClaimLost.
func OpenPen(ctx context.Context, dir directory.Store, pen Pen, rev directory.Revision) (directory.Revision, error) {
	pen.State = PenOpen
	value, err := json.Marshal(pen)
	if err != nil {
		return 0, &tandem.Error{Op: "open the pen", Kind: tandem.Invalid, On: string(pen.Hub), Err: err}
	}
	done, err := dir.Commit(ctx, directory.Txn{
		If: []directory.Compare{
			{Key: directory.PenKey(pen.Hub), Revision: rev},
			{Key: directory.FenceKey(pen.Incarnation)},
		},
		Then: []directory.Change{{Key: directory.PenKey(pen.Hub), Value: value}},
	})
	if err != nil {
		return 0, err
	}
	if !done.OK {
		return 0, fmt.Errorf("open the pen of hub %s: %w", pen.Hub, ErrClaimLost)
	}
	return done.Revision, nil
}

// InSyncSet is the regions whose copy has every acknowledged write of a hub. It lives in the directory under insync/<hub>.
type InSyncSet struct {
	Regions []tandem.RegionName `json:"regions"`
	Mode    Mode                `json:"mode"`
}

// Contains reports whether r is in the set.
func (s InSyncSet) Contains(r tandem.RegionName) bool { return slices.Contains(s.Regions, r) }

// ReadInSync reads a hub's in-sync set; an absent one is empty, with revision 0.
func ReadInSync(ctx context.Context, dir directory.Store, hub tandem.HubID) (InSyncSet, directory.Revision, error) {
	var set InSyncSet
	rev, err := readJSON(ctx, dir, directory.InSyncKey(hub), &set)
	if errors.Is(err, directory.ErrNotFound) {
		return InSyncSet{}, 0, nil
	}
	return set, rev, err
}

// DirectoryInSync changes a hub's in-sync set under a pen. It remembers what the directory held when last seen.
type DirectoryInSync struct {
	dir  directory.Store
	hub  tandem.HubID
	self tandem.Incarnation

	one sync.Mutex // one change at a time
	mu  sync.Mutex
	pen directory.Revision
	set InSyncSet
}

// NewInSync returns the in-sync set as the holder of pen sees it. penRevision is the pen's (SetPen after OpenPen), self
// the holder's incarnation, which must not be fenced. Load reads the set first.
func NewInSync(dir directory.Store, hub tandem.HubID, pen Pen, penRevision directory.Revision, self tandem.Incarnation) *DirectoryInSync {
	if self == "" {
		self = pen.Incarnation
	}
	return &DirectoryInSync{dir: dir, hub: hub, self: self, pen: penRevision}
}

// SetPen tells the pen's new revision, after OpenPen.
func (d *DirectoryInSync) SetPen(rev directory.Revision) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pen = rev
}

// Load reads the set from the directory.
func (d *DirectoryInSync) Load(ctx context.Context) (InSyncSet, error) {
	set, _, err := ReadInSync(ctx, d.dir, d.hub)
	if err != nil {
		return InSyncSet{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.set = set
	return set, nil
}

// Contains reports whether r was in the set when last seen. Only the holder changes the set, so it does not go stale
// under a valid pen.
func (d *DirectoryInSync) Contains(r tandem.RegionName) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.set.Contains(r)
}

// Remove takes r out of the set. After nil the holder may answer alone; after ErrFenced it may not answer at all.
func (d *DirectoryInSync) Remove(ctx context.Context, r tandem.RegionName) error {
	return d.change(ctx, func(s *InSyncSet) {
		s.Regions = slices.DeleteFunc(slices.Clone(s.Regions), func(x tandem.RegionName) bool { return x == r })
	})
}

// Add puts r into the set. The holder must wait for r's acknowledgements from before the call on.
func (d *DirectoryInSync) Add(ctx context.Context, r tandem.RegionName) error {
	return d.change(ctx, func(s *InSyncSet) {
		if !s.Contains(r) {
			s.Regions = append(slices.Clone(s.Regions), r)
		}
	})
}

func (d *DirectoryInSync) change(ctx context.Context, edit func(*InSyncSet)) error {
	const op = "change the in-sync set"
	d.one.Lock()
	defer d.one.Unlock()
	set, rev, err := ReadInSync(ctx, d.dir, d.hub)
	if err != nil {
		return err
	}
	edit(&set)
	value, err := json.Marshal(set)
	if err != nil {
		return &tandem.Error{Op: op, Kind: tandem.Invalid, On: string(d.hub), Err: err}
	}
	d.mu.Lock()
	pen := d.pen
	d.mu.Unlock()
	done, err := d.dir.Commit(ctx, directory.Txn{
		If: []directory.Compare{
			{Key: directory.PenKey(d.hub), Revision: pen},
			{Key: directory.InSyncKey(d.hub), Revision: rev},
			{Key: directory.FenceKey(d.self)},
		},
		Then: []directory.Change{{Key: directory.InSyncKey(d.hub), Value: value}},
	})
	if err != nil {
		return err
	}
	if !done.OK {
		return &tandem.Error{Op: op, Kind: tandem.Fenced, On: string(d.hub), Err: ErrFenced}
	}
	d.mu.Lock()
	d.set = set
	d.mu.Unlock()
	return nil
}

func readJSON(ctx context.Context, dir directory.Store, key string, into any) (directory.Revision, error) {
	item, err := dir.Get(ctx, key)
	if err != nil {
		return 0, err
	}
	if err := json.Unmarshal(item.Value, into); err != nil {
		return 0, &tandem.Error{Op: "read the directory", Kind: tandem.Damaged, On: key, Err: err}
	}
	return item.Revision, nil
}
