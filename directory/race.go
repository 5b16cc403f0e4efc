package directory

import (
	"cmp"
	"context"
	"errors"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/raft/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"tandem"
)

// A fate is what is known of a request that failed.
type fate uint8

const (
	undone  fate = iota // it certainly did not happen and may be sent elsewhere
	unknown             // it may have happened, or may still
	refused             // it did not happen, and would be refused everywhere
)

func (f fate) fail(err error) error {
	kind := tandem.Unavailable
	switch f {
	case unknown:
		kind = tandem.Timeout
	case refused:
		kind = refusals[etcdCause(err)]
	}
	return &tandem.Error{Op: opCommit, Kind: kind, Err: err}
}

// refusals are etcd's final answers, given before a request is proposed.
var refusals = map[error]tandem.Kind{
	rpctypes.ErrRequestTooLarge:  tandem.TooLarge,
	rpctypes.ErrNoSpace:          tandem.Full,
	rpctypes.ErrPermissionDenied: tandem.Unauthorized,
	rpctypes.ErrInvalidAuthToken: tandem.Unauthorized,
}

// unproposed are etcd's answers that say: not by me, not now.
var unproposed = []error{
	rpctypes.ErrNoLeader, rpctypes.ErrTooManyRequests, rpctypes.ErrNotCapable,
}

// judge tells the fate of a failed attempt. Sent is whether the request's first byte was handed to a connection.
func judge(err error, sent bool) fate {
	if _, final := refusals[etcdCause(err)]; final {
		return refused
	}
	if !sent {
		return undone
	}
	for _, e := range unproposed {
		if errors.Is(err, e) {
			return undone
		}
	}
	if s, ok := status.FromError(err); ok && s.Code() == codes.Unknown && s.Message() == raft.ErrProposalDropped.Error() {
		return undone
	}
	return unknown
}

func etcdCause(err error) error {
	var e rpctypes.EtcdError
	if errors.As(err, &e) {
		return e
	}
	return nil
}

// wire notes in an attempt's context that its request went out.
type wire struct{}

type sentKey struct{}

func (wire) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

func (wire) HandleRPC(ctx context.Context, event stats.RPCStats) {
	if _, ok := event.(*stats.OutHeader); ok {
		if sent, ok := ctx.Value(sentKey{}).(*atomic.Bool); ok {
			sent.Store(true)
		}
	}
}

func (wire) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

func (wire) HandleConn(context.Context, stats.ConnStats) {}

// A request is something to ask of any member.
type request[T any] struct {
	repeat bool         // sending it twice is safe
	settle func(T) bool // this answer stands, whatever became of other attempts
	send   func(context.Context, *clientv3.Client) (T, error)
}

type answer[T any] struct {
	value T
	err   error
	fate  fate
}

// A tally is what the attempts at one request have come to so far.
type tally[T any] struct {
	request  request[T]
	flying   int        // attempts that have not come back
	doubt    bool       // one came back that may have happened
	over     bool       // no further attempt
	negative *answer[T] // a "no"; it counts when no attempt can be what it was refused for
	last     error
}

// take adds an attempt that came back, and reports true when its answer is the request's.
func (t *tally[T]) take(a answer[T]) bool {
	t.flying--
	switch {
	case a.err == nil && t.request.settle(a.value):
		return true
	case a.err == nil || a.fate == refused:
		t.negative, t.over = &a, true
	default:
		t.last = a.err
		t.doubt = t.doubt || a.fate == unknown
		t.over = t.over || t.doubt && !t.request.repeat
	}
	return false
}

// end is the answer once nothing is flying and nothing will be.
func (t *tally[T]) end(cause error) answer[T] {
	switch {
	case t.negative != nil && !t.doubt:
		return *t.negative
	case t.negative != nil:
		return answer[T]{err: errors.New("refused after an attempt that may have happened"), fate: unknown}
	case t.doubt:
		return answer[T]{err: cmp.Or(t.last, cause), fate: unknown}
	}
	return answer[T]{err: cmp.Or(t.last, cause), fate: undone}
}

var errClosed = errors.New("the directory's client is closed")

// race asks the members in turn until one answers: the next one at once when an attempt certainly came to nothing, and
// after some patience, beside the first, when the request may be repeated. The fate is that of the request as a whole.
func race[T any](ctx context.Context, e *Etcd, r request[T]) (T, fate, error) {
	if ctx.Err() != nil {
		var none T
		return none, undone, context.Cause(ctx)
	}
	if _, has := ctx.Deadline(); !has {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, callDeadline)
		defer stop()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.ctx, cancel)()

	order := e.order()
	t := tally[T]{request: r}
	answers := make(chan answer[T], len(order)) // no more attempts than members at a time
	launched := 0
	launch := func() {
		s := order[launched%len(order)]
		launched++
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.start(func() { answers <- attempt(ctx, e, s, r) }) {
			t.flying++
		} else {
			t.over = true
		}
	}
	launch()
	if t.flying == 0 {
		a := t.end(errClosed)
		return a.value, a.fate, a.err
	}
	hurry := time.NewTicker(patience)
	defer hurry.Stop()
	ended := ctx.Done()
	for {
		select {
		case a := <-answers:
			if t.take(a) {
				return a.value, a.fate, nil
			}
		case <-hurry.C:
			if t.negative != nil { // what keeps us waiting is what it may have been refused for: the caller has to look
				cancel()
			} else if r.repeat && !t.over && t.flying < len(order) {
				launch()
			}
		case <-ended:
			ended, t.over = nil, true // what is flying comes back now
		}
		if t.flying == 0 && !t.over && launched >= len(order) {
			pause(ctx, retryPause)
			t.over = ctx.Err() != nil
		}
		if t.flying == 0 && !t.over {
			launch()
		}
		if t.flying == 0 && t.over {
			a := t.end(cmp.Or(context.Cause(ctx), errClosed))
			return a.value, a.fate, a.err
		}
	}
}

func attempt[T any](ctx context.Context, e *Etcd, s *site, r request[T]) answer[T] {
	sent := new(atomic.Bool)
	slow := time.AfterFunc(patience, func() { e.mark(s, false) })
	value, err := r.send(clientv3.WithRequireLeader(context.WithValue(ctx, sentKey{}, sent)), s.client)
	slow.Stop()
	if err == nil {
		e.mark(s, true)
		return answer[T]{value: value}
	}
	f := judge(err, sent.Load())
	if f != refused && ctx.Err() == nil {
		e.mark(s, false)
	}
	return answer[T]{err: err, fate: f}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
