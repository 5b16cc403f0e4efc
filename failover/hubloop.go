package failover

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"time"

	"tandem"
	"tandem/directory"
	"tandem/operation"
	"tandem/pairlog"
)

// A hubLoop keeps one hub of this node as Return says, and drives its operations. Only its own goroutine touches what is
// not guarded.
type hubLoop struct {
	c    *Controller
	kick chan struct{}

	act tandem.Turn // held while the replica's role is changed, here or on the other region's request

	mu           sync.Mutex
	hub          Hub
	dirty        bool // the directory may say something else than pen
	stopped      tandem.Epoch
	stoppedSince time.Duration

	pen       pairlog.Pen
	rev       directory.Revision
	read      time.Duration // when pen was read; 0: never
	operation bool          // one is under way, as far as it is known
	following tandem.Epoch
	followed  bool          // in this life
	since     time.Duration // Clock.Boot when following or leading began
	ended     tandem.Epoch  // the copy of this epoch was ended here and the claim definitely lost
	claimed   tandem.Epoch  // claimed in this life and not led yet
	mode      pairlog.Mode  // with which the pen was claimed
	compared  tandem.Epoch  // the peer was asked under this pen
	peerEnd   *pairlog.Fork
	acked     directory.Acked
	undriven  map[string]time.Duration // operations that should have a driver, since when
	refused   string
	receipts  tandem.Epoch // looked after under this pen
	retry     time.Duration
	notBefore time.Duration // Clock.Boot of the next attempt to reopen
	heard     pairlog.Lag   // of the source, when the copy was ended for a claim
}

func newHubLoop(c *Controller, hub Hub) *hubLoop {
	return &hubLoop{c: c, hub: hub, kick: make(chan struct{}, 1), dirty: true, undriven: make(map[string]time.Duration)}
}

func (h *hubLoop) set(hub Hub) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hub = hub
}

func (h *hubLoop) info() Hub {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.hub
}

func (h *hubLoop) name() tandem.HubName { return h.info().Name }
func (h *hubLoop) on() string           { return "hub " + string(h.name()) }

func (h *hubLoop) replica() (Replica, bool) { return h.c.o.Replicas.Replica(h.info().ID) }

// changed says that the directory has news of this hub.
func (h *hubLoop) changed() {
	h.mu.Lock()
	h.dirty = true
	h.mu.Unlock()
	select {
	case h.kick <- struct{}{}:
	default:
	}
}

// stop notes that an operation had this region close or give up an epoch; 0: it did not after all.
func (h *hubLoop) stop(epoch tandem.Epoch) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if epoch == 0 || h.stopped != epoch {
		h.stopped, h.stoppedSince = epoch, h.c.o.Clock.Boot()
	}
}

func (h *hubLoop) stoppedFor(epoch tandem.Epoch) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopped == 0 || h.stopped != epoch {
		return 0
	}
	return max(h.c.o.Clock.Boot()-h.stoppedSince, 1)
}

func (h *hubLoop) run(ctx context.Context) {
	for ctx.Err() == nil {
		wait := h.round(ctx)
		select {
		case <-h.kick:
		case <-h.c.o.Clock.After(wait):
		case <-ctx.Done():
		}
	}
}

// round does what there is to do and says when to look again.
func (h *hubLoop) round(ctx context.Context) time.Duration {
	replica, ok := h.replica()
	if !ok {
		return poll
	}
	err := h.reread(ctx)
	wait := h.settle(ctx, replica) // before driving: a life that has just begun does not follow yet
	if err == nil && h.operation {
		o, busy, err := operation.UnderWay(ctx, h.c.o.Directory, h.info().ID)
		h.operation = err != nil || busy
		if err == nil && busy && h.mine(o) {
			h.drive(ctx, replica, o)
			h.changed()
			return poll
		}
	}
	if h.operation {
		wait = min(wait, poll)
	}
	return wait
}

