package pairlog

import (
	"context"
	"log/slog"
	"time"

	"tandem"
)

var errNotYet = &tandem.Error{Op: "use the log", Kind: tandem.Unsupported}

// Options are what a Log works on.
type Options struct {
	Hub          tandem.HubID
	Shard        uint16
	Region, Peer tandem.RegionName
	Store        Store
	Link         Link
	Clock        tandem.Clock
	Logger       *slog.Logger
	Notify       tandem.Notify
	RecentBytes  int    // of newest records kept in memory for the follower and readers; default 16 MiB
	VerifyAfter  uint64 // Open reads and verifies the records after this number; a complete snapshot vouches for the others
}

// Log is one hub's log in one region.
type Log struct{ o Options }

// Lag is how far this region's copy is behind the holder.
type Lag struct {
	Records, Items, Bytes uint64
	Age                   time.Duration
	Known                 bool
}

// A Tail is what this region holds of an epoch beyond the fork that the chain took.
type Tail struct {
	Epoch                   tandem.Epoch
	Holder                  tandem.RegionName
	First, Last             uint64
	Records, Entries, Bytes uint64
}

func Open(ctx context.Context, o Options) (*Log, error)              { return &Log{o: o}, nil }
func (l *Log) Run(ctx context.Context) error                         { return errNotYet }
func (l *Log) Epoch() tandem.Epoch                                   { return 0 }
func (l *Log) End() Fork                                             { return Fork{} }
func (l *Log) EndTime() time.Time                                    { return time.Time{} }
func (l *Log) Prepare(ctx context.Context, epoch tandem.Epoch) error { return errNotYet }
func (l *Log) Begin(ctx context.Context, pen Pen, w WriterOptions) (*Writer, error) {
	return nil, errNotYet
}
func (l *Log) Follow(ctx context.Context, epoch tandem.Epoch, holder tandem.RegionName) error {
	return errNotYet
}
func (l *Log) Adopt(ctx context.Context, b []Branch) error { return errNotYet }
func (l *Log) EndCopy(ctx context.Context, epoch tandem.Epoch) (Fork, error) {
	return Fork{}, errNotYet
}
func (l *Log) Resume(ctx context.Context, epoch tandem.Epoch) error { return errNotYet }
func (l *Log) Seal(ctx context.Context, epoch tandem.Epoch) error   { return errNotYet }
func (l *Log) Read(ctx context.Context, after uint64, maxBytes int, fn func(Record) error) (next uint64, err error) {
	return after, errNotYet
}
func (l *Log) Wait(ctx context.Context, after uint64) error { return errNotYet }
func (l *Log) Visible() uint64                              { return 0 }
func (l *Log) Tail(ctx context.Context, epoch tandem.Epoch, fn func(Record) error) error {
	return errNotYet
}
func (l *Log) Tails(ctx context.Context) ([]Tail, error)   { return nil, errNotYet }
func (l *Log) Trim(ctx context.Context, upTo uint64) error { return errNotYet }
func (l *Log) Lag() Lag                                    { return Lag{} }
func (l *Log) Check(ctx context.Context) error             { return errNotYet }
