package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"tandem"
	"tandem/directory"
	"tandem/pairlog"
)

// A Role is what a region does for a hub at the moment.
type Role string

// The roles.
const (
	RoleFenced   Role = "fenced"   // neither writes nor follows: waits for a decision
	RoleFollower Role = "follower" // copies the holder's log and folds it
	RoleHolder   Role = "holder"   // has the pen
	RoleClosed   Role = "closed"   // wrote CLOSE; the directory decides who goes on
)

// ErrNotHolder: the replica does not have the pen of that epoch.
var ErrNotHolder = &tandem.Error{Op: "write", Kind: tandem.Fenced, Err: errors.New("this region does not have the pen of that epoch")}

// ReplicaOptions are what a Replica works on.
type ReplicaOptions struct {
	Info         Info
	Dir          string // of the view
	Region, Peer tandem.RegionName
	Node         tandem.NodeName
	Incarnation  tandem.Incarnation
	Store        pairlog.Store
	Link         pairlog.Link
	Directory    directory.Store
	Clock        tandem.Clock
	Logger       *slog.Logger
	Notify       tandem.Notify
	CacheBytes   int64         // of the view; 0: a default
	RecentBytes  int           // of the log's newest records, in memory; 0: a default
	Retention    time.Duration // of telemetry; 0: one day
	Upkeep       Upkeep
}

// A Replica is one region's part of one hub: its log, its view and its door. Which role it plays is decided elsewhere
// (package failover); it appends nothing before Lead. Its methods may be called by many goroutines at once; those that
// change the role wait for Run to have started.
type Replica struct {
	o        ReplicaOptions
	log      *pairlog.Log
	view     *View
	door     *Door
	registry registry
	folded   broadcast
	revoked  revocations
	lost     atomic.Pointer[[]revocation] // those that this holder brought back when it opened
	keep     upkeep
	offer    offer
	reseeds  chan struct{} // wakes reseedWhenNeeded

	viewMu sync.Mutex // one goroutine folds at a time
	writes bool       // the writer folds what it appends; under viewMu

	started chan struct{} // closed when Run has begun
	closing chan struct{} // closed when Run ends
	ctx     context.Context
	tasks   sync.WaitGroup

	change tandem.Turn // one change of role at a time
	over   bool        // no change of role any more; under change

	mu     sync.Mutex
	role   Role
	pen    pairlog.Pen // led or followed
	writer *writer
	stop   context.CancelFunc // ends following or writing
	ended  chan struct{}      // closed when it has
	closed map[tandem.Epoch]ClosedAt
	damage string
	reseed bool
	mark   *reseedMark // while the view came from the peer and the log has not reached it
}

// ClosedAt is where an epoch ended in order.
type ClosedAt struct {
	Fork pairlog.Fork `json:"fork"` // of the CLOSE record
	Root pairlog.Hash `json:"root"` // the view's state root there
}

// OpenReplica opens the view and the log and checks that they fit. It appends nothing; the role is fenced.
func OpenReplica(ctx context.Context, o ReplicaOptions) (*Replica, error) {
	if o.Retention == 0 {
		o.Retention = 24 * time.Hour
	}
	r := &Replica{
		o: o, role: RoleFenced, started: make(chan struct{}), closing: make(chan struct{}),
		closed: make(map[tandem.Epoch]ClosedAt), folded: newBroadcast(), reseeds: make(chan struct{}, 1),
	}
	r.o.Upkeep = o.Upkeep.withDefaults(o.Retention)
	r.door = newDoor(newDoorID(o.Incarnation), r)
	var err error
	r.view, err = OpenView(ctx, ViewOptions{
		Dir: filepath.Join(o.Dir, string(o.Info.ID)), Hub: o.Info.ID, Partitions: o.Info.Partitions, CacheBytes: o.CacheBytes,
		Logger: o.Logger, OnDevice: r.door.deviceChanged,
	})
	if err != nil {
		return nil, fmt.Errorf("open the view of hub %s: %w", o.Info.Name, err)
	}
	r.log, err = pairlog.Open(ctx, pairlog.Options{
		Hub: o.Info.ID, Region: o.Region, Peer: o.Peer, Store: o.Store, Link: o.Link, Clock: o.Clock, Logger: o.Logger, Notify: o.Notify,
		VerifyAfter: r.newestSnapshot(), RecentBytes: o.RecentBytes,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the log of hub %s: %w", o.Info.Name, err), r.view.Close())
	}
	if err := r.restoreView(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open the view of hub %s: %w", o.Info.Name, err), r.view.Close())
	}
	return r, nil
}

func (r *Replica) newestSnapshot() (number uint64) {
	for _, s := range r.view.Snapshots() {
		if s.Complete {
			number = max(number, s.Fork.Number)
		}
	}
	return number
}

// Branches is the chain as this region's log knows it, oldest first.
func (r *Replica) Branches() []pairlog.Branch { return r.log.Branches() }

// Handle is the hub for gateways on this node.
func (r *Replica) Handle() Handle { return r.door }

// Run folds the view, serves the other region and keeps the role going, until ctx ends; then it stops writing, keeps the
// view on disk and returns.
func (r *Replica) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stops, err := r.serve()
	defer func() {
		for _, stop := range stops {
			stop()
		}
	}()
	if err == nil {
		var offers []func()
		offers, err = r.serveSnapshots()
		stops = append(stops, offers...)
	}
	if err != nil {
		return errors.Join(err, r.end())
	}
	r.adoptPen(ctx)
	r.ctx = ctx
	r.task(func() { r.ended0("serve the log", r.log.Run(ctx)) })
	r.task(func() { r.ended0("run the door", r.door.run(ctx)) })
	r.task(func() { r.fold(ctx) })
	r.task(func() { r.maintain(ctx) })
	close(r.started)
	<-ctx.Done()
	return r.end()
}

