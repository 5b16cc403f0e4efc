package directory_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"tandem"
	"tandem/directory"
	"tandem/directory/directorytest"
)

const memberVariable = "TANDEM_TEST_MEMBER"

// TestMain lets this binary be a member: tests kill and stop real processes.
func TestMain(m *testing.M) {
	if options := os.Getenv(memberVariable); options != "" {
		if err := beMember(options); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// beMember runs a member until standard input ends, and says when it is ready.
func beMember(text string) error {
	var options directory.MemberOptions
	if err := json.Unmarshal([]byte(text), &options); err != nil {
		return err
	}
	options.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	member, err := directory.OpenMember(ctx, options)
	if err != nil {
		return err
	}
	go func() {
		<-member.Ready()
		fmt.Println("ready")
	}()
	return member.Run(ctx)
}

// sites are three members, each a process: one per region and the witness.
type sites struct {
	t       *testing.T
	files   directory.TLSFiles
	options map[string]directory.MemberOptions
	running map[string]*process
}

type process struct {
	cmd   *exec.Cmd
	stdin io.Closer
	ready chan struct{}
}

var names = []string{"westus2", "westcentralus", directory.Witness}

func openSites(t *testing.T) *sites {
	s := &sites{
		t: t, files: directorytest.NewAuthority(t).Issue(t, "site"),
		options: make(map[string]directory.MemberOptions), running: make(map[string]*process),
	}
	ports := freePorts(t, 2*len(names))
	cluster := make(map[string]string)
	for i, name := range names {
		cluster[name] = fmt.Sprintf("https://127.0.0.1:%d", ports[2*i])
		s.options[name] = directory.MemberOptions{
			Name: name, DataDir: t.TempDir(), PeerURL: cluster[name], New: true, TLS: s.files,
			ClientURL: fmt.Sprintf("https://127.0.0.1:%d", ports[2*i+1]), InitialCluster: cluster,
		}
	}
	s.start(names...)
	return s
}

// freePorts returns ports that were free a moment ago.
func freePorts(t *testing.T, n int) []int {
	t.Helper()
	ports := make([]int, n)
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports
}

// start starts members and waits until all of them are ready.
func (s *sites) start(names ...string) {
	s.t.Helper()
	for _, name := range names {
		text, err := json.Marshal(s.options[name])
		if err != nil {
			s.t.Fatal(err)
		}
		p := &process{cmd: exec.Command(os.Args[0]), ready: make(chan struct{})}
		p.cmd.Env = append(os.Environ(), memberVariable+"="+string(text))
		p.cmd.Stderr = os.Stderr
		out, err := p.cmd.StdoutPipe()
		if err != nil {
			s.t.Fatal(err)
		}
		if p.stdin, err = p.cmd.StdinPipe(); err != nil {
			s.t.Fatal(err)
		}
		if err := p.cmd.Start(); err != nil {
			s.t.Fatal(err)
		}
		go func() {
			if line, _ := bufio.NewReader(out).ReadString('\n'); line == "ready\n" {
				close(p.ready)
			}
		}()
		s.running[name] = p
		s.t.Cleanup(func() { _ = p.cmd.Process.Kill(); _ = p.cmd.Wait() })
	}
	for _, name := range names {
		select {
		case <-s.running[name].ready:
		case <-time.After(15 * time.Second):
			s.t.Fatalf("%s is not ready", name)
		}
	}
}

func (s *sites) signal(name string, sig os.Signal) {
	s.t.Helper()
	if err := s.running[name].cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

func (s *sites) kill(name string) {
	s.signal(name, syscall.SIGKILL)
	_ = s.running[name].cmd.Wait()
}

// dial returns a client whose nearest member is the first named.
func (s *sites) dial(t testing.TB, prefix string, order ...string) *directory.Etcd {
	t.Helper()
	config, err := s.files.Client()
	if err != nil {
		t.Fatal(err)
	}
	options := directory.ClientOptions{TLS: config, Prefix: prefix}
	for _, name := range order {
		options.Endpoints = append(options.Endpoints, s.options[name].ClientURL)
	}
	store, err := directory.Dial(context.Background(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return store
}

// leader is the name of the member that leads, as the witness tells.
func (s *sites) leader() string {
	config, err := s.files.Client()
	if err != nil {
		s.t.Fatal(err)
	}
	url := s.options[directory.Witness].ClientURL
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{url}, TLS: config, Logger: zap.NewNop()})
	if err != nil {
		s.t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Second)
	defer cancel()
	status, err := client.Status(ctx, url)
	if err != nil {
		return ""
	}
	members, err := client.MemberList(ctx)
	if err != nil {
		return ""
	}
	for _, member := range members.Members {
		if member.ID == status.Leader {
			return member.Name
		}
	}
	return ""
}

func (s *sites) waitForWitness() {
	s.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); s.leader() != directory.Witness; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("%q leads, want the witness", s.leader())
		}
	}
}