// reread reads the directory when it may have changed.
func (h *hubLoop) reread(ctx context.Context) error {
	h.mu.Lock()
	due := h.dirty || h.read == 0 || h.c.o.Clock.Boot()-h.read > rereading
	h.dirty = false
	h.mu.Unlock()
	if !due {
		return nil
	}
	hub := h.info().ID
	ctx, cancel := context.WithTimeout(ctx, asking)
	defer cancel()
	pen, rev, err := pairlog.ReadPen(ctx, h.c.o.Directory, hub)
	if errors.Is(err, pairlog.ErrNoPen) {
		pen, rev, err = pairlog.Pen{}, 0, nil
	}
	if err == nil {
		_, opErr := h.c.o.Directory.Get(ctx, directory.HubOperationKey(hub))
		if err = opErr; errors.Is(err, directory.ErrNotFound) {
			h.operation, err = false, nil
		} else if err == nil {
			h.operation = true
		}
	}
	if err != nil {
		h.mu.Lock()
		h.dirty, h.read = true, 0
		h.mu.Unlock()
		return err
	}
	h.sawPen(pen, rev)
	h.read = max(h.c.o.Clock.Boot(), 1)
	return nil
}

// sawPen takes a pen from the directory.
func (h *hubLoop) sawPen(pen pairlog.Pen, rev directory.Revision) {
	if pen.Epoch > h.pen.Epoch {
		h.c.o.Logger.Info("pen seen", "hub", h.name(), "epoch", pen.Epoch, "region", pen.Region, "state", pen.State)
		h.c.o.Notify.Send(PenMoved{Hub: h.info().ID, Name: h.name(), From: h.pen.Region, To: pen.Region, Epoch: pen.Epoch, Forced: pen.Forced})
	}
	h.pen, h.rev = pen, rev
}

// settle asks Return until this region is as it has to be, and says when to look again.
func (h *hubLoop) settle(ctx context.Context, replica Replica) time.Duration {
	fresh := false
	for range 12 {
		step := h.returning().Next(h.returnFacts(replica))
		switch s := step.(type) {
		case Stay:
			h.refused, h.retry = "", 0
			if s.As == RoleHolder && h.remode(replica) {
				return poll
			}
			if h.read != 0 && h.receipts < h.pen.Epoch && h.settleReceipts(ctx, replica, s.As) {
				h.receipts = h.pen.Epoch
			}
			return idle
		case Wait:
			return poll
		}
		if !fresh { // never act on what was read a while ago
			fresh = true
			h.mu.Lock()
			h.dirty = true
			h.mu.Unlock()
			if h.reread(ctx) != nil {
				return poll
			}
			continue
		}
		if _, claims := step.(Reopen); claims && h.c.o.Clock.Boot() < h.notBefore {
			return max(h.notBefore-h.c.o.Clock.Boot(), time.Millisecond) // each attempt takes an epoch, and wakes this loop
		}
		if _, claims := step.(Reopen); claims && h.leaving(ctx) {
			return poll // a claim here would void the one that the target is about to make
		}
		if err := h.do(ctx, replica, step); err != nil {
			if ctx.Err() == nil {
				h.c.o.Logger.Warn("step failed", "hub", h.name(), "step", step.String(), "error", err)
			}
			h.changed()
			h.retry = min(max(2*h.retry, poll), time.Second)
			h.notBefore = h.c.o.Clock.Boot() + h.retry
			return h.retry
		}
		if _, ok := step.(Refuse); ok {
			return time.Second
		}
	}
	return poll
}

// remode puts the pen down when the hub's replication is no longer the one it was opened with: the next epoch has the
// new one. Commands wait in their doors meanwhile.
func (h *hubLoop) remode(replica Replica) bool {
	wanted := h.info().Mode
	if h.mode == wanted || h.operation {
		return false
	}
	h.c.o.Logger.Info("replication changed", "hub", h.name(), "from", h.mode, "to", wanted)
	h.act.Lock()
	defer h.act.Unlock()
	replica.Fence()
	return true
}

// leaving reports whether a forced failover is taking the pen away from this region: then it is the target's to claim.
// When nobody drives that any more, this region ends it itself and goes on.
func (h *hubLoop) leaving(ctx context.Context) bool {
	o, busy, err := operation.UnderWay(ctx, h.c.o.Directory, h.info().ID)
	return err != nil || busy && o.Kind == operation.Forced && o.From == h.c.o.Region && o.Epoch == h.pen.Epoch
}

func (h *hubLoop) returning() Return {
	hub := h.info()
	return Return{Hub: hub.Name, Region: h.c.o.Region, Peer: hub.Other(h.c.o.Region), Home: hub.Home,
		Incarnation: h.c.o.Lease.Incarnation(), Deadline: h.c.o.Deadline}
}

