package directory

import (
	"context"
	"crypto/tls"
	"errors"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"tandem"
)

// The client's patience. Losing a member costs one patience at most, and the next call goes elsewhere at once.
const (
	callDeadline  = 2 * time.Second        // of a call whose context has none
	patience      = 400 * time.Millisecond // before the same request is also sent to another member
	provenFor     = time.Second            // how long a member that answered counts as healthy
	retryPause    = 50 * time.Millisecond  // between rounds when no member takes a request
	defaultPrefix = "tandem/"
)

// ClientOptions shape an Etcd.
type ClientOptions struct {
	Endpoints []string    // client URLs of the members, the nearest first
	TLS       *tls.Config // nil for plain http URLs
	Prefix    string      // the installation's, before every key; "tandem/" when empty
}

// Etcd is a Store kept by etcd members. It prefers the first endpoint and turns to the others while that one is dark;
// it returns to it when it answers again.
type Etcd struct {
	prefix string
	ctx    context.Context // ends with Close; bounds what goes on behind calls
	cancel context.CancelFunc
	lanes  sync.WaitGroup

	mu    sync.Mutex // guards the sites' fields
	sites []*site
}

var _ Store = (*Etcd)(nil)

// Dial prepares a client and returns without waiting for any member. The client lives until Close, or the end of ctx.
// Invalid when an endpoint can't be understood.
func Dial(ctx context.Context, options ClientOptions) (*Etcd, error) {
	if len(options.Endpoints) == 0 {
		return nil, &tandem.Error{Op: "dial the directory", Kind: tandem.Invalid, Err: errors.New("no endpoints")}
	}
	e := &Etcd{prefix: options.Prefix}
	if e.prefix == "" {
		e.prefix = defaultPrefix
	}
	e.prefix = strings.TrimSuffix(e.prefix, "/") + "/"
	e.ctx, e.cancel = context.WithCancel(ctx)
	for _, endpoint := range options.Endpoints {
		client, err := clientv3.New(clientv3.Config{
			Endpoints:            []string{endpoint},
			TLS:                  options.TLS,
			Logger:               zap.NewNop(),
			Context:              e.ctx,
			DialKeepAliveTime:    10 * time.Second, // the least that gRPC allows; probes find a dark member long before
			DialKeepAliveTimeout: 2 * time.Second,
			MaxUnaryRetries:      1, // which request may be sent again, and where, is decided here
			MaxCallSendMsgSize:   4 * MaxBytes,
			DialOptions: []grpc.DialOption{
				grpc.WithStatsHandler(wire{}),
				grpc.WithChainUnaryInterceptor(atOnce),
				grpc.WithConnectParams(grpc.ConnectParams{
					MinConnectTimeout: patience,
					Backoff: backoff.Config{
						BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second,
					},
				}),
			},
		})
		if err != nil {
			_ = e.Close()
			return nil, &tandem.Error{Op: "dial the directory", Kind: tandem.Invalid, On: endpoint, Err: err}
		}
		e.sites = append(e.sites, &site{client: client})
	}
	return e, nil
}

// atOnce lets a call fail when there is no connection; etcd's client would have it wait for one.
func atOnce(
	ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption,
) error {
	return invoke(ctx, method, request, reply, conn, append(options[:len(options):len(options)], grpc.WaitForReady(false))...)
}

// Close ends the client: calls under way fail, watches are closed. It returns when nothing of it runs any more.
func (e *Etcd) Close() error {
	e.mu.Lock()
	e.cancel()
	e.mu.Unlock()
	e.lanes.Wait()
	for _, s := range e.sites {
		_ = s.client.Close()
	}
	return nil
}

// start runs f in a lane that Close waits for, and reports false when the client is closed. Called with mu held.
func (e *Etcd) start(f func()) bool {
	if e.ctx.Err() != nil {
		return false
	}
	e.lanes.Go(f)
	return true
}

// Get is Store.Get.
func (e *Etcd) Get(ctx context.Context, key string) (Item, error) {
	if err := checkKey(opRead, key); err != nil {
		return Item{}, err
	}
	answer, err := e.read(ctx, e.prefix+key)
	if err != nil {
		return Item{}, unavailable(opRead, key, err)
	}
	if len(answer.Kvs) == 0 {
		return Item{}, ErrNotFound
	}
	return e.item(answer.Kvs[0]), nil
}

