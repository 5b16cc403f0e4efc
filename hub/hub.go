// Package hub is what a hub is: commands in, records out, a view folded from records.
//
//	door ─Command─▶ Handle ─▶ Replica's writer: View.Decide ─entries─▶ pairlog.Writer.Append ─▶ disk
//	     ◀Outcome──                             View.Apply  ◀─record──
//
// View holds the rules as functions of values: Decide says what a command would change, Apply folds what is durable.
// Replica is one region's part of one hub, as machinery around them: it writes under a pen, or follows. Door is the one
// way into a hub for everything on this node: it numbers commands, sends them to whichever region has the pen and
// re-sends after a move, so that a session never learns who answered it.
//
// Moving the pen is not decided here; package failover asks a Replica to hold, close, follow and lead.
package hub

import (
	"context"
	"time"

	"tandem"
	"tandem/pairlog"
)

// The entry kinds of a hub's log. Numbers are for ever; a reader that meets an unknown one stops and raises an alarm.
const (
	KindTelemetry    = pairlog.KindTelemetry      // partition, number, device, message
	KindDevicePut    = pairlog.KindFirstOfHub + 2 // a device identity as it is from here on
	KindDeviceDelete = pairlog.KindFirstOfHub + 3 // a device identity that is no more
	KindDoor         = pairlog.KindFirstOfHub + 4 // the numbers of one door that this record decides, with refusals
	KindDoorGone     = pairlog.KindFirstOfHub + 5 // a door incarnation that never comes back
	KindRoot         = pairlog.KindFirstOfHub + 6 // the view's state root just before this record
)

// An Op is what a command asks for.
type Op uint8

// The operations.
const (
	OpTelemetry    Op = iota + 1 // append a device's message to its event partition
	OpDeviceCreate               // refuse when the device exists
	OpDeviceUpdate               // refuse when it does not exist or IfMatch does not hold
	OpDevicePut                  // create or replace
	OpDeviceDelete               // refuse when it does not exist or IfMatch does not hold
	OpBulk                       // up to 100 device changes, each with its own outcome (Azure: bulk registry operation)
)

// A SessionNumber orders the sessions of one device: the newest wins. The zero number is no session (REST, operators).
type SessionNumber struct {
	Epoch   tandem.Epoch
	Counter uint64
}

// Before reports whether s is older than t.
func (s SessionNumber) Before(t SessionNumber) bool {
	return s.Epoch < t.Epoch || s.Epoch == t.Epoch && s.Counter < t.Counter
}

// A Command is one request to change a hub. Who may ask was checked at the door; what may happen is decided by View.
type Command struct {
	Op      Op
	Device  tandem.DeviceID
	Session SessionNumber
	// Body is the operation's argument in this package's encoding: a Message (AppendMessage) for OpTelemetry, a
	// DeviceChange (AppendDeviceChange) for OpDevice…, a list of them (AppendBulk) for OpBulk, nothing for OpDeviceDelete
	// but IfMatch.
	Body []byte
	// IfMatch is an etag without quotes, "*" for any, or empty.
	IfMatch string
}

// An Outcome is what became of a command.
type Outcome struct {
	// Err is nil when the command was applied: durable, in sync mode in the peer's copy too. A *tandem.Error of kind
	// Timeout, Unavailable or Fenced says that it is unknown or not now; any other kind is a definite refusal, and nothing changed.
	Err error
	// Position is where the command's first entry lies; when the outcome came from another region, or from before a move, a
	// record at or after it.
	Position pairlog.Position
	// Device is the identity after OpDeviceCreate, Update or Put.
	Device *Device
	// Bulk has one error (or nil) for each change of OpBulk.
	Bulk []error

	revokes []tandem.DeviceID // devices that lost a right
	again   bool              // decided under an earlier holder: Device, Bulk and revokes are not known
}

// definite reports whether the outcome is a refusal of which nothing can come later.
func (o *Outcome) definite() bool {
	switch kind := tandem.KindOf(o.Err); {
	case o.Err == nil, kind == tandem.Timeout, kind == tandem.Unavailable, kind == tandem.Fenced:
		return false
	}
	return true
}

// A Waiter is told outcomes. Resolved is called once for each submitted command, in the order of submission for one
// waiter, and must only note the outcome; Flush is called after a group of them, once, and may write to a connection.
// Neither may block for long or submit.
type Waiter interface {
	Resolved(tag uint64, o *Outcome)
	Flush()
}

// Info is what does not change about a hub while it is open.
type Info struct {
	ID         tandem.HubID
	Name       tandem.HubName
	Partitions int
}