// end waits until nothing runs any more, tells whoever waits at the door, and closes the view.
func (r *Replica) end() error {
	close(r.closing)
	r.change.Lock() // a change of role that has begun may still start a task
	r.over = true
	r.change.Unlock()
	r.tasks.Wait()
	r.door.close()
	return r.view.Close()
}

// adoptPen clips the log at the forks that the directory knows, so that nobody folds or reads a tail before this region is
// told its role. When the directory does not answer, nothing is read before either; a pen that is only claimed may come
// to nothing.
func (r *Replica) adoptPen(ctx context.Context) {
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	pen, _, err := pairlog.ReadPen(short, r.o.Directory, r.o.Info.ID)
	if err == nil && pen.State == pairlog.PenOpen {
		err = r.log.Adopt(ctx, pen.Forks)
	}
	if err != nil && !errors.Is(err, pairlog.ErrNoPen) && ctx.Err() == nil {
		r.o.Logger.Warn("chain not read at start", "hub", r.o.Info.Name, "error", err)
	}
}

func (r *Replica) task(run func()) {
	r.tasks.Go(run)
}

func (r *Replica) ended0(what string, err error) {
	if err != nil && !errors.Is(err, context.Canceled) {
		r.o.Logger.Error("replica task ended", "hub", r.o.Info.Name, "task", what, "error", err)
	}
}

// mayChange returns with change held, once Run has begun and while it has not ended.
func (r *Replica) mayChange(ctx context.Context) error {
	select {
	case <-r.started:
	case <-r.closing:
		return ErrMoving
	case <-ctx.Done():
		return ctx.Err()
	}
	r.change.Lock()
	if r.over {
		r.change.Unlock()
		return ErrMoving
	}
	return nil
}

// fold keeps the view at the log's visible end while this region does not write; the writer folds what it writes.
func (r *Replica) fold(ctx context.Context) {
	for ctx.Err() == nil {
		changed := r.folded.wait()
		if r.Role() == RoleHolder || r.writing() || r.behind() {
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		short, cancel := context.WithTimeout(ctx, time.Second) // a rollback moves the view under us
		err := r.log.Wait(short, r.view.Applied().Number)
		cancel()
		if err != nil {
			continue
		}
		if err := r.foldTo(ctx, ^uint64(0)); err != nil && ctx.Err() == nil {
			r.o.Logger.Error("view stopped", "hub", r.o.Info.Name, "error", err)
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
		}
	}
}

func (r *Replica) writing() bool {
	r.viewMu.Lock()
	defer r.viewMu.Unlock()
	return r.writes
}

// foldTo folds what is visible up to a record number.
func (r *Replica) foldTo(ctx context.Context, number uint64) error {
	r.viewMu.Lock()
	defer r.viewMu.Unlock()
	for {
		at := r.view.Applied().Number
		if r.writes || at >= number || r.log.Visible() <= at {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		progressed := false
		_, err := r.log.Read(ctx, at, 4<<20, func(rec pairlog.Record) error {
			if rec.Header.Number > number {
				return nil
			}
			progressed = true
			return r.apply(&rec)
		})
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return r.foldFailed(err)
		}
		r.folded.notify()
		if !progressed {
			return nil
		}
	}
}

// foldFailed notes why the view cannot go on, unless it may succeed when it is tried again.
func (r *Replica) foldFailed(err error) error {
	if errors.Is(err, pairlog.ErrBehindTrim) {
		r.needReseed()
		return err
	}
	switch kind := tandem.KindOf(err); {
	case errors.Is(err, pairlog.ErrDamaged), errors.Is(err, pairlog.ErrDiverged), kind == tandem.Damaged, kind == tandem.Unsupported:
		r.mu.Lock()
		defer r.mu.Unlock()
		r.damage = err.Error()
	}
	return err
}

// Role is what this region does at the moment.
func (r *Replica) Role() Role {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.role
}

// Tails lists what this region holds beyond the forks that the chain took.
func (r *Replica) Tails(ctx context.Context) ([]pairlog.Tail, error) { return r.log.Tails(ctx) }