// within fails when f takes longer than limit; it is generous for a machine that is busy.
func within(t *testing.T, limit time.Duration, what string, f func() error) {
	t.Helper()
	began := time.Now()
	if err := f(); err != nil {
		t.Fatalf("%s: %v after %v", what, err, time.Since(began))
	}
	took := time.Since(began)
	t.Logf("%s took %v", what, took)
	if took > limit {
		t.Errorf("%s took %v, limit %v", what, took, limit)
	}
}

func put(store directory.Store, key, value string) error {
	_, err := store.Commit(context.Background(), directory.Txn{Then: []directory.Change{{Key: key, Value: []byte(value)}}})
	return err
}

// replace changes a key that is at revision. A member may have passed the request on before it fell silent; then the
// answer is Timeout, and the key has changed.
func replace(store directory.Store, key string, revision directory.Revision, value string) error {
	done, err := store.Commit(context.Background(), directory.Txn{
		If:   []directory.Compare{{Key: key, Revision: revision}},
		Then: []directory.Change{{Key: key, Value: []byte(value)}},
	})
	if tandem.KindOf(err) == tandem.Timeout {
		return read(store, key, value)
	}
	if err == nil && !done.OK {
		return fmt.Errorf("refused: %+v", done)
	}
	return err
}

func read(store directory.Store, key, want string) error {
	item, err := store.Get(context.Background(), key)
	if err == nil && string(item.Value) != want {
		return fmt.Errorf("%s is %q, want %q", key, item.Value, want)
	}
	return err
}

func await(t *testing.T, events <-chan directory.Event, want string) {
	t.Helper()
	select {
	case event, open := <-events:
		if !open || string(event.Item.Value) != want {
			t.Fatalf("watched %+v (open %t), want %q", event, open, want)
		}
	case <-time.After(5 * time.Second):
		t.Fatalf("%q was not seen", want)
	}
}

func TestEtcd(t *testing.T) {
	s := openSites(t)
	s.waitForWitness()
	t.Run("suite", func(t *testing.T) {
		n := 0
		directorytest.Run(t, func(t testing.TB) directory.Store {
			n++
			return s.dial(t, fmt.Sprintf("suite-%d", n), names...)
		})
	})
	t.Run("prefix", func(t *testing.T) {
		one, other := s.dial(t, "one", names...), s.dial(t, "one-more", names...)
		directorytest.Set(t, one, "k=1")
		if items, _, err := other.List(t.Context(), ""); err != nil || len(items) != 0 {
			t.Fatalf("another installation sees %v, %v", items, err)
		}
	})
	t.Run("local member stopped", func(t *testing.T) { testStopped(t, s) })
	t.Run("local member killed", func(t *testing.T) { testKilled(t, s) })
	t.Run("leader killed", func(t *testing.T) { testLeaderKilled(t, s) })
	t.Run("no majority", func(t *testing.T) { testNoMajority(t, s) })
	t.Run("all leave at once", func(t *testing.T) { testLeave(t, s) })
}

