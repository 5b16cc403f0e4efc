package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
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
		VerifyAfter: r.newestSnapshot(),
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

// Prepare makes the next epoch's segment ahead of time.
func (r *Replica) Prepare(ctx context.Context, epoch tandem.Epoch) error {
	return r.log.Prepare(ctx, epoch)
}

// Close ends the epoch in order: commands wait in their doors from here on, CLOSE is durable, the role is closed. It may
// be asked again. ErrNotHolder when this replica does not write in that epoch.
func (r *Replica) Close(ctx context.Context, epoch tandem.Epoch, successor tandem.RegionName) (ClosedAt, error) {
	r.change.Lock()
	defer r.change.Unlock()
	r.mu.Lock()
	w, role, at, was := r.writer, r.role, r.closed[epoch], false
	if at.Fork.Number > 0 {
		was = true
	}
	r.mu.Unlock()
	if was {
		return at, nil
	}
	if role != RoleHolder || w == nil || w.pen.Epoch != epoch {
		return ClosedAt{}, ErrNotHolder
	}
	answer := make(chan closeAnswer, 1)
	select {
	case w.closing <- closeRequest{successor, answer}:
	case <-r.ended:
		return ClosedAt{}, ErrNotHolder
	case <-ctx.Done():
		return ClosedAt{}, ctx.Err()
	}
	got := <-answer // the log's own deadlines bound it
	if got.err != nil {
		return ClosedAt{}, got.err
	}
	r.mu.Lock()
	r.role, r.closed[epoch] = RoleClosed, got.at
	r.mu.Unlock()
	r.door.routeNowhere()
	return got.at, nil
}

// Reach waits until this region's copy and view are at a closed epoch's end, and compares the state root: ErrDamaged
// when it differs.
func (r *Replica) Reach(ctx context.Context, at ClosedAt) error {
	for {
		folded := r.folded.wait()
		if err := r.foldTo(ctx, at.Fork.Number); err != nil {
			return err
		}
		applied := r.view.Applied()
		if applied.Number >= at.Fork.Number {
			if applied != at.Fork {
				return &tandem.Error{Op: "reach the end of the epoch", Kind: tandem.Damaged, On: string(r.o.Info.Name),
					Err: fmt.Errorf("the view is at record %d of epoch %d, not at its end", applied.Number, applied.Epoch)}
			}
			if root := r.view.Root(); root != at.Root {
				return &tandem.Error{Op: "compare the state", Kind: tandem.Damaged, On: string(r.o.Info.Name),
					Err: fmt.Errorf("state root %s here, %s at the holder", root, at.Root)}
			}
			return nil
		}
		short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		select {
		case <-folded:
		default:
			_ = r.log.Wait(short, applied.Number)
		}
		cancel()
		if ctx.Err() != nil {
			return &tandem.Error{Op: "reach the end of the epoch", Kind: tandem.Timeout, On: string(r.o.Info.Name), Err: ctx.Err()}
		}
	}
}

// EndCopy durably ends this region's copy of an epoch and returns its end: the fence before the fork.
func (r *Replica) EndCopy(ctx context.Context, epoch tandem.Epoch) (pairlog.Fork, error) {
	r.change.Lock()
	defer r.change.Unlock()
	r.halt(RoleFenced)
	if err := r.jump(ctx); err != nil {
		return pairlog.Fork{}, err
	}
	return r.log.EndCopy(ctx, epoch)
}

// ResumeCopy goes on copying an epoch after a claim that failed.
func (r *Replica) ResumeCopy(ctx context.Context, epoch tandem.Epoch) error {
	return r.log.Resume(ctx, epoch)
}

// Fetch brings back records of this region's own log that only the peer's copy still has, up to and including upTo.
func (r *Replica) Fetch(ctx context.Context, upTo pairlog.Fork) error {
	r.change.Lock()
	defer r.change.Unlock()
	end, err := r.log.Fetch(ctx, upTo.Epoch, r.o.Peer)
	if err == nil && end.Number < upTo.Number {
		err = &tandem.Error{Op: "fetch from the peer", Kind: tandem.Unavailable, On: string(r.o.Info.Name)}
	}
	return err
}

// halt ends what the role does and waits until it has ended.
func (r *Replica) halt(role Role) {
	r.mu.Lock()
	stop, ended := r.stop, r.ended
	r.stop, r.ended, r.writer, r.role = nil, nil, nil, role
	r.mu.Unlock()
	if stop != nil {
		stop()
		<-ended
	}
	r.folded.notify()
}

// Fence stops answering at once: the lease or the pen is lost.
func (r *Replica) Fence() {
	r.change.Lock()
	defer r.change.Unlock()
	r.door.routeNowhere()
	r.halt(RoleFenced)
}

