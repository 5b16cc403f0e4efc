package sim

import (
	"context"
	"sync"
	"time"

	"tandem"
	"tandem/directory"
	"tandem/pairlog"
)

// What one process sees of its disk, the directory and the link. Each belongs to one life and ends with its gate.

// A disk keeps what is stored when its process dies; a write that takes its time may be stored or not when that happens.
type disk struct {
	*pairlog.Memory
	gate    *gate
	weather *weather
}

// Append stores half way through the time it takes. When its caller gives up before, it may arrive all the same, later.
func (d *disk) Append(ctx context.Context, id pairlog.SegmentID, after uint64, record []byte) error {
	takes := d.weather.takes(diskMost)
	if err := d.passAfter(ctx, takes/2); err != nil {
		if d.weather.chance(0.3) && !d.gate.isDead() {
			late := d.weather.takes(3 * time.Second)
			record = append([]byte(nil), record...)
			d.weather.flying.Go(func() {
				bounded, cancel := context.WithTimeout(context.Background(), 5*time.Second)
				defer cancel()
				if d.passAfter(bounded, late) == nil {
					_ = d.Memory.Append(bounded, id, after, record)
				}
			})
		}
		return &tandem.Error{Op: "append", Kind: tandem.Timeout, Err: err}
	}
	err := d.Memory.Append(ctx, id, after, record)
	if failed := d.passAfter(ctx, takes/2); failed != nil {
		return &tandem.Error{Op: "append", Kind: tandem.Timeout, Err: failed}
	}
	return err
}

func (d *disk) passAfter(ctx context.Context, takes time.Duration) error {
	if err := sleep(ctx, takes); err != nil {
		return err
	}
	return d.gate.pass(ctx)
}

func (d *disk) change(ctx context.Context, do func() error) error {
	if err := d.passAfter(ctx, d.weather.takes(diskMost)); err != nil {
		return &tandem.Error{Op: "change the store", Kind: tandem.Timeout, Err: err}
	}
	err := do()
	if failed := d.gate.pass(ctx); failed != nil {
		return &tandem.Error{Op: "change the store", Kind: tandem.Timeout, Err: failed}
	}
	return err
}

func (d *disk) Create(ctx context.Context, id pairlog.SegmentID) error {
	return d.change(ctx, func() error { return d.Memory.Create(ctx, id) })
}

func (d *disk) Seal(ctx context.Context, id pairlog.SegmentID) error {
	return d.change(ctx, func() error { return d.Memory.Seal(ctx, id) })
}

func (d *disk) Trim(ctx context.Context, id pairlog.SegmentID, first uint64) error {
	return d.change(ctx, func() error { return d.Memory.Trim(ctx, id, first) })
}

func (d *disk) Delete(ctx context.Context, id pairlog.SegmentID) error {
	return d.change(ctx, func() error { return d.Memory.Delete(ctx, id) })
}

// A site is the directory as one process reaches it.
type site struct {
	directory.Store
	gate    *gate
	weather *weather
}

// call bounds a call as the contract says, and lets it take its time both ways.
func call[T any](s *site, ctx context.Context, write bool, do func(context.Context) (T, error)) (T, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
	}
	var none T
	if err := s.way(ctx); err != nil {
		return none, &tandem.Error{Op: "reach the directory", Kind: tandem.Unavailable, Err: err}
	}
	v, err := do(ctx)
	if failed := s.way(ctx); failed != nil && err == nil {
		kind := tandem.Unavailable
		if write {
			kind = tandem.Timeout
		}
		return none, &tandem.Error{Op: "reach the directory", Kind: kind, Err: failed}
	}
	return v, err
}

func (s *site) way(ctx context.Context) error {
	if err := sleep(ctx, s.weather.takes(dirMost)); err != nil {
		return err
	}
	return s.gate.pass(ctx)
}

func (s *site) Get(ctx context.Context, key string) (directory.Item, error) {
	return call(s, ctx, false, func(ctx context.Context) (directory.Item, error) { return s.Store.Get(ctx, key) })
}

func (s *site) List(ctx context.Context, prefix string) ([]directory.Item, directory.Revision, error) {
	type listed struct {
		items []directory.Item
		at    directory.Revision
	}
	l, err := call(s, ctx, false, func(ctx context.Context) (listed, error) {
		items, at, err := s.Store.List(ctx, prefix)
		return listed{items, at}, err
	})
	return l.items, l.at, err
}

func (s *site) Commit(ctx context.Context, txn directory.Txn) (directory.Committed, error) {
	return call(s, ctx, true, func(ctx context.Context) (directory.Committed, error) { return s.Store.Commit(ctx, txn) })
}

// A link is one process's end of the link.
type link struct {
	*pairlog.MemoryLink
	gate    *gate
	weather *weather

	mu   sync.Mutex
	last map[string]chan struct{} // per peer and subject: closed when the message before is on its way
}

// Request takes its time each way; requests overtake each other.
func (l *link) Request(ctx context.Context, to tandem.RegionName, subject string, data []byte) ([]byte, error) {
	if err := l.way(ctx); err != nil {
		return nil, &tandem.Error{Op: "ask the peer region", Kind: tandem.Unavailable, On: string(to), Err: err}
	}
	answer, err := l.MemoryLink.Request(ctx, to, subject, data)
	if failed := l.way(ctx); failed != nil {
		return nil, &tandem.Error{Op: "ask the peer region", Kind: tandem.Timeout, On: string(to), Err: failed}
	}
	return answer, err
}

func (l *link) way(ctx context.Context) error {
	if err := sleep(ctx, l.weather.linkTakes()); err != nil {
		return err
	}
	return l.gate.pass(ctx)
}

// Send keeps the order of one subject, and loses some.
func (l *link) Send(to tandem.RegionName, subject string, data []byte) error {
	if l.gate.isDead() {
		return errDead
	}
	if l.weather.loses() {
		return nil
	}
	data = append([]byte(nil), data...)
	key := string(to) + " " + subject
	l.mu.Lock()
	before, mine := l.last[key], make(chan struct{})
	l.last[key] = mine
	l.mu.Unlock()
	takes := l.weather.linkTakes()
	l.weather.flying.Go(func() {
		defer close(mine)
		time.Sleep(takes)
		if before != nil {
			<-before
		}
		if l.gate.pass(context.Background()) == nil {
			_ = l.MemoryLink.Send(to, subject, data)
		}
	})
	return nil
}

// Serve lets a process answer while it goes on.
func (l *link) Serve(subject string, handle func(context.Context, tandem.RegionName, []byte) ([]byte, error)) (func(), error) {
	return l.MemoryLink.Serve(subject, func(ctx context.Context, from tandem.RegionName, data []byte) ([]byte, error) {
		if err := l.gate.pass(ctx); err != nil {
			return nil, err
		}
		answer, err := handle(ctx, from, data)
		if failed := l.gate.pass(ctx); failed != nil {
			return nil, failed
		}
		return answer, err
	})
}

// Receive is Link.Receive, while the process goes on.
func (l *link) Receive(subject string, receive func(tandem.RegionName, []byte)) (func(), error) {
	return l.MemoryLink.Receive(subject, func(from tandem.RegionName, data []byte) {
		if l.gate.pass(context.Background()) == nil {
			receive(from, data)
		}
	})
}
