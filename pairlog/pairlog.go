// Package pairlog is a log that a pair of regions shares: append with the pen, read, follow, fence.
//
//	holder's region                                  the other region
//	Writer ─record─▶ segment (hub, epoch, holder) ──pull──▶ Follower ─record─▶ copy of that segment
//	       ◀───────── acknowledged: durable up to n ───────┘
//
// A hub's log is a chain of segments, one per epoch. A segment is appended to only by the incarnation that opened it;
// every open claims a new epoch in the directory. The first record of a segment names its pen and the record of the
// older epoch after which it goes on (the fork); what the older segment holds beyond the fork is its tail: stranded,
// kept, listed, never read as part of the log.
//
// Position identifies a record: (epoch, number) never names two different ones. Numbers run on along the chain: the
// record after n has number n+1, across forks too.
//
// Store is what one region keeps segments in (natslog on JetStream, Memory for tests); Link is how two nodes talk.
// Log is one hub's log in one region; Writer appends under a Pen; both are built here, over any Store and Link.
package pairlog

import (
	"context"
	"encoding/hex"
	"fmt"

	"tandem"
)

// A Position is a place in a hub's log: a record, and an entry in it. The zero Position lies before everything.
type Position struct {
	Epoch  tandem.Epoch
	Number uint64 // of the record, from 1, running on along the chain
	Index  uint32 // of the entry within the record, from 0
}

// String is the position as logs and reports print it: "e3.1042.7".
func (p Position) String() string { return fmt.Sprintf("e%d.%d.%d", p.Epoch, p.Number, p.Index) }

// A Hash is the SHA-256 that chains records: each record's hash covers its bytes, and so the hash of the one before.
type Hash [32]byte

// String is the hash in hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText is the hash in hexadecimal, for JSON.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (h *Hash) UnmarshalText(text []byte) error {
	if len(text) != 2*len(h) {
		return &tandem.Error{Op: "read a hash", Kind: tandem.Invalid}
	}
	_, err := hex.Decode(h[:], text)
	return err
}

// A Kind says what an entry means. Kinds below KindFirstOfHub belong to this package, the others to package hub.
type Kind uint8

// The entry kinds of the log itself.
const (
	KindPen        Kind = 1  // first entry of a segment: Pen as JSON
	KindClose      Kind = 2  // last entry of a segment that was closed: Close as JSON; nothing may follow in this epoch
	KindTrim       Kind = 3  // everything up to a number may be removed by both regions: Trim as JSON
	KindHeartbeat  Kind = 4  // the holder lives; no data
	KindFirstOfHub Kind = 16 // this and larger: package hub's
)

// Limits of one record. A Store's payload limit must be at least MaxRecordBytes + MaxEntryBytes + 4 KiB.
const (
	MaxRecordEntries = 1000
	MaxRecordBytes   = 512 << 10
	// MaxEntryBytes bounds one entry: the largest device message with its properties and our own framing.
	MaxEntryBytes = 300 << 10
)

// A Fork is a record after which a newer epoch goes on: the last of the old epoch that belongs to the log.
type Fork struct {
	Epoch  tandem.Epoch `json:"epoch"`
	Number uint64       `json:"number"` // 0: the log begins here
	Hash   Hash         `json:"hash"`
}

// A Mode is how a hub is replicated.
type Mode string

// The replication modes (design §5). The empty Mode means Async.
const (
	Async         Mode = "async"          // answer when durable here
	SyncAvailable Mode = "sync-available" // answer when durable in the whole in-sync set; a lost peer is removed from it first
	SyncStrict    Mode = "sync-strict"    // answer only when durable in both regions; wait, then refuse retriably
)

// A SegmentID names a segment or a part of a copy of one.
type SegmentID struct {
	Hub    tandem.HubID
	Shard  uint16
	Epoch  tandem.Epoch
	Holder tandem.RegionName // whose pen it was
	Part   uint16            // 0: the holder's own; 1, 2, …: parts of a copy in the other region
}

// A SegmentState is what a Store knows of a segment.
type SegmentState struct {
	First, Last uint64 // sequences kept, from 1; Last < First when empty (First = Last+1)
	Bytes       int64
	Sealed      bool
}

// A Space is the room a Store has.
type Space struct {
	Total, Free int64 // bytes
}

