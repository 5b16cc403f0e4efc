package natslog_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"tandem"
	"tandem/pairlog"
	"tandem/pairlog/logtest"
	"tandem/pairlog/natslog"
)

func TestLinkRequests(t *testing.T) {
	p, _, _ := newPair(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	stop, err := p.A.Link.Serve("echo", func(_ context.Context, from tandem.RegionName, data []byte) ([]byte, error) {
		if string(data) == "fail" {
			return nil, fmt.Errorf("in the handler: %w", &tandem.Error{Op: "try", Kind: tandem.Throttled, On: "hub x", Err: errors.New("too much"), Hint: "wait"})
		}
		return append([]byte(from+":"), data...), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(s logtest.Side, data []byte) (out []byte, err error) {
		for range 200 { // interest takes a moment to cross the link
			if out, err = s.Link.Request(ctx, p.A.Region, "echo", data); tandem.KindOf(err) != tandem.Unavailable || err == nil {
				return out, err
			}
			time.Sleep(5 * time.Millisecond)
		}
		return out, err
	}
	for _, s := range []logtest.Side{p.B, p.A} {
		if out, err := ask(s, []byte("hello")); err != nil || string(out) != string(s.Region)+":hello" {
			t.Errorf("answer %q, %v", out, err)
		}
	}
	big := make([]byte, 1<<20-8)
	if out, err := ask(p.B, big); err != nil || len(out) != len(big)+len(p.B.Region)+1 {
		t.Errorf("a large answer: %d bytes, %v", len(out), err)
	}
	if _, err := ask(p.B, make([]byte, 1<<20+1)); tandem.KindOf(err) != tandem.TooLarge {
		t.Errorf("too large: %v", err)
	}
	_, err = ask(p.B, []byte("fail"))
	var e *tandem.Error
	if !errors.As(err, &e) || e.Op != "try" || e.Kind != tandem.Throttled || e.On != "hub x" || e.Err == nil || e.Err.Error() != "too much" || e.Hint != "wait" {
		t.Errorf("error %#v", err)
	}
	stop()
	if _, err := p.A.Link.Request(ctx, p.A.Region, "echo", nil); tandem.KindOf(err) != tandem.Unavailable {
		t.Errorf("nobody serves: %v", err)
	}
	p.Cut()
	if _, err := p.B.Link.Request(ctx, p.A.Region, "echo", nil); err == nil {
		t.Error("an answer over a cut link")
	}
}

func TestLinkBoundsCalls(t *testing.T) {
	p, _, _ := newPair(t)
	var mu sync.Mutex
	var now, most int
	free := make(chan struct{})
	if _, err := p.A.Link.Serve("slow", func(context.Context, tandem.RegionName, []byte) ([]byte, error) {
		mu.Lock()
		now++
		most = max(most, now)
		mu.Unlock()
		<-free
		mu.Lock()
		now--
		mu.Unlock()
		return nil, nil
	}); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 300 {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			if _, err := p.A.Link.Request(ctx, p.A.Region, "slow", nil); err != nil {
				t.Error(err)
			}
		})
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		mu.Lock()
		full := now >= 256
		mu.Unlock()
		if full {
			break
		}
		if time.Now().After(end) {
			t.Fatal("calls do not run at once")
		}
	}
	close(free)
	all.Wait()
	if most != 256 {
		t.Errorf("%d calls at once", most)
	}
}

func TestLinkKeepsOrder(t *testing.T) {
	p, _, _ := newPair(t)
	got := make(chan byte, 4000)
	if _, err := p.A.Link.Receive("in", func(from tandem.RegionName, data []byte) {
		if from == p.B.Region {
			got <- data[0]
		}
	}); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); len(got) == 0 && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		_ = p.B.Link.Send(p.A.Region, "in", []byte{255})
	}
	for i := range 2000 {
		if err := p.B.Link.Send(p.A.Region, "in", []byte{byte(i % 200)}); err != nil {
			t.Fatal(err)
		}
	}
	next := 0
	for next < 2000 {
		select {
		case b := <-got:
			if b == 255 && next == 0 {
				continue
			}
			if int(b) != next%200 {
				t.Fatalf("message %d where %d belongs", b, next%200)
			}
			next++
		case <-time.After(10 * time.Second):
			t.Fatalf("only %d arrived", next)
		}
	}
}

