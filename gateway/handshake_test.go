package gateway_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"tandem"
	"tandem/gateway"
)

func certificate(t *testing.T) (*tls.Config, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"hub.test"}, NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, _ := x509.ParseCertificate(der)
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	cert := &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	return gateway.TLSConfig(func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert, nil }), pool
}

// start runs a gate on loopback whose connections echo one byte, and returns its address and the trust for it.
func start(t *testing.T, options gateway.HandshakeOptions, notify tandem.Notify) (*gateway.Gate, string, *tls.Config) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	config, pool := certificate(t)
	gate := gateway.NewGate(options, notify)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() {
		ended <- gate.Serve(ctx, l, config, func(ctx context.Context, conn net.Conn) {
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			_, _ = io.Copy(conn, conn)
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return gate, l.Addr().String(), &tls.Config{RootCAs: pool, ServerName: "hub.test"}
}

func echo(t *testing.T, conn net.Conn) {
	t.Helper()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	b := []byte{7}
	if _, err := conn.Write(b); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, b); err != nil || b[0] != 7 {
		t.Fatalf("no echo: %v", err)
	}
}

func TestGateServesTLS(t *testing.T) {
	_, addr, trust := start(t, gateway.HandshakeOptions{}, nil)
	for range 3 {
		conn, err := tls.Dial("tcp", addr, trust)
		if err != nil {
			t.Fatal(err)
		}
		echo(t, conn)
		conn.Close()
	}
}

func TestGateRefusesOldTLS(t *testing.T) {
	_, addr, trust := start(t, gateway.HandshakeOptions{}, nil)
	trust.MinVersion, trust.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	if conn, err := tls.Dial("tcp", addr, trust); err == nil {
		conn.Close()
		t.Error("TLS 1.1 was accepted")
	}
}

// Peers that connect and say nothing must not keep the gate's few places.
func TestSilentPeersDoNotBlockOthers(t *testing.T) {
	gate, addr, trust := start(t, gateway.HandshakeOptions{Busy: 1}, nil)
	for range 20 {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	for gate.Pending() < 20 {
		time.Sleep(time.Millisecond)
	}
	conn, err := tls.Dial("tcp", addr, trust)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	echo(t, conn)
}

func TestGateClosesWhatIsTooMuch(t *testing.T) {
	var told atomic.Int64
	gate, addr, _ := start(t, gateway.HandshakeOptions{Pending: 2}, func(n tandem.Notice) { told.Add(1) })
	for range 5 {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	for gate.Refused() < 3 {
		time.Sleep(time.Millisecond)
	}
	if closed := gate.Refused(); closed != 3 || gate.Pending() != 2 || told.Load() != 2 {
		t.Errorf("%d closed, %d pending, %d notices; want 3, 2, 2", gate.Refused(), gate.Pending(), told.Load())
	}
}

func TestGateHasADeadline(t *testing.T) {
	_, addr, _ := start(t, gateway.HandshakeOptions{Within: 50 * time.Millisecond}, nil)
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("a silent connection was answered")
	} else if n, ok := err.(net.Error); ok && n.Timeout() {
		t.Error("a silent connection stayed open")
	}
}
