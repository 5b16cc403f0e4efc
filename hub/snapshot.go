package hub

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tandem"
	"tandem/pairlog"

	"github.com/cockroachdb/pebble/v2"
)

// SnapshotInfo describes a snapshot: the view as it was after one record, in a directory of its own.
type SnapshotInfo struct {
	Fork     pairlog.Fork `json:"fork"` // the last record in it
	Root     pairlog.Hash `json:"root"`
	Bytes    int64        `json:"bytes"` // on disk, most of it shared with the live view at first
	Complete bool         `json:"complete"`
	Time     time.Time    `json:"time"` // of that record
}

// A snapshot's directory is named after its position; it counts once completeName lies in it.
const (
	completeName = "COMPLETE"
	partial      = ".partial"
)

func (v *View) snapshots() string { return filepath.Join(v.o.Dir, "snapshots") }

func (i *SnapshotInfo) name() string { return fmt.Sprintf("%d-%d", i.Fork.Number, i.Fork.Epoch) }

func snapshotFailed(err error) error {
	if err == nil {
		return nil
	}
	kind := tandem.Internal
	if k := tandem.KindOf(err); k != tandem.Internal {
		kind = k
	}
	return &tandem.Error{Op: "take a snapshot", Kind: kind, Err: err}
}

// Snapshot writes the view as of now, or a moment later, beside the live one: flush, checkpoint, reopen, compare position and
// root, and only then the mark that makes it complete, everything synced. Folding goes on meanwhile but for the instant that
// names the position (if the view changes too fast for that, for the length of a flush). An equal complete one is returned
// as it is. Kind Damaged when the copy does not hold what the view holds.
func (v *View) Snapshot(ctx context.Context) (SnapshotInfo, error) {
	v.keeping.Lock()
	defer v.keeping.Unlock()
	if err := v.usable(); err != nil {
		return SnapshotInfo{}, err
	}
	for try := 1; ; try++ {
		if err := ctx.Err(); err != nil {
			return SnapshotInfo{}, &tandem.Error{Op: "take a snapshot", Kind: tandem.Timeout, Err: err}
		}
		info, err := v.snapshotOnce(ctx, try == 3)
		if !errors.Is(err, errMovedOn) {
			return info, snapshotFailed(err)
		}
	}
}

// errMovedOn: between naming the position and the copy a later state reached the disk.
var errMovedOn = errors.New("the view moved on")

func (v *View) snapshotOnce(ctx context.Context, still bool) (SnapshotInfo, error) {
	name := v.namePosition
	if still {
		v.folding.Lock()
		defer v.folding.Unlock()
		name = v.namePositionLocked
	}
	want, flushed, known, err := name()
	if err != nil || known {
		return want, err
	}
	<-flushed
	dir := filepath.Join(v.snapshots(), want.name()+partial)
	if err := os.RemoveAll(dir); err != nil {
		return SnapshotInfo{}, err
	}
	if err := v.db.Checkpoint(dir); err != nil {
		return SnapshotInfo{}, errors.Join(err, os.RemoveAll(dir))
	}
	got, err := v.inspect(ctx, dir, false)
	if err == nil && got.Fork != want.Fork && got.Fork.Number > want.Fork.Number {
		err = errMovedOn
	}
	if err == nil && (got.Fork != want.Fork || got.Root != want.Root) {
		err = damagedView("the snapshot differs from the view")
	}
	if err != nil {
		return SnapshotInfo{}, errors.Join(err, os.RemoveAll(dir))
	}
	return v.complete(dir, got)
}

func (v *View) namePosition() (want SnapshotInfo, flushed <-chan struct{}, known bool, err error) {
	v.folding.Lock()
	defer v.folding.Unlock()
	return v.namePositionLocked()
}

// namePositionLocked tells what the view holds now and starts to flush it, unless there is a complete snapshot of it.
func (v *View) namePositionLocked() (want SnapshotInfo, flushed <-chan struct{}, known bool, err error) {
	if err := v.usable(); err != nil {
		return want, nil, false, err
	}
	want = SnapshotInfo{Fork: v.Applied(), Root: v.Root(), Time: v.AppliedTime()}
	for _, s := range v.Snapshots() {
		if s.Fork == want.Fork {
			return s, nil, true, nil
		}
	}
	flushed, err = v.db.AsyncFlush()
	return want, flushed, false, err
}