// Store keeps segments durably in one region. Sequences within a segment run from 1 without gaps.
// All calls may be made by many goroutines; Append to one segment by one at a time.
type Store interface {
	// Create makes an empty segment, durably. Creating one that exists is no error.
	Create(ctx context.Context, id SegmentID) error
	// Append stores record at sequence after+1 and returns when it is on disk (fsync). It refuses with ErrSequence when
	// the segment's last sequence is not after, with ErrSealed when it is sealed, with ErrNoSegment when there is none.
	// Any other error (Timeout, Full) means: unknown whether it is stored; ask again with the same bytes.
	Append(ctx context.Context, id SegmentID, after uint64, record []byte) error
	// Read calls fn for the records from sequence from on, in order, until it has given maxBytes (at least one record)
	// or reached the end. The bytes belong to fn. A sequence that should be there and is not gives ErrDamaged.
	Read(ctx context.Context, id SegmentID, from uint64, maxBytes int, fn func(sequence uint64, record []byte) error) error
	// Seal makes a segment refuse every further append, durably and for ever. Sealing twice is no error.
	Seal(ctx context.Context, id SegmentID) error
	// State tells what is kept. ErrNoSegment when there is none.
	State(ctx context.Context, id SegmentID) (SegmentState, error)
	// Segments lists what is kept of a hub, in no order; an empty hub lists all hubs'.
	Segments(ctx context.Context, hub tandem.HubID) ([]SegmentID, error)
	// Trim removes all sequences below first. On a sealed segment it returns Unsupported: delete it whole when all of it may go.
	Trim(ctx context.Context, id SegmentID, first uint64) error
	// Delete removes a segment. Deleting an absent one is no error.
	Delete(ctx context.Context, id SegmentID) error
	// Space tells the room left.
	Space() Space
}

// Link carries requests and messages between the nodes of a pair. Subjects are ours: words joined by dots
// ("log.9f2c….pull"). Payloads are at most 1 MiB. A node may address itself.
type Link interface {
	// Request asks the node that serves subject in region to and returns its answer, or the *tandem.Error its handler
	// returned (kind, op, on and text survive). Unavailable when nobody serves it or the region is dark; Timeout when ctx ended.
	Request(ctx context.Context, to tandem.RegionName, subject string, data []byte) ([]byte, error)
	// Serve answers requests for subject with handle, each in a goroutine of its own (at most 256 at once, the rest wait).
	// stop ends it; calls under way go on.
	Serve(subject string, handle func(ctx context.Context, from tandem.RegionName, data []byte) ([]byte, error)) (stop func(), err error)
	// Send gives a message to the link and returns; it arrives at most once, and in order with others of this sender and subject.
	Send(to tandem.RegionName, subject string, data []byte) error
	// Receive delivers messages for subject, one after another. receive must not block for long and owns data.
	Receive(subject string, receive func(from tandem.RegionName, data []byte)) (stop func(), err error)
	// Up reports whether the peer region's end of the link answers at the moment.
	Up() bool
}

// Conditions that callers act on.
var (
	// ErrFenced: a newer epoch exists or the lease has ended; this writer may neither append nor answer any more.
	ErrFenced = &tandem.Error{Op: "append", Kind: tandem.Fenced}
	// ErrClosed: the segment has its CLOSE; the directory decides who goes on.
	ErrClosed = &tandem.Error{Op: "append", Kind: tandem.Unavailable, Hint: "the hub is moving; try again"}
	// ErrUncertain: the engine left an append unanswered; the segment is dead and must be sealed and read.
	ErrUncertain = &tandem.Error{Op: "append", Kind: tandem.Timeout}
	// ErrFull: less room than the store may use; writes are refused before the engine fails.
	ErrFull = &tandem.Error{Op: "append", Kind: tandem.Full, Hint: "free disk space; writing goes on by itself then"}
	// ErrPeerBehind: sync-strict, and the peer does not have the write in time. It is durable here; whether it stays is open.
	ErrPeerBehind = &tandem.Error{Op: "append", Kind: tandem.Timeout, Hint: "the peer region is dark or slow; try again, or change the hub's replication"}
	// ErrSequence: the segment's end is not where the appender thought.
	ErrSequence = &tandem.Error{Op: "append", Kind: tandem.Conflict}
	// ErrSealed: the segment takes no more records.
	ErrSealed = &tandem.Error{Op: "append", Kind: tandem.Fenced}
	// ErrNoSegment: there is no such segment in this region.
	ErrNoSegment = &tandem.Error{Op: "open a segment", Kind: tandem.NotFound}
	// ErrDamaged: stored records fail their check.
	ErrDamaged = &tandem.Error{Op: "read the log", Kind: tandem.Damaged}
	// ErrDiverged: the peer's records do not go on from ours; following stops.
	ErrDiverged = &tandem.Error{Op: "follow", Kind: tandem.Damaged}
	// ErrBehindTrim: the peer has trimmed what this region lacks; its view must be reseeded.
	ErrBehindTrim = &tandem.Error{Op: "follow", Kind: tandem.Precondition}
	// ErrCopyEnded: this region has ended its copy of the epoch and stores no more of it.
	ErrCopyEnded = &tandem.Error{Op: "follow", Kind: tandem.Fenced}
)