// Statistics are the counts of a hub's identity registry (ARM IotHubStats, GET /statistics/devices) and quota.
type Statistics struct {
	Total, Enabled, Disabled int64
	// MessagesToday counts telemetry since UTC midnight by record time, for the quota metric TotalMessages.
	MessagesToday int64
}

// Handle is a hub as every gateway sees it, wherever its pen is. All methods may be called by many goroutines at once;
// every wait ends with ctx or after 30 s with a retriable error. It is implemented by Door.
type Handle interface {
	Info() Info
	// Identity returns a device for authentication. It may come from a follower's view; a negative answer is final,
	// asked of the holder. ErrDeviceNotFound; Unavailable when no holder answers and the view does not know the device.
	Identity(ctx context.Context, id tandem.DeviceID) (Device, error)
	// Device returns the device as the holder has it. ErrDeviceNotFound, Unavailable.
	Device(ctx context.Context, id tandem.DeviceID) (Device, error)
	// Devices lists up to top (≤ 1000) devices with ids after `after`, in byte order, as the holder has them.
	Devices(ctx context.Context, after tandem.DeviceID, top int) ([]Device, error)
	Statistics(ctx context.Context) (Statistics, error)
	// Connect registers a session of a device with the holder; an older session of the device, in either region, is
	// dropped. drop is called at most once, from another goroutine, when this session must end: a newer one came
	// (ErrSessionTaken), the device was disabled (ErrDeviceDisabled) or deleted (ErrDeviceNotFound), or its keys changed
	// (ErrKeysChanged). drop must not block.
	Connect(ctx context.Context, id tandem.DeviceID, drop func(error)) (SessionNumber, error)
	// Disconnect ends a session; afterwards drop is not called.
	Disconnect(id tandem.DeviceID, n SessionNumber)
	// Submit hands a command over and returns once it is queued; w is told its outcome. The command's bytes are copied.
	// It waits while the door's window is full. Unavailable when the door is closing: then w is not called.
	Submit(ctx context.Context, c *Command, w Waiter, tag uint64) error
	// Do submits and waits for the outcome; its error is the outcome's.
	Do(ctx context.Context, c *Command) (Outcome, error)
	// Events reads telemetry of a partition (or all with Partition < 0) from this region's copy of the log.
	Events(ctx context.Context, from EventStart) (*EventReader, error)
	// Partitions tells each event partition's extent.
	Partitions(ctx context.Context) ([]PartitionState, error)
}

// EventStart says where reading begins.
type EventStart struct {
	Partition int       // < 0: all partitions
	Number    int64     // first event number wanted, when ≥ 0 (with all partitions: 0 means everything kept)
	Time      time.Time // else the first event not older than this, when set
	// Neither: events from now on.
}

// An Event is one telemetry message as back ends read it.
type Event struct {
	Partition int
	Number    int64 // sequence number, offset and Kafka offset in one
	Enqueued  time.Time
	Device    tandem.DeviceID
	// Generation is the device's generation id at the time.
	Generation string
	Position   pairlog.Position
	Message    Message // aliases the reader's buffer until its next call
}

// PartitionState is the extent of an event partition.
type PartitionState struct {
	Partition    int
	First        int64 // smallest number kept
	LastEnqueued int64 // -1: none yet
	LastTime     time.Time
}

// Conditions that doors act on.
var (
	ErrDeviceNotFound   = &tandem.Error{Op: "find the device", Kind: tandem.NotFound}
	ErrDeviceExists     = &tandem.Error{Op: "create the device", Kind: tandem.Exists}
	ErrDeviceDisabled   = &tandem.Error{Op: "use the device", Kind: tandem.Forbidden, Hint: "enable it with the registry"}
	ErrEtag             = &tandem.Error{Op: "change the device", Kind: tandem.Precondition, Hint: "read the device again and use its etag"}
	ErrSessionTaken     = &tandem.Error{Op: "use the session", Kind: tandem.Conflict}
	ErrKeysChanged      = &tandem.Error{Op: "use the session", Kind: tandem.Unauthorized}
	ErrQuota            = &tandem.Error{Op: "send", Kind: tandem.Throttled, Hint: "the daily message quota is used up; it starts anew at midnight UTC"}
	ErrMoving           = &tandem.Error{Op: "reach the hub", Kind: tandem.Unavailable, Hint: "the hub is moving or its region is dark; try again"}
	ErrTooManyDevices   = &tandem.Error{Op: "create the device", Kind: tandem.TooLarge}
	ErrRevocationsFull  = &tandem.Error{Op: "change the device", Kind: tandem.Throttled, Hint: "the peer region is dark and 10,000 revocations wait for it; try again"}
	ErrUnknownEntryKind = &tandem.Error{Op: "fold a record", Kind: tandem.Unsupported, Hint: "this node is older than the one that wrote the log; upgrade it"}
)
