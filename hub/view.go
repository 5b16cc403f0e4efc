package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"tandem"
	"tandem/pairlog"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
)

// DefaultCacheBytes is the cache of a view that does not say.
const DefaultCacheBytes = 64 << 20

// ViewOptions say where a view lives and what it belongs to.
type ViewOptions struct {
	Dir        string       // holds live/ and snapshots/; made when absent
	Hub        tandem.HubID // keys the state root of a new view
	Partitions int          // of the hub's events, 1 to MaxPartitions; fixed for the view's life
	CacheBytes int64        // memory for blocks and hot devices; 0 means DefaultCacheBytes
	Logger     *slog.Logger // nil: nothing is logged
	// OnDevice is told each applied change of a device, in order, from within Apply; d is nil when it was deleted. It
	// must not block and not call the view. May be nil.
	OnDevice func(id tandem.DeviceID, d *Device)
}

// View is a hub's state, folded from its log: identities, event partitions, door marks, counts. Its rules are Decide and
// Apply; both read nothing but the view and their arguments, no clock and no chance, so that every region that folds the
// same records holds the same, which Root proves.
//
// Devices lie in a database without a log of its own: after a crash it holds some earlier record's state, whole, and
// Applied says which. Decide, Apply, Answer, DropOverlay and Rollback belong to one goroutine at a time; everything else
// may be called by many at once and sees applied state only.
type View struct {
	o      ViewOptions
	hasher hasher
	fold   fold

	// What Decide knows beyond the applied state.
	overlay       map[tandem.DeviceID]pending
	decided       []int64 // next event number of each partition
	answers       map[*Command]answer
	pendingSender hotDevice
	hot           *hot
	scratch       []byte

	folding sync.Mutex // held while a record is folded; a snapshot takes it to name a position

	open   sync.RWMutex // guards db against being replaced
	db     *pebble.DB
	cache  *pebble.Cache
	broken atomic.Pointer[tandem.Error]

	mu    sync.RWMutex // guards what follows; s and check are written only by those who hold folding, snaps by keeping
	s     *state
	check RootCheck
	snaps []SnapshotInfo // replaced as a whole

	// keeping is held by whatever works on snapshots or replaces the live database. Locks are taken in the order
	// keeping, folding, open, mu.
	keeping sync.Mutex
}

// A Stamp names the record that is being built.
type Stamp struct {
	Epoch  tandem.Epoch
	Number uint64
}

var errViewClosed = &tandem.Error{Op: "use the view", Kind: tandem.Unavailable, Hint: "the hub is closing"}

