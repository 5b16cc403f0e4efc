package pairlog

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"tandem"
)

// The peer pulls: it asks for the record after one that it names by hash, and says how far it has ours durably.
// The holder answers at once when there is one, else it waits a little for the next append.
const (
	pullVersion  = 1
	pullBytes    = 108
	answerBytes  = 96
	maxPullBytes = 640 << 10 // records in one answer; a single larger one does not exist
	maxPullWait  = 200 * time.Millisecond
)

func (l *Log) pullSubject() string { return l.subject("pull") }
func (l *Log) ackSubject() string  { return l.subject("ack") }
func (l *Log) subject(verb string) string {
	if l.o.Shard == 0 {
		return "log." + string(l.o.Hub) + "." + verb
	}
	return fmt.Sprintf("log.%s.%d.%s", l.o.Hub, l.o.Shard, verb)
}

// pull is a request: the records after Prev in the chain of an epoch.
type pull struct {
	epoch     tandem.Epoch // 0: whatever is newest
	after     uint64
	prev      Hash
	acked     uint64 // durable there
	ackedHash Hash
	maxBytes  uint32
	wait      time.Duration
	wantChain bool
}

func (p *pull) encode() []byte {
	b := make([]byte, pullBytes)
	be := binary.BigEndian
	b[0] = pullVersion
	if p.wantChain {
		b[1] = 1
	}
	be.PutUint64(b[4:], uint64(p.epoch))
	be.PutUint64(b[12:], p.after)
	copy(b[20:], p.prev[:])
	be.PutUint64(b[52:], p.acked)
	copy(b[60:], p.ackedHash[:])
	be.PutUint32(b[92:], p.maxBytes)
	be.PutUint32(b[96:], uint32(p.wait/time.Millisecond))
	return b
}

var errPull = &tandem.Error{Op: "read a pull", Kind: tandem.Invalid}

func decodePull(b []byte) (p pull, err error) {
	if len(b) != pullBytes || b[0] != pullVersion {
		return p, errPull
	}
	be := binary.BigEndian
	return pull{
		wantChain: b[1]&1 != 0, epoch: tandem.Epoch(be.Uint64(b[4:])), after: be.Uint64(b[12:]), prev: Hash(b[20:52]),
		acked: be.Uint64(b[52:]), ackedHash: Hash(b[60:92]),
		maxBytes: min(be.Uint32(b[92:]), maxPullBytes), wait: min(time.Duration(be.Uint32(b[96:]))*time.Millisecond, maxPullWait),
	}, nil
}

// A pullStatus says what became of a pull.
type pullStatus uint8

const (
	pullOK       pullStatus = iota
	pullUnknown             // the epoch is not in the chain here (yet)
	pullTrimmed             // the record after floor is the oldest here
	pullDiverged            // the record named is not in the chain here
)

// pulled is an answer.
type pulled struct {
	status  pullStatus
	newest  tandem.Epoch // of the chain there
	end     mark         // of the epoch's chain there
	now     time.Time    // the holder's clock
	floor   Fork
	chain   []byte // branches as JSON, when asked for
	records []Record
}

func (a *pulled) encode() []byte {
	n := answerBytes + len(a.chain)
	for _, r := range a.records {
		n += 4 + len(r.Bytes)
	}
	b := make([]byte, answerBytes, n)
	be := binary.BigEndian
	b[0], b[1] = pullVersion, byte(a.status)
	be.PutUint32(b[4:], uint32(len(a.chain)))
	be.PutUint64(b[8:], uint64(a.newest))
	be.PutUint64(b[16:], a.end.Number)
	be.PutUint64(b[24:], a.end.entries)
	be.PutUint64(b[32:], a.end.bytes)
	be.PutUint64(b[40:], uint64(a.now.UnixMicro()))
	be.PutUint64(b[48:], uint64(a.floor.Epoch))
	be.PutUint64(b[56:], a.floor.Number)
	copy(b[64:], a.floor.Hash[:])
	b = append(b, a.chain...)
	for _, r := range a.records {
		b = be.AppendUint32(b, uint32(len(r.Bytes)))
		b = append(b, r.Bytes...)
	}
	return b
}

var errAnswer = &tandem.Error{Op: "read the answer to a pull", Kind: tandem.Invalid}

// decodePulled reads an answer and verifies each record by itself.
func decodePulled(b []byte) (a pulled, branches []Branch, err error) {
	if len(b) < answerBytes || b[0] != pullVersion {
		return a, nil, errAnswer
	}
	be := binary.BigEndian
	a = pulled{
		status: pullStatus(b[1]), newest: tandem.Epoch(be.Uint64(b[8:])),
		end:   mark{Fork: Fork{Number: be.Uint64(b[16:])}, entries: be.Uint64(b[24:]), bytes: be.Uint64(b[32:])},
		now:   time.UnixMicro(int64(be.Uint64(b[40:]))),
		floor: Fork{Epoch: tandem.Epoch(be.Uint64(b[48:])), Number: be.Uint64(b[56:]), Hash: Hash(b[64:96])},
	}
	n, rest := be.Uint32(b[4:]), b[answerBytes:]
	if uint64(n) > uint64(len(rest)) {
		return a, nil, errAnswer
	}
	if n > 0 {
		if err := json.Unmarshal(rest[:n], &branches); err != nil {
			return a, nil, errAnswer
		}
	}
	for rest = rest[n:]; len(rest) > 0; {
		if len(rest) < 4 {
			return a, nil, errAnswer
		}
		n := be.Uint32(rest)
		if rest = rest[4:]; uint64(n) > uint64(len(rest)) {
			return a, nil, errAnswer
		}
		r, err := DecodeRecord(rest[:n:n])
		if err != nil {
			return a, nil, err
		}
		a.records, rest = append(a.records, r), rest[n:]
	}
	return a, branches, nil
}