// inspect opens a copy of a view for reading and tells what it holds; with all set it also recomputes the root.
func (v *View) inspect(ctx context.Context, dir string, all bool) (SnapshotInfo, error) {
	o := v.pebbleOptions()
	o.ReadOnly = true
	db, err := pebble.Open(dir, o)
	if err != nil {
		return SnapshotInfo{}, &tandem.Error{Op: "open a snapshot", Kind: tandem.Damaged, On: dir, Err: err}
	}
	s, err := loadState(db, string(v.o.Hub), v.o.Partitions)
	if err == nil && all {
		err = s.check(ctx, db)
	}
	if err = errors.Join(err, db.Close()); err != nil {
		return SnapshotInfo{}, err
	}
	info := SnapshotInfo{Fork: s.meta.fork, Root: s.root(), Time: recordTime(s.meta.time)}
	files, err := os.ReadDir(dir)
	for _, f := range files {
		if fi, failed := f.Info(); failed == nil {
			info.Bytes += fi.Size()
		}
	}
	return info, err
}

// complete marks a verified copy and gives it its name. keeping is held.
func (v *View) complete(dir string, info SnapshotInfo) (SnapshotInfo, error) {
	info.Complete = true
	mark, err := json.Marshal(info)
	if err != nil {
		return SnapshotInfo{}, err
	}
	final := filepath.Join(v.snapshots(), info.name())
	err = errors.Join(os.RemoveAll(final), syncDir(dir))
	if err == nil {
		err = writeSynced(filepath.Join(dir, completeName), mark)
	}
	if err == nil {
		err = errors.Join(syncDir(dir), os.Rename(dir, final), syncDir(v.snapshots()))
	}
	if err != nil {
		return SnapshotInfo{}, err
	}
	snaps := slices.DeleteFunc(v.Snapshots(), func(s SnapshotInfo) bool { return s.name() == info.name() })
	v.setSnapshots(append(snaps, info))
	return info, nil
}

func (v *View) setSnapshots(snaps []SnapshotInfo) {
	slices.SortFunc(snaps, func(a, b SnapshotInfo) int {
		return cmp.Or(cmp.Compare(a.Fork.Number, b.Fork.Number), cmp.Compare(a.Fork.Epoch, b.Fork.Epoch))
	})
	v.mu.Lock()
	defer v.mu.Unlock()
	v.snaps = snaps
}

// findSnapshots reads which complete snapshots there are and removes what was left half done.
func (v *View) findSnapshots() error {
	entries, err := os.ReadDir(v.snapshots())
	if err != nil {
		return &tandem.Error{Op: "open the view", Kind: tandem.Internal, On: v.o.Dir, Err: err}
	}
	var snaps []SnapshotInfo
	for _, e := range entries {
		dir := filepath.Join(v.snapshots(), e.Name())
		var info SnapshotInfo
		mark, err := os.ReadFile(filepath.Join(dir, completeName))
		if err != nil || json.Unmarshal(mark, &info) != nil || info.name() != e.Name() {
			if err := os.RemoveAll(dir); err != nil {
				return &tandem.Error{Op: "open the view", Kind: tandem.Internal, On: dir, Err: err}
			}
			continue
		}
		snaps = append(snaps, info)
	}
	v.setSnapshots(snaps)
	return nil
}

// Snapshots lists the complete snapshots, oldest first.
func (v *View) Snapshots() []SnapshotInfo {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return slices.Clone(v.snaps)
}

// DropSnapshot removes the snapshots at a record number. Dropping an absent one is no error.
func (v *View) DropSnapshot(number uint64) error {
	v.keeping.Lock()
	defer v.keeping.Unlock()
	var failed error
	v.setSnapshots(slices.DeleteFunc(v.Snapshots(), func(s SnapshotInfo) bool {
		if s.Fork.Number != number {
			return false
		}
		dir := filepath.Join(v.snapshots(), s.name())
		// Without its mark it is gone, whatever happens to the rest.
		err := errors.Join(os.Remove(filepath.Join(dir, completeName)), os.RemoveAll(dir))
		failed = errors.Join(failed, err)
		return err == nil
	}))
	if failed != nil {
		return &tandem.Error{Op: "drop a snapshot", Kind: tandem.Internal, Err: failed}
	}
	return nil
}

