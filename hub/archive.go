package hub

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"tandem"
)

// The archive that carries a snapshot to the other region: its description, its files, their hashes.
const (
	archiveHead = "tandem-snapshot.json"
	archiveTail = "tandem-hashes.json"
	maxFiles    = 100_000
)

// A fileHash ends the stream of an exported snapshot, one for each file.
type fileHash struct {
	Name   string `json:"name"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// ExportSnapshot writes the newest snapshot at a record number to w, as a tar archive: its description, its files, their
// hashes. Dropping the snapshot meanwhile does no harm. Kind NotFound when there is none.
func (v *View) ExportSnapshot(ctx context.Context, number uint64, w io.Writer) error {
	info, files, err := v.openSnapshot(number)
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	if err != nil {
		return err
	}
	if err := exportFiles(ctx, info, files, w); err != nil {
		return &tandem.Error{Op: "export a snapshot", Kind: tandem.Internal, Err: err}
	}
	return nil
}

func (v *View) openSnapshot(number uint64) (info SnapshotInfo, files []*os.File, err error) {
	v.keeping.Lock()
	defer v.keeping.Unlock()
	snaps, at := v.Snapshots(), -1
	for i, s := range snaps {
		if s.Fork.Number == number {
			at = i
		}
	}
	if at < 0 {
		return info, nil, &tandem.Error{Op: "export a snapshot", Kind: tandem.NotFound, On: fmt.Sprint(number)}
	}
	info = snaps[at]
	dir := filepath.Join(v.snapshots(), info.name())
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if e.Name() == completeName || e.Name() == "LOCK" || !e.Type().IsRegular() {
			continue
		}
		f, failed := os.Open(filepath.Join(dir, e.Name()))
		if err = errors.Join(err, failed); err != nil {
			return info, files, err
		}
		files = append(files, f)
	}
	return info, files, err
}

func exportFiles(ctx context.Context, info SnapshotInfo, files []*os.File, w io.Writer) error {
	t := tar.NewWriter(w)
	if err := exportJSON(t, archiveHead, info); err != nil {
		return err
	}
	var hashes []fileHash
	for _, f := range files {
		fi, err := f.Stat()
		if err = errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		name := filepath.Base(f.Name())
		if err := t.WriteHeader(&tar.Header{Name: name, Size: fi.Size(), Mode: 0o600}); err != nil {
			return err
		}
		hash := sha256.New()
		if _, err := io.Copy(io.MultiWriter(t, hash), withContext{ctx, f}); err != nil {
			return err
		}
		hashes = append(hashes, fileHash{name, fi.Size(), hex.EncodeToString(hash.Sum(nil))})
	}
	if err := exportJSON(t, archiveTail, hashes); err != nil {
		return err
	}
	return t.Close()
}

func exportJSON(t *tar.Writer, name string, value any) error {
	b, err := json.Marshal(value)
	if err != nil {
		return err
	}
	if err := t.WriteHeader(&tar.Header{Name: name, Size: int64(len(b)), Mode: 0o600}); err != nil {
		return err
	}
	_, err = t.Write(b)
	return err
}

// withContext is a reader that ends with its context.
type withContext struct {
	ctx context.Context
	r   io.Reader
}

func (r withContext) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// ImportSnapshot reads what ExportSnapshot of the same hub wrote in the other region, verifies every file and the whole root,
// and keeps it as a complete snapshot; Rollback then takes it. Kind Damaged when something does not fit: nothing is kept.
func (v *View) ImportSnapshot(ctx context.Context, r io.Reader) (SnapshotInfo, error) {
	dir, err := os.MkdirTemp(v.snapshots(), "import-*"+partial)
	if err != nil {
		return SnapshotInfo{}, &tandem.Error{Op: "import a snapshot", Kind: tandem.Internal, Err: err}
	}
	want, err := importFiles(withContext{ctx, r}, dir)
	var got SnapshotInfo
	if err == nil {
		got, err = v.adopt(ctx, dir, want)
	}
	if err != nil {
		kind := tandem.Damaged
		if k := tandem.KindOf(err); k != tandem.Internal {
			kind = k
		} else if ctx.Err() != nil {
			kind = tandem.Timeout
		}
		return SnapshotInfo{}, &tandem.Error{Op: "import a snapshot", Kind: kind, Err: errors.Join(err, os.RemoveAll(dir))}
	}
	return got, nil
}

// adopt verifies an unpacked snapshot and makes it one of the view's.
func (v *View) adopt(ctx context.Context, dir string, want SnapshotInfo) (SnapshotInfo, error) {
	v.keeping.Lock()
	defer v.keeping.Unlock()
	if err := v.usable(); err != nil && v.db == nil {
		return SnapshotInfo{}, err
	}
	got, err := v.inspect(ctx, dir, true)
	if err == nil && (got.Fork != want.Fork || got.Root != want.Root) {
		err = errors.New("position or root differ from the description")
	}
	if err != nil {
		return SnapshotInfo{}, err
	}
	return v.complete(dir, got)
}

// importFiles unpacks an archive into dir and returns its description.
func importFiles(r io.Reader, dir string) (want SnapshotInfo, err error) {
	t := tar.NewReader(r)
	if err := importJSON(t, archiveHead, &want); err != nil {
		return want, err
	}
	hashes, err := unpack(t, dir, want.Bytes)
	if err != nil {
		return want, err
	}
	var wanted []fileHash
	if err := readJSON(t, &wanted); err != nil {
		return want, err
	}
	if !slices.Equal(hashes, wanted) {
		return want, errors.New("files differ from their hashes")
	}
	return want, nil
}

// unpack writes files until the archive's tail, which it leaves to be read.
func unpack(t *tar.Reader, dir string, room int64) ([]fileHash, error) {
	var hashes []fileHash
	for {
		h, err := t.Next()
		if err != nil {
			return nil, err
		}
		if h.Name == archiveTail {
			return hashes, nil
		}
		room -= h.Size
		name := filepath.Base(h.Name)
		if name != h.Name || strings.HasPrefix(name, ".") || name == completeName || h.Typeflag != tar.TypeReg || room < 0 ||
			len(hashes) >= maxFiles {
			return nil, fmt.Errorf("file %q does not belong into a snapshot", h.Name)
		}
		w, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return nil, err
		}
		hash := sha256.New()
		n, err := io.Copy(io.MultiWriter(w, hash), t)
		if err == nil {
			err = w.Sync()
		}
		if err = errors.Join(err, w.Close()); err != nil {
			return nil, err
		}
		hashes = append(hashes, fileHash{name, n, hex.EncodeToString(hash.Sum(nil))})
	}
}

func importJSON(t *tar.Reader, name string, value any) error {
	h, err := t.Next()
	if err != nil {
		return err
	}
	if h.Name != name {
		return errors.New("this is no snapshot")
	}
	return readJSON(t, value)
}

// readJSON reads the archive's present file, of which it takes no more than a list of maxFiles needs.
func readJSON(r io.Reader, value any) error {
	return json.NewDecoder(io.LimitReader(r, 256*maxFiles)).Decode(value)
}