// Run serves the peer's pulls and seals what was closed, until ctx ends; it returns ctx's error. Without it the peer can
// neither follow nor compare.
func (l *Log) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if l.o.Link != nil {
		stop, err := l.o.Link.Serve(l.pullSubject(), func(_ context.Context, from tandem.RegionName, data []byte) ([]byte, error) {
			return l.servePull(ctx, from, data)
		})
		if err != nil {
			return err
		}
		defer stop()
		stopAcks, err := l.o.Link.Receive(l.ackSubject(), func(from tandem.RegionName, data []byte) {
			if p, err := decodePull(data); err == nil && from == l.o.Peer {
				l.takeAck(ctx, &p)
			}
		})
		if err != nil {
			return err
		}
		defer stopAcks()
	}
	for {
		if err := l.sealClosed(ctx); err != nil && ctx.Err() == nil {
			l.logger.Error("a closed segment is not sealed yet", "err", err)
			l.pause(ctx, time.Second)
			continue
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-l.sealSoon:
		}
	}
}

// takeAck notes how far the peer has our chain, when the record it names is one of ours.
func (l *Log) takeAck(ctx context.Context, p *pull) {
	if p.acked == 0 {
		return
	}
	l.mu.RLock()
	lay := l.layout()
	hash, found := l.known(p.acked)
	l.mu.RUnlock()
	if p.acked > lay.end.Number || p.acked < lay.floor.Number {
		return
	}
	if !found {
		var err error
		if hash, err = l.hashIn(ctx, lay, p.acked); err != nil {
			return
		}
	}
	if hash == p.ackedHash {
		l.acked(p.acked)
	}
}

// servePull answers one pull.
func (l *Log) servePull(ctx context.Context, from tandem.RegionName, data []byte) ([]byte, error) {
	p, err := decodePull(data)
	if err != nil {
		return nil, err
	}
	if from != l.o.Peer {
		return nil, &tandem.Error{Op: "pull", Kind: tandem.Forbidden, On: string(from), Err: errors.New("not the peer region")}
	}
	l.takeAck(ctx, &p)
	var late <-chan time.Time
	for {
		l.mu.Lock()
		a, limit := l.answer(&p)
		var changed <-chan struct{}
		if (a.status == pullOK && p.after >= limit || a.status == pullUnknown) && p.wait > 0 {
			changed = l.change()
		}
		l.mu.Unlock()
		if changed == nil {
			return l.complete(ctx, &p, &a, limit)
		}
		if late == nil {
			late = l.o.Clock.After(p.wait)
		}
		select {
		case <-changed:
		case <-late:
			p.wait = 0
		case <-ctx.Done():
			return nil, &tandem.Error{Op: "pull", Kind: tandem.Unavailable, On: string(l.o.Hub), Err: context.Cause(ctx)}
		}
	}
}

// answer is the answer without its records, and the last number that belongs to the epoch. Called with mu held.
func (l *Log) answer(p *pull) (a pulled, limit uint64) {
	a = pulled{now: l.o.Clock.Now(), floor: l.lay.floor.Fork, end: l.lay.end}
	limit = l.lay.end.Number
	at := -1
	for i, b := range l.chain {
		a.newest = b.Epoch
		if b.Epoch == p.epoch || p.epoch == 0 {
			at = i
		}
	}
	switch {
	case at < 0 && p.epoch != 0:
		a.status = pullUnknown
		return a, limit
	case at >= 0:
		limit = min(limit, limitOf(l.chain, at))
	}
	switch {
	case p.after < l.lay.floor.Number:
		a.status = pullTrimmed
	case p.after > limit && p.epoch != 0 && limit == l.lay.end.Number:
		a.status = pullDiverged
	}
	return a, limit
}

// complete adds chain and records to an answer.
func (l *Log) complete(ctx context.Context, p *pull, a *pulled, limit uint64) ([]byte, error) {
	if p.wantChain || a.status == pullUnknown {
		var err error
		if a.chain, err = json.Marshal(l.Branches()); err != nil {
			return nil, err
		}
	}
	if a.status != pullOK || p.after > limit || p.maxBytes == 0 {
		return a.encode(), nil
	}
	l.mu.RLock()
	hash, found := l.known(p.after)
	lay, clipped := l.layout(), l.clipped
	l.mu.RUnlock()
	if !found {
		var err error
		if hash, err = l.hashIn(ctx, lay, p.after); err != nil {
			return nil, err
		}
	}
	if hash != p.prev {
		a.status = pullDiverged
		return a.encode(), nil
	}
	_, err := l.read(ctx, p.after, limit, int(p.maxBytes), func(r Record) error {
		a.records = append(a.records, r)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if n := len(a.records); n > 0 {
		h := &a.records[n-1].Header
		l.mu.Lock()
		if l.clipped == clipped {
			l.given.push(Fork{Epoch: h.Epoch, Number: h.Number, Hash: h.Hash})
		}
		l.mu.Unlock()
	}
	return a.encode(), nil
}