// Rollback replaces the live view by the newest complete snapshot that lies at or before to and whose record chain says is
// in the log's chain, else by an empty one; the caller then folds the log from Applied on. What was decided is forgotten.
// It belongs to the goroutine that applies. A crash in the middle leaves the old live view or the new one.
func (v *View) Rollback(ctx context.Context, to pairlog.Fork, chain func(pairlog.Fork) bool) error {
	if err := ctx.Err(); err != nil {
		return &tandem.Error{Op: "roll back", Kind: tandem.Timeout, Err: err}
	}
	v.keeping.Lock()
	defer v.keeping.Unlock()
	v.folding.Lock()
	defer v.folding.Unlock()
	v.open.Lock()
	defer v.open.Unlock()
	if v.db == nil {
		return errViewClosed
	}
	next := v.live() + ".new"
	err := errors.Join(os.RemoveAll(next), os.RemoveAll(v.live()+".old"))
	if err == nil {
		err = v.restore(ctx, next, to, chain)
	}
	if err != nil {
		return &tandem.Error{Op: "roll back", Kind: tandem.Internal, Err: err}
	}
	v.broken.Store(nil)
	if err := v.db.Close(); err != nil {
		v.o.Logger.Warn("view did not close in order", "hub", v.o.Hub, "error", err)
	}
	v.db = nil
	err = errors.Join(os.Rename(v.live(), v.live()+".old"), os.Rename(next, v.live()), syncDir(v.o.Dir))
	if err == nil {
		err = v.openLive()
	}
	if err != nil {
		failed := &tandem.Error{Op: "roll back", Kind: tandem.Damaged, Err: err}
		v.broken.Store(failed)
		return failed
	}
	if err := os.RemoveAll(v.live() + ".old"); err != nil {
		v.o.Logger.Warn("old view stays on disk", "hub", v.o.Hub, "error", err)
	}
	return nil
}

// restore fills dir from the snapshot that Rollback wants.
func (v *View) restore(ctx context.Context, dir string, to pairlog.Fork, chain func(pairlog.Fork) bool) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	for _, s := range slices.Backward(v.Snapshots()) {
		if s.Fork.Number > to.Number || !chain(s.Fork) {
			continue
		}
		from := filepath.Join(v.snapshots(), s.name())
		got, err := v.inspect(ctx, from, false)
		if err != nil || got.Fork != s.Fork || got.Root != s.Root {
			v.o.Logger.Error("snapshot is damaged and passed over", "hub", v.o.Hub, "snapshot", s.name(), "error", err)
			continue
		}
		return copyDatabase(from, dir)
	}
	return syncDir(dir)
}

// finishRollback puts in order what a crash within Rollback left.
func (v *View) finishRollback() error {
	old := v.live() + ".old"
	_, err := os.Stat(v.live())
	if errors.Is(err, os.ErrNotExist) {
		if err = os.Rename(old, v.live()); errors.Is(err, os.ErrNotExist) {
			err = nil
		}
	}
	if err = errors.Join(err, os.RemoveAll(old), os.RemoveAll(v.live()+".new")); err != nil {
		return &tandem.Error{Op: "open the view", Kind: tandem.Internal, On: v.o.Dir, Err: err}
	}
	return nil
}

// copyDatabase links the tables of a closed database, which never change, and copies everything else.
func copyDatabase(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		if name == completeName || name == "LOCK" || !e.Type().IsRegular() {
			continue
		}
		source, target := filepath.Join(from, name), filepath.Join(to, name)
		if strings.HasSuffix(name, ".sst") || strings.HasSuffix(name, ".blob") {
			if os.Link(source, target) == nil {
				continue
			}
		}
		if err := copyFile(source, target); err != nil {
			return err
		}
	}
	return syncDir(to)
}

func copyFile(from, to string) error {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	if err == nil {
		err = w.Sync()
	}
	return errors.Join(err, w.Close())
}

func writeSynced(name string, data []byte) error {
	w, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = w.Write(data)
	if err == nil {
		err = w.Sync()
	}
	return errors.Join(err, w.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