// List is Store.List.
func (e *Etcd) List(ctx context.Context, prefix string) ([]Item, Revision, error) {
	answer, err := e.read(ctx, e.prefix+prefix, clientv3.WithPrefix())
	if err != nil {
		return nil, 0, unavailable(opRead, prefix, err)
	}
	items := make([]Item, 0, len(answer.Kvs))
	for _, kv := range answer.Kvs {
		items = append(items, e.item(kv))
	}
	return items, Revision(answer.Header.Revision), nil
}

func (e *Etcd) read(ctx context.Context, key string, options ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	answer, _, err := race(ctx, e, request[*clientv3.GetResponse]{
		repeat: true,
		settle: func(*clientv3.GetResponse) bool { return true },
		send: func(ctx context.Context, c *clientv3.Client) (*clientv3.GetResponse, error) {
			return c.Get(ctx, key, options...)
		},
	})
	return answer, err
}

// Commit is Store.Commit.
func (e *Etcd) Commit(ctx context.Context, txn Txn) (Committed, error) {
	if err := txn.check(); err != nil {
		return Committed{}, err
	}
	changes := len(txn.Then) > 0
	repeat := !changes || txn.guarded()
	if !repeat && !e.fresh() {
		// This one can't be sent twice: find out first, by a request that can, who is there to take it.
		if _, err := e.read(ctx, e.prefix+"probe"); err != nil {
			return Committed{}, unavailable(opCommit, "", err)
		}
	}
	answer, fate, err := race(ctx, e, request[*clientv3.TxnResponse]{
		repeat: repeat,
		settle: func(r *clientv3.TxnResponse) bool { return r.Succeeded || !changes },
		send: func(ctx context.Context, c *clientv3.Client) (*clientv3.TxnResponse, error) {
			return e.txn(ctx, c, txn)
		},
	})
	if err != nil {
		if fate == unknown && !changes {
			fate = undone
		}
		return Committed{}, fate.fail(err)
	}
	return e.committed(answer), nil
}

// guarded reports whether sending txn twice is safe: it changes a key that it compares with an existing revision. Once
// it has happened that revision is gone for ever, so it can't happen again; a compare with "absent" would not do, since
// the key may be deleted later.
func (t Txn) guarded() bool {
	for _, cmp := range t.If {
		for _, change := range t.Then {
			if cmp.Revision > 0 && change.Key == cmp.Key {
				return true
			}
		}
	}
	return false
}

func (e *Etcd) txn(ctx context.Context, c *clientv3.Client, txn Txn) (*clientv3.TxnResponse, error) {
	var conditions []clientv3.Cmp
	var changes, now []clientv3.Op
	seen := make(map[string]bool, len(txn.If))
	for _, cmp := range txn.If {
		key := e.prefix + cmp.Key
		conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(key), "=", int64(cmp.Revision)))
		if !seen[key] {
			seen[key] = true
			now = append(now, clientv3.OpGet(key))
		}
	}
	for _, change := range txn.Then {
		if change.Delete {
			changes = append(changes, clientv3.OpDelete(e.prefix+change.Key))
		} else {
			changes = append(changes, clientv3.OpPut(e.prefix+change.Key, string(change.Value)))
		}
	}
	return c.Txn(ctx).If(conditions...).Then(changes...).Else(now...).Commit()
}

func (e *Etcd) committed(answer *clientv3.TxnResponse) Committed {
	done := Committed{OK: answer.Succeeded, Revision: Revision(answer.Header.Revision)}
	if done.OK {
		return done
	}
	for _, response := range answer.Responses {
		for _, kv := range response.GetResponseRange().GetKvs() {
			done.Now = append(done.Now, e.item(kv))
		}
	}
	return done
}

func (e *Etcd) item(kv *mvccpb.KeyValue) Item {
	return Item{Key: string(kv.Key[len(e.prefix):]), Value: kv.Value, Revision: Revision(kv.ModRevision)}
}
