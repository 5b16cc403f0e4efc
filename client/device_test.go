package client_test

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"tandem"
	"tandem/client"
	"tandem/gateway"
	"tandem/gateway/mqtt/packet"
)

// broker accepts one device at a time, checks its token, and acknowledges what it publishes to topics.
func broker(t *testing.T, l net.Listener, key string, topics chan<- string) {
	t.Helper()
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		r := packet.NewReader(conn, 256<<10)
		for {
			p, err := r.Next()
			if err != nil {
				break
			}
			var out []byte
			switch p.Type {
			case packet.CONNECT:
				code := packet.RefusedNotAuthorized
				c, err := packet.ParseConnect(p.Body)
				token, tokenErr := gateway.ParseToken(string(c.Password))
				secret, _ := gateway.DecodeKey(key)
				if err == nil && tokenErr == nil && token.SignedBy(secret) && token.Covers("devices/"+string(c.ClientID)) {
					code = packet.Accepted
				}
				out = packet.AppendConnack(nil, false, code)
			case packet.PUBLISH:
				m, err := packet.ParsePublish(p.Flags, p.Body)
				if err == nil {
					topics <- string(m.Topic)
					out = packet.AppendPuback(nil, m.ID)
				}
			case packet.PINGREQ:
				out = packet.AppendEmpty(nil, packet.PINGRESP)
			}
			_, _ = conn.Write(out)
		}
		_ = conn.Close()
	}
}

func trusted(t *testing.T, s *httptest.Server) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestDeviceConnectsPublishesAndIsAnswered(t *testing.T) {
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: s.TLS.Certificates})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	topics := make(chan string, 4)
	go broker(t, l, "S0VZ", topics)
	c, err := client.New(client.Target{URLs: []string{s.URL}, CA: trusted(t, s)})
	if err != nil {
		t.Fatal(err)
	}
	o := client.DeviceOptions{Addresses: []string{"127.0.0.1:1", l.Addr().String()}, Host: "hub-1.test", ID: "press-4", Key: "S0VZ"}
	d, err := c.Connect(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Ping(); err != nil {
		t.Fatal(err)
	}
	if err := d.Publish(client.EventsTopic("press-4", "a=1"), []byte("{}"), 7, false); err != nil {
		t.Fatal(err)
	}
	if id, err := d.Acknowledged(); id != 7 || err != nil {
		t.Errorf("acknowledged %d, %v", id, err)
	}
	if topic := <-topics; topic != "devices/press-4/messages/events/a=1" {
		t.Errorf("published to %s", topic)
	}
	d.Close()
	o.Key = "AAAA"
	if _, err := c.Connect(t.Context(), o); tandem.KindOf(err) != tandem.Unauthorized {
		t.Errorf("with a wrong key: %v", err)
	}
}

func TestPortsThatBelongTogether(t *testing.T) {
	c, err := client.New(client.Target{URLs: []string{"https://localhost:28443", "https://[::1]:8443"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(c.Target().DataURLs, " "); got != "https://localhost:20443 https://[::1]:443" {
		t.Errorf("data doors: %s", got)
	}
	if got := strings.Join(c.MQTTAddresses(), " "); got != "localhost:28883 [::1]:8883" {
		t.Errorf("MQTT: %s", got)
	}
}

// TestNothingIsDoneTwice: what may have happened is not asked of another region.
func TestNothingIsDoneTwice(t *testing.T) {
	var calls atomic.Int32
	drop := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		calls.Add(1)
		panic(http.ErrAbortHandler) // the connection breaks after the request was read
	})
	a, b := httptest.NewTLSServer(drop), httptest.NewTLSServer(drop)
	defer a.Close()
	defer b.Close()
	c, err := client.New(client.Target{URLs: []string{a.URL, b.URL}, CA: trusted(t, a)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Do(context.Background(), client.Request{Method: http.MethodPost, Path: "/x"}); tandem.KindOf(err) != tandem.Unavailable || calls.Load() != 1 {
		t.Errorf("POST: %d calls, %v", calls.Load(), err)
	}
	calls.Store(0)
	if _, err := c.Do(context.Background(), client.Request{Method: http.MethodGet, Path: "/x"}); err == nil || calls.Load() < 2 {
		t.Errorf("GET: %d calls, %v", calls.Load(), err)
	}
}

func TestConnectionString(t *testing.T) {
	const text = "HostName=hub-1.test;DeviceId=d=1;SharedAccessKey=S0VZ=="
	c, err := client.ParseConnectionString(text)
	if err != nil || c.DeviceID != "d=1" || c.SharedAccessKey != "S0VZ==" || c.String() != text {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := client.ParseConnectionString("HostName=x"); tandem.KindOf(err) != tandem.Invalid {
		t.Errorf("without a key: %v", err)
	}
}