// OpenView opens the view in o.Dir, or makes an empty one. After a clean Close it is where it was; after a crash it may
// be behind. A live database that is damaged is set aside (live.damaged) and an empty one taken: roll it back to a
// snapshot, or fold the log from its beginning. Kind Precondition when the partitions are not o.Partitions.
func OpenView(ctx context.Context, o ViewOptions) (*View, error) {
	if o.Partitions < 1 || o.Partitions > MaxPartitions {
		return nil, &tandem.Error{Op: "open the view", Kind: tandem.Invalid, Err: fmt.Errorf("%d event partitions", o.Partitions)}
	}
	if o.CacheBytes <= 0 {
		o.CacheBytes = DefaultCacheBytes
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if err := ctx.Err(); err != nil {
		return nil, &tandem.Error{Op: "open the view", Kind: tandem.Timeout, Err: err}
	}
	if err := os.MkdirAll(filepath.Join(o.Dir, "snapshots"), 0o700); err != nil {
		return nil, &tandem.Error{Op: "open the view", Kind: tandem.Internal, On: o.Dir, Err: err}
	}
	v := &View{o: o, overlay: map[tandem.DeviceID]pending{}, answers: map[*Command]answer{},
		hot: newHot(int(o.CacheBytes / 4 / hotBytes)), cache: pebble.NewCache(o.CacheBytes * 3 / 4)}
	v.fold.byID = map[string]int{}
	err := v.finishRollback()
	if err == nil {
		err = v.openLive()
	}
	if err == nil {
		err = v.findSnapshots()
	}
	if err != nil {
		if v.db != nil {
			_ = v.db.Close()
		}
		v.cache.Unref()
		return nil, err
	}
	return v, nil
}

func (v *View) live() string { return filepath.Join(v.o.Dir, "live") }

// openLive opens the live database and loads the state.
func (v *View) openLive() error {
	db, s, err := v.openAt(v.live())
	if tandem.KindOf(err) == tandem.Damaged {
		v.o.Logger.Error("view is damaged and starts anew", "hub", v.o.Hub, "error", err)
		aside := v.live() + ".damaged"
		if failed := errors.Join(os.RemoveAll(aside), os.Rename(v.live(), aside)); failed != nil {
			return errors.Join(err, failed)
		}
		db, s, err = v.openAt(v.live())
	}
	if err != nil {
		return err
	}
	v.mu.Lock()
	v.db, v.s, v.check = db, s, RootCheck{}
	v.mu.Unlock()
	v.hasher = newHasher(s.rootKey)
	v.hot = newHot(v.hot.limit)
	v.fold.flushed = 0
	v.DropOverlay()
	return nil
}

func (v *View) openAt(dir string) (*pebble.DB, *state, error) {
	db, err := pebble.Open(dir, v.pebbleOptions())
	if err != nil {
		kind := tandem.Internal
		if pebble.IsCorruptionError(err) || errors.Is(err, pebble.ErrDBNotPristine) {
			kind = tandem.Damaged
		}
		return nil, nil, &tandem.Error{Op: "open the view", Kind: kind, On: dir, Err: err}
	}
	s, err := loadState(db, string(v.o.Hub), v.o.Partitions)
	if err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	return db, s, nil
}

// pebbleOptions are for a database that needs no log of its own: what a crash takes is folded again.
func (v *View) pebbleOptions() *pebble.Options {
	o := &pebble.Options{
		Cache:                       v.cache,
		DisableWAL:                  true,
		FormatMajorVersion:          pebble.FormatNewest,
		MemTableSize:                32 << 20,
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       4,
		L0StopWritesThreshold:       24,
		MaxOpenFiles:                500,
		Logger:                      quiet{v.o.Logger},
	}
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		o.Levels[i].IndexBlockSize = 64 << 10 // one level of index in nearly all tables: a block less to read
	}
	return o
}

// quiet passes on what the database says went wrong.
type quiet struct{ log *slog.Logger }

func (q quiet) Infof(string, ...any) {}
func (q quiet) Errorf(format string, args ...any) {
	q.log.Warn("view's database", "text", fmt.Sprintf(format, args...))
}
func (q quiet) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf("view's database: "+format, args...))
}

// usable returns why the view can't be used, or nil.
func (v *View) usable() error {
	if err := v.broken.Load(); err != nil {
		return err
	}
	return nil
}

// Close writes everything to disk, so that the next OpenView is where this one was, and closes the view. Calls that
// come later get kind Unavailable.
func (v *View) Close() error {
	v.keeping.Lock()
	defer v.keeping.Unlock()
	v.folding.Lock()
	defer v.folding.Unlock()
	v.open.Lock()
	defer v.open.Unlock()
	if v.db == nil {
		return nil
	}
	v.broken.Store(errViewClosed)
	err := errors.Join(v.db.Flush(), v.db.Close())
	v.db = nil
	v.cache.Unref()
	if err != nil {
		return &tandem.Error{Op: "close the view", Kind: tandem.Internal, On: v.o.Dir, Err: err}
	}
	return nil
}

// Applied is the last record folded; the zero Fork when none was.
func (v *View) Applied() pairlog.Fork {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.s.meta.fork
}

// AppliedTime is the time of the last record folded; zero when none was.
func (v *View) AppliedTime() time.Time {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return recordTime(v.s.meta.time)
}