func (h *hubLoop) returnFacts(replica Replica) ReturnFacts {
	_, canFetch := replica.(Fetcher)
	f := ReturnFacts{Directory: h.read != 0, Pen: h.pen, Replica: replica.Facts(), Following: h.following, CanFetch: canFetch,
		Leased: h.c.o.Lease.Term().Valid(), Stopped: h.stoppedFor(h.pen.Epoch),
		Compared: h.compared == h.pen.Epoch && h.pen.Epoch != 0, PeerEnd: h.peerEnd,
		PeerAcked: h.acked.Number, PeerAckedIn: h.acked.Epoch}
	if h.pen.Region != h.c.o.Region && h.pen.Incarnation != "" {
		f.HolderLapsed = h.c.leases.gone(h.pen.Incarnation)
	}
	return f
}

// do carries out one of Return's steps.
func (h *hubLoop) do(ctx context.Context, replica Replica, step Step) error {
	switch s := step.(type) {
	case Follow:
		return h.follow(ctx, replica, s.Pen)
	case Fence:
		h.act.Lock()
		defer h.act.Unlock()
		h.c.o.Logger.Warn("hub stops answering", "hub", h.name(), "reason", s.Why)
		replica.Fence()
		return nil
	case Compare:
		return h.compare(ctx)
	case Fetch:
		h.compared = 0
		return replica.(Fetcher).Fetch(ctx, s.UpTo)
	case Reopen:
		return h.reopen(ctx, replica, s)
	case Refuse:
		h.compared = 0
		if text := s.Err.Error(); text != h.refused {
			h.refused = text
			h.c.o.Logger.Error("hub needs a decision", "hub", h.name(), "error", s.Err)
			h.c.o.Notify.Send(NeedsDecision{Hub: h.info().ID, Name: h.name(), Err: s.Err})
		}
		return nil
	}
	return &tandem.Error{Op: "do " + step.String(), Kind: tandem.Internal}
}

func (h *hubLoop) follow(ctx context.Context, replica Replica, pen pairlog.Pen) error {
	h.act.Lock()
	defer h.act.Unlock()
	own := replica.Facts().Epoch
	inForks := slices.ContainsFunc(pen.Forks, func(b pairlog.Branch) bool { return b.Epoch == own })
	if own > 0 && own < pen.Epoch && !inForks { // the chain knows nothing of what this region wrote last: it is all tail
		if _, err := replica.EndCopy(ctx, own); err != nil {
			return err
		}
	}
	// A former life may have ended its copy for a claim that came to nothing. Its claim can't arrive any more: claims
	// compare the claimant's fence, and a node fences its former life when it starts.
	if h.ended == pen.Epoch || !h.followed {
		if err := replica.ResumeCopy(ctx, pen.Epoch); err != nil && tandem.KindOf(err) != tandem.NotFound {
			return err
		}
	}
	if err := replica.FollowPen(ctx, pen); err != nil {
		return err
	}
	h.following, h.followed, h.ended, h.claimed = pen.Epoch, true, 0, 0
	h.since = h.c.o.Clock.Boot()
	h.stop(0)
	h.c.o.Logger.Info("following", "hub", h.name(), "region", pen.Region, "epoch", pen.Epoch)
	return nil
}

// compare asks the peer where its copy ends, and when it is dark reads what it had acknowledged.
func (h *hubLoop) compare(ctx context.Context) error {
	hub := h.info()
	h.peerEnd, h.acked = nil, directory.Acked{}
	if side := h.c.side(ctx, hub.Other(h.c.o.Region), hub.ID); side.Known {
		h.peerEnd = &side.Facts.End
	} else if item, err := h.c.o.Directory.Get(ctx, directory.LeaseKey(h.pen.Incarnation)); err == nil {
		lease, err := directory.DecodeLease(item)
		if err != nil {
			return err
		}
		h.acked = lease.Acked[hub.ID]
	} else if !errors.Is(err, directory.ErrNotFound) {
		return err
	}
	h.compared = h.pen.Epoch
	return nil
}

