// Package region is one region's process, assembled: what `tandem serve` runs, and what a witness and a directory member
// run. It reads top to bottom; nothing here decides anything about a hub.
//
//	data directory ─▶ directory (a process of its own) ─▶ log engine and link ─▶ catalog ─▶ lease ─▶ replicas
//	                                                        ─▶ failover ─▶ doors: MQTT, HTTPS, management, metrics
package region

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"tandem"
	"tandem/catalog"
	"tandem/directory"
	"tandem/failover"
	"tandem/pairlog/natslog"
)

// A node is what Run puts together.
type node struct {
	c         Config
	logger    *slog.Logger
	clock     tandem.Clock
	metrics   *metrics
	directory *directory.Etcd
	engine    *natslog.Server
	probe     *probe
	catalog   *catalog.Catalog
	lease     *lease
	replicas  *replicas
	failover  *failover.Controller
	changed   chan struct{} // the catalog changed
	opened    atomic.Bool   // all of the above are there
	serving   atomic.Bool   // the doors answer
	waiting   atomic.Value  // what is waited for before that, a string
}

// memoryLimit keeps the garbage collector busy before the process grows beyond its budget (design §10).
const memoryLimit = 480 << 20

// Run is a region's node until ctx ends; then it has stopped answering, kept everything on disk and given up its lease.
// It starts the site's directory member as a child process. Errors say what could not be started.
func Run(ctx context.Context, c Config, logger *slog.Logger) error {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
		debug.SetGCPercent(300) // the heap is small and short-lived; the limit above is what bounds it
	}
	logger = logger.With("region", c.Region)
	life, err := beginLife(c.DataDir)
	if err != nil {
		return err
	}
	defer life.end()
	doors, err := listen(&c)
	if err != nil {
		return err
	}
	defer doors.close()

	n := &node{c: c, logger: logger, clock: tandem.SystemClock{}, changed: make(chan struct{}, 1)}
	n.metrics = newMetrics(n)
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	member, leave := context.WithCancel(context.WithoutCancel(ctx))
	var left sync.WaitGroup
	left.Go(func() { // leaves last: the lease is given up through it
		if err := n.runDirectory(member); err != nil {
			stop(err)
		}
	})
	defer left.Wait()
	defer leave()
	if err := n.serve(ctx, life, doors); err != nil {
		return err
	}
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// serve runs everything above the directory.
func (n *node) serve(ctx context.Context, life *life, doors *doors) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return n.serveMetrics(ctx, doors.metrics) })
	defer n.close()
	if err := n.openEarly(ctx, life, doors); err != nil {
		group.Go(func() error { return err })
		return group.Wait()
	}
	n.opened.Store(true)
	// The engine ends last: the others still write while they end.
	watch, leave := context.WithCancel(context.WithoutCancel(ctx))
	var engine sync.WaitGroup
	defer engine.Wait()
	defer leave()
	broken := make(chan error, 1)
	engine.Go(func() { broken <- n.engine.Run(watch) })
	group.Go(func() error {
		select {
		case err := <-broken:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	group.Go(func() error { return n.catalog.Run(ctx) })
	group.Go(func() error { return n.lease.run(ctx, n.probe.append) })
	group.Go(func() error { return n.replicas.run(ctx, n.changed) })
	group.Go(func() error { return n.failover.Run(ctx) })
	group.Go(func() error { return n.announce(ctx) })
	group.Go(func() error { return n.serveDoors(ctx, doors) })
	return group.Wait()
}

// openEarly is open, while the doors say that the node does not serve yet.
func (n *node) openEarly(ctx context.Context, life *life, doors *doors) error {
	n.waiting.Store("starting")
	certificate, err := newCertificate(n.c.DoorCert, n.c.DoorKey)
	if err != nil {
		return err
	}
	early, enough := context.WithCancel(ctx)
	var answering sync.WaitGroup
	answering.Go(func() { doors.serveEarly(early, certificate, n.notReady) })
	err = n.open(ctx, life)
	enough()
	answering.Wait()
	doors.giveBack()
	return err
}

// open makes the parts, bottom up.
func (n *node) open(ctx context.Context, life *life) error {
	token, err := readToken(n.c.AdminTokenFile, n.logger)
	if err != nil {
		return err
	}
	site, err := n.c.siteTLS().Client()
	if err != nil {
		return err
	}
	n.directory, err = directory.Dial(context.WithoutCancel(ctx), directory.ClientOptions{
		Endpoints: n.c.Directory.Endpoints, TLS: site, Prefix: "tandem/" + n.c.Installation,
	})
	if err != nil {
		return err
	}
	link, err := linkTLS(&n.c)
	if err != nil {
		return err
	}
	n.engine, err = natslog.Open(context.WithoutCancel(ctx), natslog.Options{
		Region: n.c.Region, Node: n.c.Node, StoreDir: filepath.Join(n.c.DataDir, "segments"), Listen: n.c.Leaf.Listen, Remote: n.c.Leaf.Dial,
		TLS: link, Logger: n.logger,
	})
	if err != nil {
		return err
	}
	if n.probe, err = newProbe(ctx, n.engine.Store(), n.c.Region); err != nil {
		return err
	}
	if err := n.fenceFormer(ctx, life); err != nil {
		return err
	}
	n.catalog = catalog.New(catalog.Options{
		Directory: n.directory, Clock: n.clock, Logger: n.logger, Notify: n.notice, Subscription: n.c.Subscription, Tenant: n.c.Tenant,
		Domain: n.c.Domain, Default: n.c.DefaultHub, Pairs: []tandem.Pair{{A: n.c.Region, B: n.c.Peer}},
		AdminToken: catalog.HashToken(token),
	})
	n.replicas = &replicas{
		catalog: n.catalog, region: n.c.Region, peer: n.c.Peer, node: n.c.Node, incarnation: life.incarnation, dir: n.c.DataDir,
		store: n.engine.Store(), link: n.engine.Link(), directory: n.directory, clock: n.clock, logger: n.logger, notify: n.notice,
	}
	n.lease = &lease{life: life, store: n.directory, clock: n.clock, ttl: n.c.LeaseTTL, acked: n.replicas.acked, logger: n.logger}
	n.lease.begin(life.incarnation)
	n.failover = failover.New(failover.Options{
		Region: n.c.Region, Peer: n.c.Peer, Node: n.c.Node, Directory: n.directory, Link: n.engine.Link(), Lease: n.lease,
		Taker:    directory.NewTaker(n.directory, n.clock, life.incarnation, n.c.LeaseTTL),
		Replicas: n.replicas, Hubs: n.hubs, Clock: n.clock, Logger: n.logger, Notify: n.notice, TTL: n.c.LeaseTTL,
	})
	return nil
}

func (n *node) close() {
	if n.engine != nil {
		n.engine.Close()
	}
	if n.directory != nil {
		_ = n.directory.Close()
	}
}

// fenceFormer waits for a majority of the directory: without one this node may not know who it was.
func (n *node) fenceFormer(ctx context.Context, life *life) error {
	for told := false; ; {
		err := life.fenceFormer(ctx, n.directory)
		if err == nil {
			return nil
		}
		if !told {
			told = true
			n.waiting.Store("waiting for a majority of the directory: at least two of the three sites have to run and reach each other")
			n.logger.Info("waiting for a majority of the directory", "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// hubs are the catalog's, in the words of package failover.
func (n *node) hubs() []failover.Hub {
	var hubs []failover.Hub
	for _, h := range n.catalog.Hubs() {
		if _, ours := h.Pair.Other(n.c.Region); ours {
			hubs = append(hubs, failover.Hub{ID: h.ID, Name: h.Name, Home: h.Home, Peer: h.Peer(), Mode: h.Replication})
		}
	}
	return hubs
}

// notice is the one stream of what happens on this node.
func (n *node) notice(event tandem.Notice) {
	switch event.(type) {
	case catalog.HubAppeared, catalog.HubChanged, catalog.HubGone:
		select {
		case n.changed <- struct{}{}:
		default:
		}
	}
	n.metrics.hear(event)
}

// runDirectory runs the directory member in a process of its own until ctx ends. When the member ends by itself, so does
// the node.
func (n *node) runDirectory(ctx context.Context) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	cmd, pipe, err := Child(program, false, "directory", "--config", n.c.File, "--end-with-parent")
	if err != nil {
		return err
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return &tandem.Error{Op: "start the directory member", Err: err}
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		return &tandem.Error{Op: "run the directory member", Err: fmt.Errorf("it ended by itself: %v", err)}
	case <-ctx.Done():
	}
	_ = pipe.Close()
	select {
	case <-ended:
	case <-time.After(3 * time.Second):
		_ = cmd.Process.Kill()
		<-ended
	}
	return nil
}

// readToken reads the administrators' token, without the white space around it.
func readToken(file string, logger *slog.Logger) (string, error) {
	info, err := os.Stat(file)
	var text []byte
	if err == nil {
		text, err = os.ReadFile(file)
	}
	token := strings.TrimSpace(string(text))
	if err == nil && token == "" {
		err = errors.New("the file is empty")
	}
	if err != nil {
		return "", &tandem.Error{Op: "read the administrators' token", Kind: tandem.Invalid, On: file, Err: err,
			Hint: "write a long random string into it, readable by this process alone"}
	}
	if info.Mode().Perm()&0o077 != 0 {
		logger.Warn("the administrators' token can be read by others on this machine", "file", file, "mode", info.Mode().Perm())
	}
	return token, nil
}

// linkTLS is the site's certificate for the link, verified in both directions: the other end must be the peer region, not
// just any site of the installation.
func linkTLS(c *Config) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		return nil, &tandem.Error{Op: "read the site's certificate", Kind: tandem.Invalid, On: c.Cert, Err: err}
	}
	text, err := os.ReadFile(c.CA)
	roots := x509.NewCertPool()
	if err != nil || !roots.AppendCertsFromPEM(text) {
		return nil, &tandem.Error{Op: "read the sites' authority", Kind: tandem.Invalid, On: c.CA, Err: err}
	}
	peer := string(c.Peer)
	return &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, RootCAs: roots, ClientCAs: roots,
		VerifyConnection: func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) == 0 || !slices.Contains(state.PeerCertificates[0].DNSNames, peer) {
				return &tandem.Error{Op: "link with the peer region", Kind: tandem.Forbidden, On: peer, Err: errors.New("the certificate names another site")}
			}
			return nil
		},
	}, nil
}