// VersionBase is what forced epochs have added to twin versions so far.
func (v *View) VersionBase() uint64 {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.s.meta.versionBase
}

// Decide adds the entries that carry c out to b, the record that at names, and remembers what they will change, so that
// later calls see it. When it returns an error, nothing was added: ErrRecordFull asks to be called again with the next
// record; any other is a definite refusal. The outcomes of OpBulk's changes come with Answer.
//
// What is decided must be applied, or DropOverlay called. c must stay unchanged until Answer.
func (v *View) Decide(c *Command, at Stamp, b *pairlog.Batch) error {
	if len(v.answers) > 0 {
		delete(v.answers, c) // its memory held another command that nobody asked about
	}
	switch c.Op {
	case OpTelemetry:
		return v.decideTelemetry(c, b)
	case OpDeviceCreate, OpDeviceUpdate, OpDevicePut, OpDeviceDelete:
		return v.decideSingle(c, at, b)
	case OpBulk:
		return v.decideBulk(c, at, b)
	}
	return &tandem.Error{Op: "decide", Kind: tandem.Invalid, Err: fmt.Errorf("operation %d is unknown", c.Op)}
}

// DropOverlay forgets what was decided and not applied, after a fence or an append that failed.
func (v *View) DropOverlay() {
	clear(v.overlay)
	clear(v.answers)
	v.decided = v.decided[:0]
	for i := range v.s.meta.partitions {
		v.decided = append(v.decided, v.s.meta.partitions[i].next)
	}
}

// Device returns a device. ErrDeviceNotFound.
func (v *View) Device(id tandem.DeviceID) (Device, error) {
	value, err := v.read(id)
	if err != nil {
		return Device{}, err
	}
	if value == nil {
		return Device{}, ErrDeviceNotFound
	}
	return value.device(string(id))
}

// MaxDevices is how many devices Devices returns at most (specs/iothub-service-dataplane-2021-04-12.json, Devices_GetDevices).
const MaxDevices = 1000

// Devices lists up to top devices with ids after `after`, in byte order; top is 1 to MaxDevices, others mean MaxDevices.
func (v *View) Devices(after tandem.DeviceID, top int) ([]Device, error) {
	if top < 1 || top > MaxDevices {
		top = MaxDevices
	}
	from := append([]byte{keyDevice}, after...)
	if after != "" {
		from = append(from, 0)
	}
	v.open.RLock()
	defer v.open.RUnlock()
	if err := v.usable(); err != nil {
		return nil, err
	}
	devices := make([]Device, 0, min(top, 64))
	err := scan(v.db, from, []byte{keyDevice + 1}, func(key, value []byte) error {
		d, err := stored(value).device(string(key[1:]))
		if err != nil {
			return err
		}
		if devices = append(devices, d); len(devices) == top {
			return errEnough
		}
		return nil
	})
	if err != nil && err != errEnough {
		return nil, err
	}
	return devices, nil
}

// errEnough ends a scan.
var errEnough = errors.New("enough")

// Statistics are the counts of the applied state; now says which day is today.
func (v *View) Statistics(now time.Time) Statistics {
	v.mu.RLock()
	defer v.mu.RUnlock()
	m := &v.s.meta
	s := Statistics{Total: m.total, Enabled: m.total - m.disabled, Disabled: m.disabled}
	if dayOf(now) == m.day {
		s.MessagesToday = m.messages
	}
	return s
}

// Partitions tells each event partition's extent. First may name an event that is gone while fewer than 256 KiB of log
// after it are kept; reading from there gives the first one kept. After a forced epoch LastEnqueued is one less than the
// number of the next event, so that it never goes back.
func (v *View) Partitions() []PartitionState {
	v.mu.RLock()
	defer v.mu.RUnlock()
	partitions := make([]PartitionState, len(v.s.meta.partitions))
	for i, p := range v.s.meta.partitions {
		partitions[i] = PartitionState{Partition: i, First: p.first, LastEnqueued: p.next - 1, LastTime: recordTime(p.lastTime)}
	}
	return partitions
}