// reopen goes on under a new epoch at the end of this region's own log: the whole chain, so the claim is open at once.
func (h *hubLoop) reopen(ctx context.Context, replica Replica, s Reopen) error {
	h.act.Lock()
	defer h.act.Unlock()
	var fork pairlog.Fork
	own := replica.Facts().Epoch
	for _, epoch := range []tandem.Epoch{min(own, h.pen.Epoch), h.pen.Epoch} {
		if epoch == 0 {
			continue
		}
		end, err := replica.EndCopy(ctx, epoch)
		if tandem.KindOf(err) == tandem.NotFound && err != nil && epoch == h.pen.Epoch && own < epoch {
			continue // nothing of that epoch was ever here
		} else if err != nil {
			return err
		}
		fork = end
	}
	if err := h.claim(ctx, Claim{Epoch: s.Epoch, Fork: fork, Whole: true}, s.Forced); err != nil {
		return err
	}
	return h.lead(ctx, replica)
}

// claim takes the pen, and asks until it knows whether it has it: a claim that may still arrive must not be left behind.
// pairlog.ErrClaimLost is a definite no. Called with act held.
func (h *hubLoop) claim(ctx context.Context, s Claim, forced bool) error {
	hub, o := h.info(), &h.c.o
	set, setRev, err := pairlog.ReadInSync(ctx, o.Directory, hub.ID)
	if err != nil {
		return err
	}
	return h.claimWith(ctx, s, forced, set, setRev)
}

func (h *hubLoop) claimWith(ctx context.Context, s Claim, forced bool, set pairlog.InSyncSet, setRev directory.Revision) error {
	hub, o := h.info(), &h.c.o
	next := pairlog.Pen{Hub: hub.ID, Epoch: s.Epoch, Region: o.Region, Node: o.Node, Incarnation: o.Lease.Incarnation(),
		Fork: s.Fork, Forced: forced, Time: o.Clock.Now()}
	var own []pairlog.Branch
	if replica, ok := h.replica(); ok {
		if chained, ok := replica.(Chained); ok {
			own = chained.Branches()
		}
	}
	next.Forks = nextForks(h.pen, next, own)
	after := nextInSync(set, hub.Mode, h.pen, next)
	claim := pairlog.Claim{Pen: next, Open: s.Whole, From: h.pen.Epoch, PenRevision: h.rev, InSyncRevision: setRev, InSync: &after,
		Fenced: s.Fenced, Self: next.Incarnation}
	for {
		pen, rev, err := pairlog.ClaimPen(ctx, o.Directory, claim)
		definite := errors.Is(err, pairlog.ErrClaimLost) || tandem.KindOf(err) == tandem.Invalid
		if err != nil && !definite && ctx.Err() == nil {
			o.Logger.Warn("claim unanswered", "hub", hub.Name, "epoch", s.Epoch, "error", err)
			h.c.sleep(ctx, poll)
			continue
		}
		if errors.Is(err, pairlog.ErrClaimLost) { // perhaps to an attempt of our own that was not answered
			now, nowRev, readErr := pairlog.ReadPen(ctx, o.Directory, hub.ID)
			switch {
			case readErr != nil && ctx.Err() == nil:
				h.c.sleep(ctx, poll)
				continue
			case readErr == nil && now.Epoch == next.Epoch && now.Incarnation == next.Incarnation && now.Fork == next.Fork:
				pen, rev, err = now, nowRev, nil
			}
		}
		if err != nil {
			h.changed()
			return err
		}
		h.sawPen(pen, rev)
		h.read, h.claimed, h.ended, h.mode = max(o.Clock.Boot(), 1), pen.Epoch, 0, hub.Mode
		return nil
	}
}

// nextInSync is the in-sync set that a claim writes: whose copy has every write that was acknowledged up to the fork.
func nextInSync(set pairlog.InSyncSet, mode pairlog.Mode, old, next pairlog.Pen) pairlog.InSyncSet {
	after := pairlog.InSyncSet{Regions: []tandem.RegionName{next.Region}, Mode: mode}
	switch {
	case !synchronous(mode) || next.Forced || old.Epoch == 0:
	case old.Region != next.Region: // it closed, or its claim was void: it has all that the fork covers
		if old.State == pairlog.PenOpen {
			after.Regions = append(after.Regions, old.Region)
		}
	case set.Mode == mode:
		for _, r := range set.Regions {
			if r != next.Region {
				after.Regions = append(after.Regions, r)
			}
		}
	}
	return after
}