func testLeave(t *testing.T, s *sites) {
	store := s.dial(t, "leave", names...) // a client that watches must not hold them up
	events := store.Watch(t.Context(), "", 0)
	directorytest.Set(t, store, "k=1")
	await(t, events, "1")
	within(t, 4*time.Second, "leaving", func() error {
		for _, p := range s.running {
			_ = p.stdin.Close()
		}
		for name, p := range s.running {
			if err := p.cmd.Wait(); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return nil
	})
}

func testStopped(t *testing.T, s *sites) {
	store := s.dial(t, "stopped", names...)
	events := store.Watch(t.Context(), "", 0)
	revision := directorytest.Set(t, store, "k=1")
	await(t, events, "1")
	s.signal("westus2", syscall.SIGSTOP)
	within(t, time.Second, "a guarded commit", func() error {
		return replace(store, "k", revision, "2")
	})
	within(t, time.Second, "a plain commit", func() error { return put(store, "k", "3") })
	within(t, time.Second, "a read", func() error { return read(store, "k", "3") })
	await(t, events, "2")
	await(t, events, "3")
	fresh := s.dial(t, "stopped", names...)
	within(t, 1500*time.Millisecond, "a new client's commit", func() error { return put(fresh, "k", "4") })
	await(t, events, "4")
	s.signal("westus2", syscall.SIGCONT)
	within(t, time.Second, "a commit after it goes on", func() error { return put(store, "k", "5") })
	await(t, events, "5")
	if len(events) != 0 {
		t.Fatalf("an event came twice: %+v", <-events)
	}
}

func testKilled(t *testing.T, s *sites) {
	store := s.dial(t, "killed", names...)
	events := store.Watch(t.Context(), "", 0)
	directorytest.Set(t, store, "k=1")
	s.kill("westus2")
	within(t, time.Second, "a read", func() error { return read(store, "k", "1") })
	within(t, time.Second, "a commit", func() error { return put(store, "k", "2") })
	s.start("westus2")
	alone := s.dial(t, "killed", "westus2")
	within(t, 2*time.Second, "a read from the restarted member", func() error { return read(alone, "k", "2") })
	await(t, events, "1")
	await(t, events, "2")
}

// A node keeps its lease through the loss of the leader: an election is shorter than the TTL.
func testLeaderKilled(t *testing.T, s *sites) {
	store := s.dial(t, "leader", names...)
	holder := directory.NewHolder(store, tandem.SystemClock{}, directory.HolderOptions{Incarnation: "a"})
	ctx, cancel := context.WithCancel(t.Context())
	kept := make(chan error, 1)
	go func() { kept <- holder.Keep(ctx, func(context.Context) error { return nil }) }()
	for deadline := time.Now().Add(5 * time.Second); !holder.Valid(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no lease")
		}
	}
	term := holder.Term()
	revision := directorytest.Set(t, store, "k=1")
	s.waitForWitness()
	s.kill(directory.Witness)
	within(t, 2*time.Second, "a guarded commit", func() error {
		return replace(store, "k", revision, "2")
	})
	s.start(directory.Witness)
	s.waitForWitness()
	if !term.Valid() {
		t.Error("the lease lapsed")
	}
	cancel()
	if err := <-kept; err != nil {
		t.Error(err)
	}
}

func testNoMajority(t *testing.T, s *sites) {
	store := s.dial(t, "majority", names...)
	directorytest.Set(t, store, "k=1")
	s.kill("westcentralus")
	s.kill(directory.Witness)
	if _, err := store.Get(t.Context(), "k"); tandem.KindOf(err) != tandem.Unavailable {
		t.Fatalf("a read without a majority: %v", err)
	}
	// By now the one left knows that it has no leader, so this is a definite "no".
	err := put(store, "k", "2")
	if tandem.KindOf(err) != tandem.Unavailable {
		t.Fatalf("a commit without a majority: %v", err)
	}
	s.start("westcentralus", directory.Witness)
	within(t, 2*time.Second, "a read after the majority's return", func() error { return read(store, "k", "1") })
}

func TestMemberRefusals(t *testing.T) {
	files := directorytest.NewAuthority(t).Issue(t, "site")
	options := directory.MemberOptions{
		Name: "a", DataDir: t.TempDir(), PeerURL: "https://127.0.0.1:1", ClientURL: "https://127.0.0.1:2", TLS: files, New: true,
		InitialCluster: map[string]string{"a": "https://127.0.0.1:1"},
	}
	plain := options
	plain.ClientURL = "http://127.0.0.1:2"
	if _, err := directory.OpenMember(t.Context(), plain); tandem.KindOf(err) != tandem.Invalid {
		t.Fatalf("a client URL without TLS: %v", err)
	}
	member, err := directory.OpenMember(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	defer member.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := directory.OpenMember(ctx, options); tandem.KindOf(err) != tandem.Conflict {
		t.Fatalf("two processes in one data directory: %v", err)
	}
}
