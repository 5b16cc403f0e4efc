package hub

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	"tandem"
	"tandem/pairlog"
)

// fetchSnapshot brings the holder's newest snapshot here, not older than a record, and makes it one of ours.
func (r *Replica) fetchSnapshot(ctx context.Context, from uint64) (SnapshotInfo, error) {
	var offer reseedAnswer
	if err := r.askPeer(ctx, "reseed", reseedRequest{AtLeast: from}, &offer); err != nil {
		return SnapshotInfo{}, err
	}
	if len(offer.Files) == 0 || len(offer.Files) > maxFiles {
		return SnapshotInfo{}, errBadFrame
	}
	dir := filepath.Join(r.view.o.Dir, incomingName, offer.Info.name())
	if err := r.clearIncoming(offer.Info.name()); err != nil {
		return SnapshotInfo{}, err
	}
	r.o.Logger.Info("reseed begins", "hub", r.o.Info.Name, "snapshot", offer.Info.Fork.Number, "files", len(offer.Files),
		"bytes", offer.Info.Bytes)
	pace := pace{replica: r, began: r.o.Clock.Boot()}
	for _, f := range offer.Files {
		if err := r.fetchFile(ctx, dir, offer.Info.Fork, f, &pace); err != nil {
			return SnapshotInfo{}, err
		}
	}
	got, err := r.view.adopt(ctx, dir, offer.Info)
	if err != nil { // whatever does not fit, it is fetched anew
		err = errors.Join(err, os.RemoveAll(dir))
		return SnapshotInfo{}, &tandem.Error{Op: "reseed from the peer", Kind: tandem.KindOf(err), Err: err}
	}
	return got, nil
}

// clearIncoming leaves nothing but the directory of the snapshot that is fetched now, without files that do not belong.
func (r *Replica) clearIncoming(name string) error {
	incoming := filepath.Join(r.view.o.Dir, incomingName)
	entries, err := os.ReadDir(incoming)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return &tandem.Error{Op: "reseed from the peer", Kind: tandem.Internal, Err: err}
	}
	for _, e := range entries {
		if e.Name() != name {
			if err := os.RemoveAll(filepath.Join(incoming, e.Name())); err != nil {
				return &tandem.Error{Op: "reseed from the peer", Kind: tandem.Internal, Err: err}
			}
		}
	}
	if err := os.MkdirAll(filepath.Join(incoming, name), 0o700); err != nil {
		return &tandem.Error{Op: "reseed from the peer", Kind: tandem.Internal, Err: err}
	}
	return nil
}

// pace keeps a reseed from taking the whole link.
type pace struct {
	replica *Replica
	began   time.Duration
	bytes   int64
}

func (p *pace) took(ctx context.Context, n int) {
	p.bytes += int64(n)
	due := p.began + time.Duration(float64(p.bytes)/float64(p.replica.o.Upkeep.ReseedBytes)*float64(time.Second))
	if early := due - p.replica.o.Clock.Boot(); early > 0 {
		select {
		case <-p.replica.o.Clock.After(early):
		case <-ctx.Done():
		}
	}
}

// unfinished ends the name of a file that is not here whole; a whole one was synced before it got its name.
const unfinished = partial

// chunkTries is how often one chunk is asked for while the link is dark or slow.
const chunkTries = 30

func (r *Replica) fetchFile(ctx context.Context, dir string, snap pairlog.Fork, f snapshotFile, pace *pace) error {
	failed := func(err error) error {
		return &tandem.Error{Op: "reseed from the peer", Kind: tandem.KindOf(err), On: f.Name, Err: err}
	}
	if !partOfSnapshot(f.Name) || f.Bytes < 0 {
		return errBadFrame
	}
	name := filepath.Join(dir, f.Name)
	if fi, err := os.Stat(name); err == nil && fi.Size() == f.Bytes {
		return nil
	}
	w, err := os.OpenFile(name+unfinished, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return failed(err)
	}
	defer w.Close()
	for at := int64(0); at < f.Bytes; {
		chunk, err := r.fetchChunk(ctx, chunkRequest{snap, f.Name, at})
		if err == nil && (len(chunk) == 0 || at+int64(len(chunk)) > f.Bytes) {
			err = errBadFrame
		}
		if err == nil {
			_, err = w.Write(chunk)
		}
		if err != nil {
			return failed(err)
		}
		at += int64(len(chunk))
		pace.took(ctx, len(chunk))
	}
	if err := errors.Join(w.Sync(), os.Rename(name+unfinished, name), syncDir(dir)); err != nil {
		return failed(err)
	}
	return nil
}

// fetchChunk asks until it gets a chunk whose hash is right.
func (r *Replica) fetchChunk(ctx context.Context, q chunkRequest) ([]byte, error) {
	data, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		bounded, cancel := context.WithTimeout(ctx, 5*time.Second)
		reply, err := r.o.Link.Request(bounded, r.o.Peer, hubSubject(r.o.Info.ID, "chunk"), data)
		cancel()
		if err == nil {
			if chunk, ok := checkChunk(reply); ok {
				return chunk, nil
			}
			err = &tandem.Error{Op: "fetch a chunk", Kind: tandem.Damaged, Err: io.ErrUnexpectedEOF}
		}
		retriable := tandem.KindOf(err).Retriable() || tandem.KindOf(err) == tandem.Damaged
		if ctx.Err() != nil || !retriable || try == chunkTries {
			return nil, err
		}
		select {
		case <-r.o.Clock.After(min(time.Duration(try)*50*time.Millisecond, time.Second)):
		case <-ctx.Done():
		}
	}
}

// checkChunk returns what follows the hash, if it has that hash.
func checkChunk(b []byte) ([]byte, bool) {
	if len(b) < sha256.Size || len(b) > sha256.Size+maxChunk {
		return nil, false
	}
	return b[sha256.Size:], sha256.Sum256(b[sha256.Size:]) == [sha256.Size]byte(b)
}
