package hub

import (
	"context"
	"io"
	"log/slog"
	"time"

	"tandem"
	"tandem/pairlog"
)

// ViewOptions say where a view lives and what it belongs to.
type ViewOptions struct {
	Dir        string       // holds live/ and snapshots/; made when absent
	Hub        tandem.HubID // keys the state root of a new view
	Partitions int          // of the hub's events, 1 to MaxPartitions; fixed for the view's life
	CacheBytes int64        // memory for blocks and hot devices; 0 means DefaultCacheBytes
	Logger     *slog.Logger
	// OnDevice is told each applied change of a device, in order, from within Apply; d is nil when it was deleted. It
	// must not block and not call the view. May be nil.
	OnDevice func(id tandem.DeviceID, d *Device)
}

// A Stamp names the record that is being built.
type Stamp struct {
	Epoch  tandem.Epoch
	Number uint64
}

var errLater = &tandem.Error{Op: "use the view", Kind: tandem.Unsupported}

// View is a hub's state, folded from its log.
type View struct{}

func OpenView(ctx context.Context, o ViewOptions) (*View, error)                 { return nil, errLater }
func (v *View) Close() error                                                     { return errLater }
func (v *View) Applied() pairlog.Fork                                            { return pairlog.Fork{} }
func (v *View) Apply(rec *pairlog.Record) error                                  { return errLater }
func (v *View) Decide(c *Command, at Stamp, b *pairlog.Batch) error              { return errLater }
func (v *View) Answer(c *Command, o *Outcome)                                    {}
func (v *View) DropOverlay()                                                     {}
func (v *View) Root() pairlog.Hash                                               { return pairlog.Hash{} }
func (v *View) LastRootCheck() RootCheck                                         { return RootCheck{} }
func (v *View) Door(id DoorID) DoorMark                                          { return DoorMark{} }
func (v *View) Device(id tandem.DeviceID) (Device, error)                        { return Device{}, errLater }
func (v *View) Devices(after tandem.DeviceID, top int) ([]Device, error)         { return nil, errLater }
func (v *View) Statistics(now time.Time) Statistics                              { return Statistics{} }
func (v *View) Partitions() []PartitionState                                     { return nil }
func (v *View) FindEvent(partition int, number int64) (record uint64, err error) { return 0, errLater }
func (v *View) FindTime(t time.Time) (record uint64, err error)                  { return 0, errLater }
func (v *View) Snapshot(ctx context.Context) (SnapshotInfo, error)               { return SnapshotInfo{}, errLater }
func (v *View) Snapshots() []SnapshotInfo                                        { return nil }
func (v *View) DropSnapshot(number uint64) error                                 { return errLater }
func (v *View) Rollback(ctx context.Context, to pairlog.Fork, chain func(pairlog.Fork) bool) error {
	return errLater
}
func (v *View) ExportSnapshot(ctx context.Context, number uint64, w io.Writer) error { return errLater }
func (v *View) ImportSnapshot(ctx context.Context, r io.Reader) (SnapshotInfo, error) {
	return SnapshotInfo{}, errLater
}

// A RootCheck is the last comparison of a logged state root with the view's own.
type RootCheck struct {
	Number    uint64 // of the record that carried the root; 0: none was compared since the view was opened
	Want, Got pairlog.Hash
}

// DoorID is one incarnation of a node's door.
type DoorID string

// A DoorMark is what the log says about a door's numbered commands.
type DoorMark struct {
	Applied  uint64                 // highest number decided
	Resolved uint64                 // the door has the outcomes up to here
	Refused  map[uint64]tandem.Kind // numbers in (Resolved, Applied] that were refused
}

// A Refusal is the outcome of one numbered command that changed nothing.
type Refusal struct {
	Number uint64
	Kind   tandem.Kind
}

// A DoorEntry is the data of a KindDoor entry.
type DoorEntry struct {
	Door     DoorID
	First    uint64
	Count    uint32
	Resolved uint64
	Refused  []Refusal
}

func AppendDoorEntry(dst []byte, id DoorID, first uint64, count uint32, resolved uint64, refused []Refusal) []byte {
	return dst
}
func DecodeDoorEntry(b []byte) (DoorEntry, error) { return DoorEntry{}, errLater }

// Telemetry is the data of a KindTelemetry entry.
type Telemetry struct {
	Partition          int
	Number             int64
	Device, Generation []byte
	Message            []byte
}

func DecodeTelemetry(b []byte) (Telemetry, error)     { return Telemetry{}, errLater }
func Partition(device tandem.DeviceID, count int) int { return 0 }

// SnapshotInfo describes a snapshot.
type SnapshotInfo struct {
	Fork     pairlog.Fork
	Root     pairlog.Hash
	Bytes    int64
	Complete bool
	Time     time.Time
}

func AppendDeviceChange(dst []byte, c *DeviceChange) []byte { return dst }
func DecodeDeviceChange(b []byte) (DeviceChange, error)     { return DeviceChange{}, errLater }
func AppendBulk(dst []byte, changes []DeviceChange) []byte  { return dst }
func DecodeBulk(b []byte) ([]DeviceChange, error)           { return nil, errLater }
