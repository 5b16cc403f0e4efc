package mqtt_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"tandem/gateway"
	"tandem/gateway/mqtt"
)

// listenTLS serves s with a certificate of its own and returns the URL and the trust for it.
func listenTLS(t testing.TB, s *mqtt.Server) (string, *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"fab.example"}, NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, _ := x509.ParseCertificate(der)
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	config := gateway.TLSConfig(func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- gateway.NewGate(gateway.HandshakeOptions{}, nil).Serve(ctx, l, config, s.Serve) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return "ssl://" + l.Addr().String(), &tls.Config{RootCAs: pool, ServerName: "fab.example"}
}

// TestPaho holds that an unmodified client works over TLS.
func TestPaho(t *testing.T) {
	h := newFakeHub(t)
	url, trust := listenTLS(t, newServer(t, h, nil))
	options := paho.NewClientOptions().AddBroker(url).SetClientID("d1").SetTLSConfig(trust).SetCleanSession(false).SetProtocolVersion(4).
		SetUsername("fab.example/d1/?api-version=2021-04-12&DeviceClientType=paho").SetPassword(tokenFor(time.Now().Add(time.Hour))).
		SetAutoReconnect(false)
	c := paho.NewClient(options)
	wait := func(what string, token paho.Token) {
		t.Helper()
		if !token.WaitTimeout(patience) || token.Error() != nil {
			t.Fatalf("%s: %v", what, token.Error())
		}
	}
	wait("connect", c.Connect())
	answers := make(chan paho.Message, 1)
	wait("subscribe", c.Subscribe("$iothub/twin/res/#", 0, func(_ paho.Client, m paho.Message) { answers <- m }))
	wait("get the twin", c.Publish("$iothub/twin/GET/?$rid=1", 1, false, ""))
	select {
	case m := <-answers:
		if m.Topic() != "$iothub/twin/res/200/?$rid=1" {
			t.Errorf("the twin came as %s", m.Topic())
		}
	case <-time.After(patience):
		t.Fatal("no twin")
	}
	const count = 500
	var tokens []paho.Token
	for i := range count {
		tokens = append(tokens, c.Publish(events+"n="+fmt.Sprint(i), 1, false, fmt.Sprint(i)))
	}
	for i, token := range tokens {
		wait(fmt.Sprint("message ", i), token)
	}
	got := h.messages()
	if len(got) != count {
		t.Fatalf("%d messages, want %d", len(got), count)
	}
	for i, m := range got {
		if string(m.Body) != fmt.Sprint(i) || len(m.Properties) != 1 || m.Properties[0].Value != fmt.Sprint(i) {
			t.Fatalf("message %d is %+v", i, m)
		}
	}
	c.Disconnect(100)
}
