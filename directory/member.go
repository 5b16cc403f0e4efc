package directory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"tandem"
)

// Witness is the name of the member that leads whenever it can: the site that holds no hub data, so that losing a region
// costs no election.
const Witness = "witness"

// MemberOptions shape a Member.
type MemberOptions struct {
	Name    string // "westus2", "witness"
	DataDir string // made with mode 0700 when absent; one process at a time
	// PeerURL and ClientURL are https URLs that the other sites reach; the member listens there too, unless
	// ListenPeerURL and ListenClientURL (with an IP address as host) say otherwise.
	PeerURL, ClientURL             string
	ListenPeerURL, ListenClientURL string
	InitialCluster                 map[string]string // peer URL by member name, this one included
	// New says that a member without data founds the cluster, together with the others; else it joins one that runs.
	// A member that has data ignores it.
	New bool
	TLS TLSFiles // for peers and clients, both sides verified

	Tick, Election time.Duration // 50 ms and 500 ms when 0; the same for all members
	Quota          int64         // bytes of the database; 1 GiB when 0
	Logger         *slog.Logger  // nil: silent
}

// A Member is one voting member of the directory: an embedded etcd server. What it has acknowledged is durable; it
// survives its process being killed.
type Member struct {
	config *embed.Config
	client TLSFiles
	lock   *os.File
	logger *slog.Logger
	ready  chan struct{}
}

// OpenMember checks the options and takes the data directory, waiting up to two seconds, or until ctx ends, for a
// process that is just leaving it. Nothing listens before Run. Errors: Invalid options, Conflict when another process
// has the directory, Internal when it can't be made.
func OpenMember(ctx context.Context, options MemberOptions) (*Member, error) {
	config, err := options.config()
	if err != nil {
		return nil, &tandem.Error{Op: "open the directory member", Kind: tandem.Invalid, On: options.Name, Err: err}
	}
	if err := os.MkdirAll(options.DataDir, 0o700); err != nil {
		return nil, &tandem.Error{Op: "open the directory member", On: options.DataDir, Err: err}
	}
	lock, err := lockDir(ctx, options.DataDir)
	if err != nil {
		return nil, err
	}
	return &Member{
		config: config, client: options.TLS, lock: lock, logger: quiet(options.Logger), ready: make(chan struct{}),
	}, nil
}

func quiet(logger *slog.Logger) *slog.Logger {
	if logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return logger
}

func (o MemberOptions) config() (*embed.Config, error) {
	if o.Name == "" || o.DataDir == "" {
		return nil, errors.New("a member needs a name and a data directory")
	}
	if o.InitialCluster[o.Name] != o.PeerURL {
		return nil, fmt.Errorf("the initial cluster says %q is this member's peer URL, not %q", o.InitialCluster[o.Name], o.PeerURL)
	}
	c := embed.NewConfig()
	c.Name, c.Dir = o.Name, filepath.Join(o.DataDir, "etcd")
	var err error
	for _, place := range []struct {
		urls     *[]url.URL
		text     string
		fallback string
	}{
		{&c.AdvertisePeerUrls, o.PeerURL, ""}, {&c.ListenPeerUrls, o.ListenPeerURL, o.PeerURL},
		{&c.AdvertiseClientUrls, o.ClientURL, ""}, {&c.ListenClientUrls, o.ListenClientURL, o.ClientURL},
	} {
		if *place.urls, err = secureURL(place.text, place.fallback); err != nil {
			return nil, err
		}
	}
	var cluster []string
	for _, name := range slices.Sorted(maps.Keys(o.InitialCluster)) {
		cluster = append(cluster, name+"="+o.InitialCluster[name])
	}
	c.InitialCluster, c.InitialClusterToken = strings.Join(cluster, ","), "tandem"
	if !o.New {
		c.ClusterState = embed.ClusterStateFlagExisting
	}
	c.TickMs, c.ElectionMs = 50, 500
	if o.Tick > 0 {
		c.TickMs = uint(o.Tick.Milliseconds())
	}
	if o.Election > 0 {
		c.ElectionMs = uint(o.Election.Milliseconds())
	}
	c.PreVote = true
	c.AutoCompactionMode, c.AutoCompactionRetention = embed.CompactorModePeriodic, "10m"
	c.BootstrapDefragThresholdMegabytes = 64
	c.QuotaBackendBytes = 1 << 30
	if o.Quota > 0 {
		c.QuotaBackendBytes = o.Quota
	}
	c.EnableGRPCGateway = false
	// A site's address as others see it need not be in its certificate: being signed by our own authority is what counts.
	c.PeerTLSInfo.CertFile, c.PeerTLSInfo.KeyFile, c.PeerTLSInfo.TrustedCAFile = o.TLS.Cert, o.TLS.Key, o.TLS.CA
	c.PeerTLSInfo.ClientCertAuth, c.PeerTLSInfo.SkipClientSANVerify = true, true
	c.ClientTLSInfo = c.PeerTLSInfo
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(zapToSlog{logger: quiet(o.Logger)}))
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return c, nil
}

