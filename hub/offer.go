package hub

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"tandem"
	"tandem/pairlog"
)

// What this region tells and gives the other one of its snapshots.
//
//	snapshots  which complete snapshots are here
//	reseed     the holder's offer: a snapshot's description and files; it is kept from then on
//	chunk      a piece of one file, after its hash

// maxChunk is how much of a file one answer carries.
const maxChunk = 512 << 10

// longestHold is how long one reseed may keep its snapshot and the log after it, however busy it is.
const longestHold = 24 * time.Hour

// offer is the snapshot that a reseed reads at the moment.
type offer struct {
	mu     sync.Mutex
	number uint64
	begun  time.Duration // Clock.Boot
	until  time.Duration
	wanted bool // a newer snapshot than there is
}

// hold keeps a snapshot for another while.
func (o *offer) hold(number uint64, now, more time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.number != number || now >= o.until {
		o.number, o.begun = number, now
	}
	o.until = min(now+more, o.begun+longestHold)
}

// held is the snapshot that must stay, and the log after it; 0 when there is none.
func (o *offer) held(now time.Duration) uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	if now >= o.until {
		return 0
	}
	return o.number
}

func (o *offer) want() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.wanted = true
}

// snapshotWanted tells whether a reseed waits for a snapshot, once.
func (o *offer) snapshotWanted() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	wanted := o.wanted
	o.wanted = false
	return wanted
}

type snapshotsAnswer struct {
	Snapshots []SnapshotInfo `json:"snapshots"`
}

// reseedRequest asks for a snapshot from which this log can be gone on with.
type reseedRequest struct {
	AtLeast uint64 `json:"at_least"` // record number
}

type reseedAnswer struct {
	Info  SnapshotInfo   `json:"info"`
	Files []snapshotFile `json:"files"`
}

type snapshotFile struct {
	Name  string `json:"name"`
	Bytes int64  `json:"bytes"`
}

type chunkRequest struct {
	Fork   pairlog.Fork `json:"fork"` // of the snapshot
	File   string       `json:"file"`
	Offset int64        `json:"offset"`
}

// serveSnapshots answers the other region's questions until the stops are called.
func (r *Replica) serveSnapshots() (stops []func(), err error) {
	for verb, handle := range map[string]func(context.Context, []byte) ([]byte, error){
		"snapshots": r.giveSnapshots, "reseed": r.giveReseed, "chunk": r.giveChunk,
	} {
		answer := func(ctx context.Context, from tandem.RegionName, data []byte) ([]byte, error) {
			if from != r.o.Peer {
				return nil, &tandem.Error{Op: "give a snapshot", Kind: tandem.Forbidden, On: string(from)}
			}
			return handle(ctx, data)
		}
		stop, err := r.o.Link.Serve(hubSubject(r.o.Info.ID, verb), answer)
		if err != nil {
			return stops, err
		}
		stops = append(stops, stop)
	}
	return stops, nil
}

func (r *Replica) giveSnapshots(context.Context, []byte) ([]byte, error) {
	return json.Marshal(snapshotsAnswer{r.view.Snapshots()})
}

// giveReseed offers the newest snapshot of the log's chain; when it is not new enough, one is taken soon.
func (r *Replica) giveReseed(_ context.Context, data []byte) ([]byte, error) {
	var q reseedRequest
	if err := json.Unmarshal(data, &q); err != nil {
		return nil, errBadFrame
	}
	r.mu.Lock()
	role, pen := r.role, r.pen
	r.mu.Unlock()
	if role != RoleHolder {
		return nil, ErrMoving
	}
	info, ok := r.snapshotFrom(pen, q.AtLeast)
	if !ok {
		r.offer.want()
		return nil, &tandem.Error{Op: "give a snapshot", Kind: tandem.Unavailable, On: string(r.o.Info.Name),
			Hint: "it is being taken; ask again"}
	}
	r.offer.hold(info.Fork.Number, r.o.Clock.Boot(), r.o.Upkeep.ReseedHold)
	entries, err := os.ReadDir(filepath.Join(r.view.snapshots(), info.name()))
	if err != nil {
		return nil, &tandem.Error{Op: "give a snapshot", Kind: tandem.Internal, Err: err}
	}
	answer := reseedAnswer{Info: info}
	for _, e := range entries {
		if !partOfSnapshot(e.Name()) || !e.Type().IsRegular() {
			continue
		}
		fi, err := e.Info()
		if err != nil {
			return nil, &tandem.Error{Op: "give a snapshot", Kind: tandem.Internal, Err: err}
		}
		answer.Files = append(answer.Files, snapshotFile{e.Name(), fi.Size()})
	}
	return json.Marshal(answer)
}

// snapshotFrom is this region's newest complete snapshot in the chain, if it is not older than record from.
func (r *Replica) snapshotFrom(pen pairlog.Pen, from uint64) (newest SnapshotInfo, ok bool) {
	for _, s := range r.view.Snapshots() {
		if s.Fork.Number >= from && s.Fork.Number > 0 && inChain(pen.Forks, s.Fork) {
			newest, ok = s, true
		}
	}
	return newest, ok
}

// partOfSnapshot tells whether a file of that name belongs to what a snapshot holds.
func partOfSnapshot(name string) bool {
	return name == filepath.Base(name) && name != "" && name[0] != '.' && name != completeName && name != "LOCK"
}

func (r *Replica) giveChunk(_ context.Context, data []byte) ([]byte, error) {
	var q chunkRequest
	if err := json.Unmarshal(data, &q); err != nil || !partOfSnapshot(q.File) || q.Offset < 0 {
		return nil, errBadFrame
	}
	info := SnapshotInfo{Fork: q.Fork}
	f, err := os.Open(filepath.Join(r.view.snapshots(), info.name(), q.File))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &tandem.Error{Op: "give a snapshot", Kind: tandem.NotFound, On: info.name()}
	}
	if err != nil {
		return nil, &tandem.Error{Op: "give a snapshot", Kind: tandem.Internal, Err: err}
	}
	defer f.Close()
	r.offer.hold(q.Fork.Number, r.o.Clock.Boot(), r.o.Upkeep.ReseedHold)
	chunk := make([]byte, sha256.Size+maxChunk)
	n, err := f.ReadAt(chunk[sha256.Size:], q.Offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, &tandem.Error{Op: "give a snapshot", Kind: tandem.Internal, Err: err}
	}
	chunk = chunk[:sha256.Size+n]
	hash := sha256.Sum256(chunk[sha256.Size:])
	copy(chunk, hash[:])
	return chunk, nil
}

// askSnapshots asks the peer which complete snapshots it has.
func (r *Replica) askSnapshots(ctx context.Context) (answer snapshotsAnswer, err error) {
	err = r.askPeer(ctx, "snapshots", struct{}{}, &answer)
	return answer, err
}

// askPeer puts a question about snapshots to the other region.
func (r *Replica) askPeer(ctx context.Context, verb string, request, answer any) error {
	data, err := json.Marshal(request)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	reply, err := r.o.Link.Request(ctx, r.o.Peer, hubSubject(r.o.Info.ID, verb), data)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(reply, answer); err != nil {
		return errBadFrame
	}
	return nil
}
