package pairlog

import (
	"context"
	"time"

	"tandem"
)

// WriterOptions say under which conditions a Writer answers.
type WriterOptions struct {
	Valid       func() bool
	Mode        Mode
	InSync      InSync
	PeerTimeout time.Duration
	RefuseAt    float64
}

// InSync is how the writer changes the in-sync set in the directory.
type InSync interface {
	Contains(r tandem.RegionName) bool
	Remove(ctx context.Context, r tandem.RegionName) error
	Add(ctx context.Context, r tandem.RegionName) error
}

// Writer appends to one segment under a pen.
type Writer struct{ pen Pen }

func (w *Writer) Pen() Pen                                                  { return w.pen }
func (w *Writer) Append(ctx context.Context, b *Batch) (Record, error)      { return Record{}, errNotYet }
func (w *Writer) Close(ctx context.Context, c Close) (Record, error)        { return Record{}, errNotYet }
func (w *Writer) PeerAcked() (number uint64, age time.Duration, known bool) { return 0, 0, false }
func (w *Writer) OnPeerAck(fn func(number uint64))                          {}