func secureURL(text, fallback string) ([]url.URL, error) {
	if text == "" {
		text = fallback
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "https" || u.Port() == "" {
		return nil, fmt.Errorf("%q is not of the form https://host:port", text)
	}
	return []url.URL{*u}, nil
}

func lockDir(ctx context.Context, dir string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, &tandem.Error{Op: "open the directory member", On: dir, Err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return file, nil
		}
		select {
		case <-ctx.Done():
			_ = file.Close()
			return nil, &tandem.Error{
				Op: "open the directory member", Kind: tandem.Conflict, On: dir, Err: fmt.Errorf("another process has it: %w", err),
			}
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Ready is closed once the member has joined the others and can answer, which needs a majority of them.
func (m *Member) Ready() <-chan struct{} { return m.ready }

// Close gives the data directory back without running. Run does so by itself.
func (m *Member) Close() error { return m.lock.Close() }

// Run serves until ctx ends (nil), or the member fails. While this member leads and another is called Witness and is
// healthy, it asks for the leadership to move there. A Member runs once.
func (m *Member) Run(ctx context.Context) error {
	defer m.Close()
	server, err := embed.StartEtcd(m.config)
	if err != nil {
		return &tandem.Error{Op: "start the directory member", Kind: startKind(err), On: m.config.Name, Err: err}
	}
	err = m.serve(ctx, server)
	m.stop(server)
	if err != nil {
		return &tandem.Error{Op: "run the directory member", Kind: tandem.Unavailable, On: m.config.Name, Err: err}
	}
	return nil
}

func startKind(err error) tandem.Kind {
	if errors.Is(err, syscall.EADDRINUSE) {
		return tandem.Conflict
	}
	return tandem.Internal
}

func (m *Member) serve(ctx context.Context, server *embed.Etcd) error {
	ready := server.Server.ReadyNotify()
	look := time.NewTicker(250 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-server.Err():
			return err
		case <-server.Server.StopNotify():
			return errors.New("the server stopped by itself")
		case <-ready:
			m.logger.Info("directory member ready", "member", m.config.Name)
			close(m.ready)
			ready = nil
		case <-look.C:
			if m.config.Name != Witness && leads(server) {
				m.passTo(ctx, server, Witness)
			}
		}
	}
}

func leads(server *embed.Etcd) bool { return server.Server.Leader() == server.Server.MemberID() }

// passTo moves the leadership to the named member when that one answers and follows this leader closely. Proposals wait
// while a transfer is under way, so it is not tried with one that may not take it.
func (m *Member) passTo(ctx context.Context, server *embed.Etcd, name string) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for _, other := range server.Server.Cluster().Members() {
		if other.Name != name || len(other.ClientURLs) == 0 || !m.follows(ctx, server, other.ClientURLs) {
			continue
		}
		if err := server.Server.MoveLeader(ctx, uint64(server.Server.MemberID()), uint64(other.ID)); err != nil {
			m.logger.Debug("leadership stays", "member", m.config.Name, "error", err)
			return
		}
		m.logger.Info("leadership moved", "from", m.config.Name, "to", name)
		return
	}
}

func (m *Member) follows(ctx context.Context, server *embed.Etcd, urls []string) bool {
	config, err := m.client.Client()
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, 400*time.Millisecond)
	defer cancel()
	client, err := clientv3.New(clientv3.Config{Endpoints: urls[:1], TLS: config, Logger: zap.NewNop(), Context: ctx})
	if err != nil {
		return false
	}
	defer client.Close()
	status, err := client.Status(ctx, urls[0])
	const near = 1000 // log entries: what a follower catches up within a transfer
	return err == nil && status.Leader == uint64(server.Server.MemberID()) &&
		status.RaftAppliedIndex+near > server.Server.CommittedIndex()
}

// stopLimit bounds a member's leaving.
const stopLimit = 2 * time.Second

// stop hands the leadership on, if somebody takes it within a moment, and ends the server in good order. Etcd waits
// several seconds when the member that it wants to lead is stopped or leaving too; the caller's process does not wait for
// that: what was acknowledged is durable anyway, and the rest ends by itself.
func (m *Member) stop(server *embed.Etcd) {
	for name := range namesBut(server, m.config.Name) {
		if leads(server) {
			m.passTo(context.Background(), server, name)
		}
	}
	closed := make(chan struct{})
	go func() {
		server.Close()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(stopLimit):
		m.logger.Info("directory member still leaving", "member", m.config.Name)
	}
}

func namesBut(server *embed.Etcd, self string) map[string]bool {
	names := make(map[string]bool)
	for _, member := range server.Server.Cluster().Members() {
		if member.Name != self {
			names[member.Name] = true
		}
	}
	return names
}