// Lead writes the pen's first record and takes commands from then on. The view first folds the log up to the pen's
// fork. Work goes on until term ends (its cause says why), Close, or Fence.
func (r *Replica) Lead(ctx context.Context, pen pairlog.Pen, term context.Context, mode pairlog.Mode, valid func() bool) error {
	if err := r.mayChange(ctx); err != nil {
		return err
	}
	defer r.change.Unlock()
	r.halt(RoleFenced)
	if len(pen.Forks) > 0 { // a sync mode may have hidden what the claim goes on from
		if err := r.log.Adopt(ctx, pen.Forks); err != nil {
			return err
		}
	}
	if err := r.foldTo(ctx, pen.Fork.Number); err != nil {
		return err
	}
	if at := r.view.Applied(); at != pen.Fork {
		return &tandem.Error{Op: "lead", Kind: tandem.Damaged, On: string(r.o.Info.Name),
			Err: fmt.Errorf("the view is at record %d of epoch %d, the pen goes on after record %d of epoch %d", at.Number, at.Epoch, pen.Fork.Number, pen.Fork.Epoch)}
	}
	options := pairlog.WriterOptions{Valid: valid, Mode: mode}
	if mode == pairlog.SyncAvailable || mode == pairlog.SyncStrict {
		_, revision, err := pairlog.ReadPen(ctx, r.o.Directory, r.o.Info.ID)
		if err != nil {
			return err
		}
		inSync := pairlog.NewInSync(r.o.Directory, r.o.Info.ID, pen, revision, pen.Incarnation)
		if _, err := inSync.Load(ctx); err != nil {
			return err
		}
		options.InSync = inSync
	}
	w, err := r.begin(ctx, pen, options)
	if err != nil {
		r.view.DropOverlay()
		r.setWrites(false)
		if w != nil { // nobody is to write under this pen any more, nor wait for the peer
			sealing, cancel := context.WithTimeout(context.WithoutCancel(ctx), sealTime)
			defer cancel()
			err = errors.Join(err, r.log.Seal(sealing, pen.Epoch))
		}
		return err
	}
	writing, stop := context.WithCancelCause(r.ctx)
	unbind := context.AfterFunc(term, func() { stop(context.Cause(term)) })
	ended := make(chan struct{})
	r.mu.Lock()
	r.role, r.pen, r.writer, r.ended = RoleHolder, pen, w, ended
	r.stop = func() { stop(context.Canceled) }
	r.mu.Unlock()
	r.door.routeHere(pen.Epoch, r.view.Door(r.door.id), w.next-1, w.poke)
	r.task(func() {
		defer close(ended)
		defer unbind()
		err := w.run(writing)
		r.setWrites(false)
		if err != nil {
			r.stopped(w, err)
		}
	})
	r.o.Notify.Send(PenOpened{Hub: r.o.Info.Name, Region: r.o.Region, Epoch: pen.Epoch})
	return nil
}

// sealTime bounds the sealing of an epoch that could not be opened; the next claim seals it again.
const sealTime = 2 * time.Second

// begin appends the pen's record and what a new holder has to write before its first command. A writer that it returns
// with an error has a segment that it must not use.
func (r *Replica) begin(ctx context.Context, pen pairlog.Pen, options pairlog.WriterOptions) (*writer, error) {
	r.setWrites(true)
	log, err := r.log.Begin(ctx, pen, options)
	if err != nil {
		return nil, err
	}
	first := log.First()
	w := newWriter(r, log, first.Header.Number+1)
	if err := w.apply(&first); err != nil {
		return w, err
	}
	r.registry.begin(pen.Epoch)
	return w, r.applyRevocations(ctx, w)
}

// setWrites says who folds from now on: the writer, or fold.
func (r *Replica) setWrites(writes bool) {
	r.viewMu.Lock()
	defer r.viewMu.Unlock()
	r.writes = writes
	r.folded.notify()
}

// stopped fences a replica whose writer gave up.
func (r *Replica) stopped(w *writer, err error) {
	r.door.routeNowhere()
	r.mu.Lock()
	if r.writer == w {
		r.role = RoleFenced
	}
	r.mu.Unlock()
	r.folded.notify()
	if !errors.Is(err, context.Canceled) {
		r.o.Logger.Warn("pen put down", "hub", r.o.Info.Name, "epoch", w.pen.Epoch, "error", err)
		r.o.Notify.Send(PenPutDown{Hub: r.o.Info.Name, Region: r.o.Region, Epoch: w.pen.Epoch, Err: err})
	}
}

