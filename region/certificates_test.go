package region_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"tandem/region"
)

func TestCertificates(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	a, err := region.OpenAuthority(dir, "test", now)
	if err != nil {
		t.Fatal(err)
	}
	hosts := []string{"localhost", "*.tandem.localhost", "hub-1.tandem.localhost", "127.0.0.1", "::1", "127.0.1.1"}
	cert, key, err := a.Door(hosts, now)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(a.File())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		t.Fatal("the authority's file is not PEM")
	}
	for _, name := range []string{"localhost", "other.tandem.localhost", "127.0.0.1", "::1", "127.0.1.1"} {
		if err := handshake(pair, &tls.Config{RootCAs: roots, ServerName: name}); err != nil {
			t.Errorf("as %s: %v", name, err)
		}
	}
	if err := handshake(pair, &tls.Config{RootCAs: roots, ServerName: "example.com"}); err == nil {
		t.Error("good for a name that it does not have")
	}
	for _, file := range []string{"ca.key", "door.key", "ca.pem"} {
		if info, err := os.Stat(filepath.Join(dir, file)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file, info.Mode(), err)
		}
	}
}

func handshake(pair tls.Certificate, client *tls.Config) error {
	near, far := net.Pipe()
	defer near.Close()
	go func() {
		server := tls.Server(far, &tls.Config{Certificates: []tls.Certificate{pair}})
		_, _ = io.Copy(io.Discard, server)
		far.Close()
	}()
	return tls.Client(near, client).Handshake()
}

func TestCertificatesAreKeptWhileTheyFit(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	read := func(hosts []string, now time.Time) string {
		t.Helper()
		a, err := region.OpenAuthority(dir, "test", now)
		if err != nil {
			t.Fatal(err)
		}
		cert, _, err := a.Site("westus2", hosts, now)
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(cert)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	first := read([]string{"127.0.1.1"}, now)
	if read([]string{"127.0.1.1"}, now.Add(time.Hour)) != first {
		t.Error("made anew although nothing changed")
	}
	second := read([]string{"127.0.1.1", "127.0.1.2"}, now)
	if second == first {
		t.Error("kept although an address is new")
	}
	if read([]string{"127.0.1.1", "127.0.1.2"}, now.Add(380*24*time.Hour)) == second {
		t.Error("kept although it soon expires")
	}
}

func TestCertificateWithoutItsKeyIsDamage(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	if _, err := region.OpenAuthority(dir, "test", now); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "ca.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := region.OpenAuthority(dir, "test", now); err == nil {
		t.Error("a new authority was made over the old one, which clients trust")
	}
}
