package region

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tandem"
	"tandem/pairlog/natslog"
)

// sites makes certificates for two regions and a witness.
func sites(t *testing.T) (*Authority, map[string]Config) {
	t.Helper()
	a, err := OpenAuthority(t.TempDir(), "test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	configs := map[string]Config{}
	for _, name := range []string{"west", "east", "witness"} {
		cert, key, err := a.Site(name, []string{name, "127.0.0.1"}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		configs[name] = Config{Region: tandem.RegionName(name), CA: a.File(), Cert: cert, Key: key}
	}
	return a, configs
}

// Only the peer region may be at the other end of the link, whatever other sites the authority vouches for.
func TestLinkIsForThePeerAlone(t *testing.T) {
	_, configs := sites(t)
	start := func(name string, peer tandem.RegionName, listen, remote string) (*natslog.Server, *bytes.Buffer) {
		c := configs[name]
		c.Peer = peer
		config, err := linkTLS(&c)
		if err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		s, err := natslog.Open(t.Context(), natslog.Options{Region: tandem.RegionName(name), StoreDir: t.TempDir(), Listen: listen, Remote: remote,
			TLS: config, Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); _ = s.Run(ctx) }()
		t.Cleanup(func() { cancel(); <-done })
		return s, &log
	}
	west, _ := start("west", "east", "127.0.0.1:0", "")
	witness, _ := start("witness", "west", "", west.Addr()) // a good certificate of another site
	strict, _ := start("east", "south", "", west.Addr())    // west is not whom it looks for
	for end := time.Now().Add(1500 * time.Millisecond); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if west.Link().Up() || witness.Link().Up() || strict.Link().Up() {
			t.Fatalf("a link is up: west %v, witness %v, east %v", west.Link().Up(), witness.Link().Up(), strict.Link().Up())
		}
	}
	east, _ := start("east", "west", "", west.Addr())
	for end := time.Now().Add(10 * time.Second); !west.Link().Up() || !east.Link().Up(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the peer's link does not come up")
		}
	}
}

func TestEngineStartsWithoutWarnings(t *testing.T) {
	var log bytes.Buffer
	s, err := natslog.Open(t.Context(), natslog.Options{Region: "west", StoreDir: t.TempDir(), Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if strings.Contains(log.String(), "level=WARN") || strings.Contains(log.String(), "level=ERROR") {
		t.Errorf("the engine says:\n%s", log.String())
	}
}

// Before a node serves, its doors say so at once and then are free for those who serve.
func TestDoorsAnswerEarly(t *testing.T) {
	a, configs := sites(t)
	cert, key, err := a.Door([]string{"127.0.0.1"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := newCertificate(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	d := &doors{}
	for _, l := range []*net.Listener{&d.mqtt, &d.https, &d.arm} {
		if *l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	defer d.close()
	early, enough := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.serveEarly(early, certificate, func() string { return "waiting for a majority of the directory" })
	}()
	roots, err := linkTLS(&Config{CA: configs["west"].CA, Cert: configs["west"].Cert, Key: configs["west"].Key})
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots.RootCAs}, DisableKeepAlives: true}}
	ask := func(l net.Listener) (int, string, string) {
		answer, err := client.Get("https://" + l.Addr().String() + "/devices?api-version=2021-04-12")
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		body, _ := io.ReadAll(answer.Body)
		return answer.StatusCode, answer.Header.Get("Retry-After"), string(body)
	}
	for _, l := range []net.Listener{d.https, d.arm} {
		if status, retry, body := ask(l); status != 503 || retry != "1" || !strings.Contains(body, "majority") {
			t.Errorf("early answer: %d, retry after %q, %s", status, retry, body)
		}
	}
	conn, err := net.Dial("tcp", d.mqtt.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Errorf("an early device: %v", err)
	}
	enough()
	<-done
	d.giveBack()
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	config := &tls.Config{GetCertificate: certificate.get}
	go func() {
		served <- serveHTTP(ctx, &http.Server{Handler: http.NotFoundHandler()}, d.https, config)
	}()
	if status, _, _ := ask(d.https); status != 404 {
		t.Errorf("after it opened: %d", status)
	}
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestAFaultEndsOneConnection(t *testing.T) {
	var log bytes.Buffer
	n := &node{}
	g := &guard{logger: slog.New(slog.NewTextHandler(&log, nil)), metrics: newMetrics(n)}
	near, far := net.Pipe()
	g.serve(func(context.Context, net.Conn) { panic("a bad packet") })(t.Context(), far)
	if _, err := near.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the connection: %v", err)
	}
	if !strings.Contains(log.String(), "a bad packet") || !strings.Contains(log.String(), "TestAFaultEndsOneConnection") {
		t.Errorf("the log has no trace: %s", log.String())
	}
}

func TestReadToken(t *testing.T) {
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	file := filepath.Join(t.TempDir(), "token")
	if _, err := readToken(file, logger); tandem.KindOf(err) != tandem.Invalid {
		t.Errorf("no file: %v", err)
	}
	for _, c := range []struct {
		text string
		mode os.FileMode
		want string
		warn bool
	}{{" \n", 0o600, "", false}, {"secret\n", 0o600, "secret", false}, {"secret", 0o644, "secret", true}} {
		log.Reset()
		if err := os.WriteFile(file, []byte(c.text), c.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, c.mode); err != nil {
			t.Fatal(err)
		}
		got, err := readToken(file, logger)
		if got != c.want || (err != nil) != (c.want == "") || strings.Contains(log.String(), "WARN") != c.warn || strings.Contains(log.String(), "secret") {
			t.Errorf("%q, mode %o: %q, %v, log %s", c.text, c.mode, got, err, log.String())
		}
	}
}

// A hub that does not open is tried again later and later, and a node with many hubs does not log each try.
func TestFailingHubIsPutOff(t *testing.T) {
	r := &replicas{}
	if !r.due("x") {
		t.Fatal("a new hub has to wait")
	}
	last := time.Duration(0)
	for range 10 {
		pause := r.fail("x", 0)
		if pause < last || pause > lastPause || r.due("x") {
			t.Fatalf("pause %v after %v", pause, last)
		}
		last = pause
	}
	if last != lastPause || r.fail("x", 2*lastPause) != firstPause {
		t.Errorf("pauses end at %v", last)
	}
}