// rogue is a server of somebody else's that joins the leafnode of a.
func rogue(t *testing.T, a *region, config *tls.Config) (*server.Server, *nats.Conn) {
	t.Helper()
	s, err := server.NewServer(&server.Options{
		ServerName: "rogue", DontListen: true, NoSigs: true, NoLog: true, JetStream: true, JetStreamDomain: "rogue", StoreDir: t.TempDir(),
		LeafNode: server.LeafNodeOpts{ReconnectInterval: 50 * time.Millisecond, Remotes: []*server.RemoteLeafOpts{{
			URLs: []*url.URL{{Scheme: "tls", Host: a.s.Addr(), User: url.User("tandem")}}, TLS: true, TLSConfig: config, TLSHandshakeFirst: true,
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	nc, err := nats.Connect("", nats.InProcessServer(s))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return s, nc
}

// Whoever joins the link, even with a good certificate, reaches neither the segments nor the engine's own subjects.
func TestEngineIsNotReachable(t *testing.T) {
	ca := newAuthority(t)
	a := &region{t: t, o: natslog.Options{Region: "west", StoreDir: t.TempDir(), Listen: "127.0.0.1:0", TLS: ca.config(t, "west")}}
	a.start()
	id := pairlog.SegmentID{Hub: logtest.Hub, Epoch: 1, Holder: "west"}
	if err := a.s.Store().Create(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if err := a.s.Store().Append(t.Context(), id, 0, []byte("secret")); err != nil {
		t.Fatal(err)
	}
	if _, err := a.s.Link().Serve("hello", func(context.Context, tandem.RegionName, []byte) ([]byte, error) { return []byte("yes"), nil }); err != nil {
		t.Fatal(err)
	}
	_, nc := rogue(t, a, ca.config(t, "rogue"))
	joined := false
	for end := time.Now().Add(10 * time.Second); !joined && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		m, err := nc.Request("tandem.west.hello", nil, time.Second)
		joined = err == nil && string(m.Data) == "yes"
	}
	if !joined {
		t.Fatal("the rogue did not join: this test proves nothing")
	}
	stream := "log-" + string(logtest.Hub) + "-0-1-0-west"
	for _, subject := range []string{
		"$JS.west.API.INFO", "$JS.west.API.STREAM.NAMES", "$JS.west.API.DIRECT.GET." + stream, "$JS.west.API.STREAM.DELETE." + stream,
		"$JS.API.STREAM.INFO." + stream, "log.west." + stream, "$SYS.REQ.SERVER.PING",
	} {
		m, err := nc.Request(subject, []byte(`{"seq":1}`), 200*time.Millisecond)
		if err == nil && string(m.Data) != "" && m.Header.Get("Status") == "" && subject != "$JS.API.STREAM.INFO."+stream {
			t.Errorf("%s is answered: %s", subject, m.Data)
		}
	}
	st, err := a.s.Store().State(t.Context(), id)
	if err != nil || st.Last != 1 {
		t.Errorf("state %+v, %v", st, err)
	}
}

func TestLinkNeedsCertificates(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	a := &region{t: t, o: natslog.Options{Region: "west", StoreDir: t.TempDir(), Listen: "127.0.0.1:0", TLS: ca.config(t, "west")}}
	a.start()
	trusting := other.config(t, "east")
	trusting.RootCAs = ca.pool // it believes us, we must not believe it
	bare := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: ca.pool}
	for name, config := range map[string]*tls.Config{"a foreign certificate": trusting, "no certificate": bare, "it does not trust us": other.config(t, "east")} {
		b := &region{t: t, o: natslog.Options{Region: "east", StoreDir: t.TempDir(), Remote: a.s.Addr(), TLS: config}}
		b.start()
		for end := time.Now().Add(700 * time.Millisecond); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			if a.s.Link().Up() || b.s.Link().Up() {
				t.Errorf("%s: the link is up", name)
				break
			}
		}
		b.stop()
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []natslog.Options{
		{Region: "west"}, {Region: "we.st", StoreDir: "x"}, {Region: "west", StoreDir: "x", Listen: "127.0.0.1:0"},
		{Region: "west", StoreDir: "x", Listen: "a:1", Remote: "b:1", TLS: &tls.Config{}},
	} {
		if _, err := natslog.Open(t.Context(), o); tandem.KindOf(err) != tandem.Invalid || err == nil {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