// lead opens the hub under the pen that this incarnation has just claimed. Called with act held.
func (h *hubLoop) lead(ctx context.Context, replica Replica) error {
	o := &h.c.o
	term := o.Lease.Term()
	if !term.Valid() || o.Lease.Incarnation() != h.pen.Incarnation {
		return because(ErrNotReady, h.on(), "this node's lease has lapsed", "")
	}
	if h.pen.State == pairlog.PenClaimed {
		rev, err := pairlog.OpenPen(ctx, o.Directory, h.pen, h.rev)
		if err != nil {
			h.changed()
			return err
		}
		h.pen.State, h.rev = pairlog.PenOpen, rev
	}
	if err := replica.Lead(ctx, h.pen, term.Context(), h.mode, term.Valid); err != nil {
		h.claimed = 0
		h.changed()
		return err
	}
	h.claimed, h.following = 0, 0
	h.since = o.Clock.Boot()
	h.stop(0)
	h.announce()
	o.Logger.Info("hub open", "hub", h.name(), "epoch", h.pen.Epoch, "fork", forkString(h.pen.Fork), "forced", h.pen.Forced)
	return nil
}

// announce tells the other region where the pen is, so that its doors need not wait for the directory's watch.
func (h *hubLoop) announce() {
	hub := h.info()
	peer := hub.Other(h.c.o.Region)
	if peer == "" {
		return
	}
	data, err := json.Marshal(request{Hub: hub.ID, Epoch: h.pen.Epoch, Pen: &h.pen})
	if err == nil {
		err = h.c.o.Link.Send(peer, subject(verbPen), data)
	}
	if err != nil {
		h.c.o.Logger.Debug("pen not announced", "hub", hub.Name, "error", err)
	}
}

// resending is how long doors have to send again what they still have of a tail, before the tail is counted.
const resending = time.Second

// resent says whether doors have had that time, and this region has what they sent.
func (h *hubLoop) resent(replica Replica, as Role) bool {
	f := replica.Facts()
	switch {
	case h.c.o.Clock.Boot()-h.since < resending:
		return false
	case as == RoleFollower:
		return f.Lag.Known && (f.Lag.Records == 0 || f.Lag.Age < GateLag) && f.ViewLag < GateRecords
	}
	return as == RoleHolder
}

// settleReceipts writes the receipts that the chain calls for and completes those whose tail is here; false: try again.
func (h *hubLoop) settleReceipts(ctx context.Context, replica Replica, as Role) bool {
	hub, o := h.info(), &h.c.o
	ok := true
	wanted := owed(h.pen, hub)
	all, err := ListReceipts(ctx, o.Directory, hub.ID)
	if err != nil {
		return false
	}
	for _, r := range all { // a later claim may have gone on from before the one that left this tail
		if r.State == Provisional && r.Region == o.Region && !slices.ContainsFunc(wanted, func(w Receipt) bool { return w.ID == r.ID }) {
			wanted = append(wanted, r)
		}
	}
	for _, r := range wanted {
		known, rev, err := loadReceipt(ctx, o.Directory, r.ID)
		switch {
		case errors.Is(err, ErrNoReceipt):
			known, rev = r, 0
			known.Opened = o.Clock.Now()
			if known.Epoch == h.pen.Epoch && h.pen.Incarnation == o.Lease.Incarnation() {
				known.HeardItems, known.HeardBytes, known.HeardAge = h.heard.Items, h.heard.Bytes, h.heard.Age.Milliseconds()
			}
		case err != nil:
			return false
		case known.State == Complete, known.Region != o.Region:
			continue
		}
		switch {
		case known.Region == o.Region && !h.resent(replica, as):
			ok = false // its count would hold what is not lost; until then it is provisional
			if rev != 0 {
				continue
			}
		case known.Region == o.Region:
			if known, err = known.complete(ctx, replica, o.Clock.Now()); err != nil {
				o.Logger.Warn("receipt not complete", "hub", hub.Name, "receipt", r.ID, "error", err)
				ok = false
				continue
			}
		}
		done, err := putReceipt(ctx, o.Directory, known, rev)
		if err != nil || !done {
			ok = false
			continue
		}
		o.Logger.Info("receipt written", "hub", hub.Name, "receipt", r.ID, "state", known.State, "items", known.Items)
		o.Notify.Send(ReceiptWritten{known})
	}
	return ok
}
