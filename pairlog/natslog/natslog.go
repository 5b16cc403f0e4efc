// Package natslog keeps pairlog's segments on an embedded NATS JetStream server and links the two regions of a pair by
// one leafnode connection. It is NATS's only importer.
//
// A server has two accounts. STORE has JetStream and no way out of the process: neither a client port nor the leafnode
// reaches it. LINK is what the leafnode joins; it has no JetStream, and only subjects under "tandem." are used in it.
// Every append is on disk (fsync) before it is answered.
package natslog

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"tandem"
	"tandem/pairlog"
)

const (
	linkUser   = "tandem"
	linkBytes  = 1 << 20
	maxPayload = linkBytes + 64<<10 // equal everywhere, else a record that one region takes blocks the other
	startTime  = 30 * time.Second
)

// Options say where a region's server keeps its files and how it reaches its peer.
type Options struct {
	Region   tandem.RegionName
	Node     tandem.NodeName // part of the server's name, which must be stable
	StoreDir string
	// Listen is the leafnode address to accept the peer on ("127.0.1.1:7422"; port 0 picks one, see Addr), Remote the
	// peer's to dial. Exactly one side of a pair dials. Both empty: no peer.
	Listen, Remote string
	// TLS is required with Listen or Remote: our certificate, and RootCAs, used to verify the peer in both directions.
	TLS    *tls.Config
	Logger *slog.Logger
	// MaxStore bounds the storage in bytes; 0: the disk is the bound, and callers refuse writes by Space.
	MaxStore int64
}

// Server is one region's embedded server, started.
type Server struct {
	o      Options
	opts   *server.Options
	nats   *server.Server
	store  *Store
	link   *Link
	conns  []*nats.Conn
	once   sync.Once
	closed chan struct{}
}

var wordPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// Open starts the server and recovers its segments. Close, or the end of Run, stops it. The StoreDir must belong to this
// process alone.
func Open(ctx context.Context, o Options) (*Server, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case !wordPattern.MatchString(string(o.Region)) || o.Node != "" && !wordPattern.MatchString(string(o.Node)) || o.StoreDir == "":
		return nil, invalid("region, node and store directory are needed, in plain words")
	case o.Listen != "" && o.Remote != "":
		return nil, invalid("exactly one side of a pair dials")
	case (o.Listen != "" || o.Remote != "") && o.TLS == nil:
		return nil, invalid("the link needs TLS")
	}
	storePass, linkPass := rand.Text(), rand.Text()
	opts, err := o.server(storePass, linkPass)
	if err != nil {
		return nil, err
	}
	if err := repairMeta(o.StoreDir, o.Logger); err != nil {
		return nil, failed("start the log engine", err)
	}
	ns, err := server.NewServer(opts)
	if err != nil {
		return nil, failed("start the log engine", err)
	}
	ns.SetLoggerV2(newEngineLogger(o.Logger.With("part", "engine")), false, false, false)
	s := &Server{o: o, opts: opts, nats: ns, closed: make(chan struct{})}
	ns.Start()
	deadline := time.Now().Add(startTime)
	for !ns.ReadyForConnections(50 * time.Millisecond) {
		if ctx.Err() != nil || time.Now().After(deadline) || !ns.Running() {
			s.Close()
			return nil, failed("start the log engine", errors.Join(errors.New("it does not become ready; its log says why"), ctx.Err()))
		}
	}
	storeConn, err := s.connect("store", storePass)
	if err == nil {
		s.store, err = newStore(ctx, storeConn, o)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	linkConn, err := s.connect("link", linkPass)
	if err == nil {
		s.link, err = newLink(linkConn, o.Region, ns)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// server is the engine's configuration.
func (o *Options) server(storePass, linkPass string) (*server.Options, error) {
	name := "tandem-" + string(o.Region)
	if o.Node != "" {
		name += "-" + string(o.Node)
	}
	opts := &server.Options{}
	err := opts.ProcessConfigString(fmt.Sprintf(`
		accounts {
			STORE { jetstream: enabled, users: [{user: store, password: %q}] }
			LINK { users: [{user: link, password: %q}] }
		}`, storePass, linkPass))
	if err != nil {
		return nil, failed("configure the log engine", err)
	}
	opts.ServerName = name
	opts.DontListen = true
	opts.NoSigs = true
	opts.NoLog = true
	opts.JetStream = true
	opts.JetStreamDomain = string(o.Region)
	opts.JetStreamMaxStore = o.MaxStore
	if o.MaxStore <= 0 {
		opts.JetStreamMaxStore = 1 << 50
	}
	opts.JetStreamMaxMemory = 64 << 20
	opts.StoreDir = o.StoreDir
	opts.SyncAlways = true
	opts.MaxPayload = maxPayload
	opts.MaxPending = 256 << 20
	opts.PingInterval = time.Second
	opts.MaxPingsOut = 2
	leaf := &opts.LeafNode
	leaf.NoAdvertise = true
	leaf.Compression.Mode = server.CompressionOff
	leaf.ReconnectInterval = 200 * time.Millisecond
	leaf.Account = "LINK"
	leaf.Username = linkUser
	leaf.TLSTimeout = 5
	leaf.AuthTimeout = 6
	if o.Listen != "" {
		host, port, err := net.SplitHostPort(o.Listen)
		if err != nil {
			return nil, invalid("listen address: " + err.Error())
		}
		leaf.Host = host
		if leaf.Port, err = strconv.Atoi(port); err != nil {
			return nil, invalid("listen address: " + err.Error())
		}
		if leaf.Port == 0 {
			leaf.Port = server.RANDOM_PORT
		}
		config := o.TLS.Clone()
		config.ClientAuth = tls.RequireAndVerifyClientCert
		if config.ClientCAs == nil {
			config.ClientCAs = config.RootCAs
		}
		leaf.TLSConfig = config
		leaf.TLSHandshakeFirst = true
	}
	if o.Remote != "" {
		if _, _, err := net.SplitHostPort(o.Remote); err != nil {
			return nil, invalid("remote address: " + err.Error())
		}
		config := o.TLS.Clone()
		config.InsecureSkipVerify = false
		leaf.Remotes = []*server.RemoteLeafOpts{{
			LocalAccount: "LINK",
			URLs:         []*url.URL{{Scheme: "tls", Host: o.Remote, User: url.User(linkUser)}},
			TLS:          true, TLSConfig: config, TLSTimeout: 5, TLSHandshakeFirst: true,
			IgnoreDiscoveredServers: true,
			Compression:             server.CompressionOpts{Mode: server.CompressionOff},
			DenyImports:             notOurs, DenyExports: notOurs,
		}}
	}
	return opts, nil
}

// notOurs are the subjects that an engine could carry over a link by itself.
var notOurs = []string{"$JS.>", "$KV.>", "$O.>", "$NRG.>", "$SRV.>", "_INBOX.>", "_R_.>", "_GR_.>", "log.>"}

func (s *Server) connect(user, pass string) (*nats.Conn, error) {
	nc, err := nats.Connect("", nats.InProcessServer(s.nats), nats.UserInfo(user, pass), nats.Name(user),
		nats.CustomInboxPrefix("tandem.inbox."+string(s.o.Region)), nats.NoReconnect(), nats.Timeout(10*time.Second))
	if err != nil {
		return nil, failed("connect to the log engine", err)
	}
	s.conns = append(s.conns, nc)
	return nc, nil
}

// Store is the region's store.
func (s *Server) Store() pairlog.Store { return s.store }

// Link is this node's end of the link.
func (s *Server) Link() pairlog.Link { return s.link }

// Addr is the leafnode address that is listened on; empty when this side dials.
func (s *Server) Addr() string {
	if s.o.Listen == "" {
		return ""
	}
	v, err := s.nats.Varz(nil)
	if err != nil {
		return ""
	}
	return net.JoinHostPort(s.opts.LeafNode.Host, strconv.Itoa(v.LeafNode.Port))
}

// Run watches the link until ctx ends, then stops the server. It returns ctx's error, or why the engine stopped by itself.
func (s *Server) Run(ctx context.Context) error {
	defer s.Close()
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		s.link.ping()
		if !s.nats.Running() {
			return failed("run the log engine", errors.New("it has stopped"))
		}
		if !s.nats.JetStreamEnabled() {
			return failed("run the log engine", errors.New("it has given up its storage"))
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// Close stops the server and waits until its files are closed. Closing twice is no error.
func (s *Server) Close() {
	s.once.Do(func() {
		for _, nc := range s.conns {
			nc.Close()
		}
		s.nats.Shutdown()
		s.nats.WaitForShutdown()
		close(s.closed)
	})
	<-s.closed
}

func invalid(why string) error {
	return &tandem.Error{Op: "open the log engine", Kind: tandem.Invalid, Err: errors.New(why)}
}

func failed(op string, err error) error {
	return &tandem.Error{Op: op, Kind: tandem.Unavailable, Err: err}
}
