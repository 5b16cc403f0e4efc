package natslog_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"tandem"
	"tandem/pairlog"
	"tandem/pairlog/logtest"
	"tandem/pairlog/natslog"
)

func TestStore(t *testing.T) {
	logtest.RunStore(t, func(t *testing.T) (pairlog.Store, func() pairlog.Store) {
		r := &region{t: t, o: natslog.Options{Region: "west-2", Node: "n0", StoreDir: t.TempDir()}}
		r.start()
		return r.s.Store(), func() pairlog.Store { r.restart(); return r.s.Store() }
	})
}

func TestLog(t *testing.T) {
	logtest.RunLog(t, func(t *testing.T) logtest.Pair { p, _, _ := newPair(t); return p })
}

// region is a server that tests start and stop.
type region struct {
	t    testing.TB
	o    natslog.Options
	s    *natslog.Server
	stop func()
}

func (r *region) start() {
	r.t.Helper()
	if os.Getenv("TANDEM_TEST_LOG") != "" {
		r.o.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("region", r.o.Region)
	}
	s, err := natslog.Open(context.Background(), r.o)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	var once sync.Once
	r.s, r.stop = s, func() { once.Do(func() { cancel(); <-done }) }
	r.t.Cleanup(r.stop)
}

func (r *region) restart() {
	r.stop()
	r.start()
}

// link is the Link of the region's present server, so that a Side survives restarts.
type link struct{ r *region }

func (l link) Request(ctx context.Context, to tandem.RegionName, subject string, data []byte) ([]byte, error) {
	return l.r.s.Link().Request(ctx, to, subject, data)
}
func (l link) Serve(subject string, h func(context.Context, tandem.RegionName, []byte) ([]byte, error)) (func(), error) {
	return l.r.s.Link().Serve(subject, h)
}
func (l link) Send(to tandem.RegionName, subject string, data []byte) error {
	return l.r.s.Link().Send(to, subject, data)
}
func (l link) Receive(subject string, fn func(tandem.RegionName, []byte)) (func(), error) {
	return l.r.s.Link().Receive(subject, fn)
}
func (l link) Up() bool { return l.r.s.Link().Up() }

// newPair starts two regions joined by a real leafnode over TLS, through a relay that can be cut.
func newPair(t testing.TB) (logtest.Pair, *region, *region) {
	ca := newAuthority(t)
	a := &region{t: t, o: natslog.Options{Region: "west", StoreDir: t.TempDir(), Listen: "127.0.0.1:0", TLS: ca.config(t, "west")}}
	a.start()
	a.o.Listen = a.s.Addr()
	relay := newRelay(t, a.s.Addr())
	b := &region{t: t, o: natslog.Options{Region: "east", StoreDir: t.TempDir(), Remote: relay.addr(), TLS: ca.config(t, "east")}}
	b.start()
	waitUp(t, a, b)
	side := func(r *region) logtest.Side {
		return logtest.Side{Region: r.o.Region, Store: r.s.Store(), Link: link{r},
			Reopen: func() pairlog.Store { r.restart(); waitUp(t, a, b); return r.s.Store() }}
	}
	return logtest.Pair{A: side(a), B: side(b), Cut: relay.cut, Join: relay.join}, a, b
}

func waitUp(t testing.TB, a, b *region) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !a.s.Link().Up() || !b.s.Link().Up(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the link does not come up")
		}
	}
}

// relay passes connections on to an address until it is cut.
type relay struct {
	ln net.Listener
	to string

	mu    sync.Mutex
	off   bool
	conns []net.Conn
}

func newRelay(t testing.TB, to string) *relay {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{ln: ln, to: to}
	t.Cleanup(func() { ln.Close(); r.cut() })
	go func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			r.mu.Lock()
			if err != nil || r.off {
				in.Close()
				if err == nil {
					out.Close()
				}
				r.mu.Unlock()
				continue
			}
			r.conns = append(r.conns, in, out)
			r.mu.Unlock()
			go func() { io.Copy(out, in); out.Close() }()
			go func() { io.Copy(in, out); in.Close() }()
		}
	}()
	return r
}

func (r *relay) addr() string { return r.ln.Addr().String() }

func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.off = true
	for _, c := range r.conns {
		c.Close()
	}
	r.conns = nil
}

func (r *relay) join() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.off = false
}

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t testing.TB) *authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &authority{cert, key, pool}
}

func (a *authority) config(t testing.TB, name string) *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: a.pool, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}