// FollowPen follows a pen that another region has: own segments of older epochs are sealed, what they hold beyond the
// fork stays as a tail, the view rolls back if it lies beyond it. It returns when that is durable; copying goes on.
func (r *Replica) FollowPen(ctx context.Context, pen pairlog.Pen) error {
	if err := r.mayChange(ctx); err != nil {
		return err
	}
	defer r.change.Unlock()
	r.mu.Lock()
	already := r.role == RoleFollower && r.pen.Epoch == pen.Epoch
	r.mu.Unlock()
	if already {
		return nil
	}
	r.door.routeNowhere()
	r.halt(RoleFenced)
	for _, b := range pen.Forks {
		if b.Epoch < pen.Epoch && b.Holder == r.o.Region {
			if err := r.log.Seal(ctx, b.Epoch); err != nil && !errors.Is(err, pairlog.ErrNoSegment) {
				return err
			}
		}
	}
	if err := r.log.Adopt(ctx, pen.Forks); err != nil {
		return err
	}
	if err := r.rollback(ctx, pen); err != nil {
		return err
	}
	following, stop := context.WithCancel(r.ctx)
	ended := make(chan struct{})
	r.mu.Lock()
	r.role, r.pen, r.stop, r.ended = RoleFollower, pen, stop, ended
	r.mu.Unlock()
	r.folded.notify()
	r.door.routeTo(pen.Region, pen.Epoch)
	r.task(func() {
		defer close(ended)
		r.follow(following, pen)
	})
	return nil
}

// rollback takes the view back to the chain when it has folded records that the chain does not have.
func (r *Replica) rollback(ctx context.Context, pen pairlog.Pen) error {
	r.viewMu.Lock()
	defer r.viewMu.Unlock()
	at := r.view.Applied()
	if inChain(pen.Forks, at) {
		return nil
	}
	to := lastInChain(pen.Forks, at)
	r.o.Logger.Info("view rolls back", "hub", r.o.Info.Name, "from", at.Number, "to", to.Number)
	return r.view.Rollback(ctx, to, func(f pairlog.Fork) bool { return inChain(pen.Forks, f) })
}

// inChain reports whether a record belongs to the chain of these branches: its epoch is one of them and the next one
// does not go on before it.
func inChain(branches []pairlog.Branch, at pairlog.Fork) bool {
	if at.Number == 0 {
		return true
	}
	for i, b := range branches {
		if b.Epoch == at.Epoch {
			return i+1 == len(branches) || at.Number <= branches[i+1].Fork.Number
		}
	}
	return len(branches) > 0 && at.Epoch < branches[0].Epoch && at.Number <= branches[0].Fork.Number
}

// epochAt is the epoch of a record number in the chain; 0 when it lies before the branches that are known.
func epochAt(branches []pairlog.Branch, number uint64) tandem.Epoch {
	for i := len(branches) - 1; i >= 0; i-- {
		if branches[i].Fork.Number < number {
			return branches[i].Epoch
		}
	}
	return 0
}

// lastInChain is the last record that a log which reached at shares with the chain.
func lastInChain(branches []pairlog.Branch, at pairlog.Fork) pairlog.Fork {
	for i := len(branches) - 1; i >= 0; i-- {
		if branches[i].Fork.Epoch <= at.Epoch && branches[i].Fork.Number <= at.Number {
			return branches[i].Fork
		}
	}
	return pairlog.Fork{}
}

// follow copies an epoch until ctx ends or the epoch was closed, and says what stands in the way.
func (r *Replica) follow(ctx context.Context, pen pairlog.Pen) {
	var reseeding sync.WaitGroup
	reseeding.Go(func() { r.reseedWhenNeeded(ctx, pen) })
	defer reseeding.Wait()
	for ctx.Err() == nil {
		err := r.log.Follow(ctx, pen.Epoch, pen.Region)
		switch {
		case err == nil, ctx.Err() != nil, errors.Is(err, pairlog.ErrCopyEnded):
			return
		case errors.Is(err, pairlog.ErrBehindTrim):
			r.needReseed()
			if r.waitReseeded(ctx) {
				continue
			}
			return
		case errors.Is(err, pairlog.ErrDiverged), errors.Is(err, pairlog.ErrDamaged):
			r.mu.Lock()
			r.damage = err.Error()
			r.mu.Unlock()
		}
		r.o.Logger.Error("following stopped", "hub", r.o.Info.Name, "epoch", pen.Epoch, "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// Tails lists what this region holds beyond the forks that the chain took.
func (r *Replica) Tails(ctx context.Context) ([]pairlog.Tail, error) { return r.log.Tails(ctx) }

// broadcast wakes everybody who waits.
type broadcast struct{ state *broadcastState }

type broadcastState struct {
	mu sync.Mutex
	ch chan struct{}
}

func newBroadcast() broadcast { return broadcast{&broadcastState{ch: make(chan struct{})}} }

// wait returns a channel that the next notify closes.
func (b broadcast) wait() <-chan struct{} {
	b.state.mu.Lock()
	defer b.state.mu.Unlock()
	return b.state.ch
}

func (b broadcast) notify() {
	b.state.mu.Lock()
	defer b.state.mu.Unlock()
	close(b.state.ch)
	b.state.ch = make(chan struct{})
}
