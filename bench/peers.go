package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// A peer is something that takes the load.
type peer struct {
	name  string
	about string
	// clients are n connections of it.
	clients func(n int) []client
	// processes: the first serves, all together are what it takes.
	processes func() []int
	stop      func()
	sizes     []int        // numbers of connections; nil: all
	after     func() error // whether a measurement was what it is called; may be nil
}

func anonymous(address string, config *tls.Config) func(n int) []client {
	return func(n int) []client {
		list := make([]client, n)
		for i := range list {
			id := fmt.Sprintf("bench-%05d", i)
			list[i] = client{address: address, id: id, tls: config, topic: "devices/" + id + "/messages/events/"}
		}
		return list
	}
}

// mosquitto starts Debian's Mosquitto with its defaults: nothing is kept on disk.
func mosquitto(dir string) ([]peer, error) {
	program, err := exec.LookPath("mosquitto")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/mosquitto"); err != nil {
			return nil, fmt.Errorf("mosquitto is not installed (scripts/bench installs it): %w", err)
		}
	}
	cert, key, trust, err := certificate(dir)
	if err != nil {
		return nil, err
	}
	start := func(more string) (plain, secure int, cmd *exec.Cmd, err error) {
		if plain, err = freePort(); err != nil {
			return
		}
		if secure, err = freePort(); err != nil {
			return
		}
		file := filepath.Join(dir, fmt.Sprintf("mosquitto-%d.conf", plain))
		text := fmt.Sprintf("per_listener_settings false\nallow_anonymous true\nlog_type error\nuser root\n%s"+
			"listener %d 127.0.0.1\nlistener %d 127.0.0.1\ncertfile %s\nkeyfile %s\n", more, plain, secure, cert, key)
		if err = os.WriteFile(file, []byte(text), 0o600); err != nil {
			return
		}
		if cmd, err = child(program, "-c", file); err != nil {
			return
		}
		err = waitPort(net.JoinHostPort("127.0.0.1", strconv.Itoa(secure)), 5*time.Second)
		return
	}
	plain, secure, cmd, err := start("")
	if err != nil {
		return nil, err
	}
	kept, _, keeping, err := start("persistence true\npersistence_location " + dir + "/\nautosave_interval 1\n")
	if err != nil {
		stopChild(cmd)
		return nil, err
	}
	local := func(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
	one := func(c *exec.Cmd) func() []int { return func() []int { return []int{c.Process.Pid} } }
	return []peer{
		{name: "Mosquitto", about: "not durable (its default), plain", clients: anonymous(local(plain), nil), processes: one(cmd), stop: func() { stopChild(cmd) }},
		{name: "Mosquitto TLS", about: "not durable, TLS", clients: anonymous(local(secure), trust), processes: one(cmd), stop: func() {}},
		{name: "Mosquitto persistence", about: "written to disk each second, not before an answer", clients: anonymous(local(kept), nil),
			processes: one(keeping), stop: func() { stopChild(keeping) }, sizes: []int{100}},
	}, nil
}

// certificate makes a self-signed one for 127.0.0.1.
func certificate(dir string) (certFile, keyFile string, trust *tls.Config, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return "", "", nil, err
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return "", "", nil, err
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if err = os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		return "", "", nil, err
	}
	if err = os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private}), 0o600); err != nil {
		return "", "", nil, err
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return "", "", nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return certFile, keyFile, &tls.Config{RootCAs: pool, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12}, nil
}

// natsServer starts this program again as a nats-server with MQTT, every write synced. A persistent session that wants
// everything is left behind, so that messages have to be stored: without interest the server keeps nothing.
func natsServer(dir string) ([]peer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	cmd, err := child(self, "nats-server", strconv.Itoa(port), filepath.Join(dir, "nats"))
	if err != nil {
		return nil, err
	}
	if err = waitPort(address, 10*time.Second); err == nil {
		err = leaveSession(address)
	}
	if err != nil {
		stopChild(cmd)
		return nil, err
	}
	return []peer{{name: "nats-server MQTT", about: "JetStream, sync always, plain", clients: anonymous(address, nil),
		processes: func() []int { return []int{cmd.Process.Pid} }, stop: func() { stopChild(cmd) }}}, nil
}

func leaveSession(address string) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	body := append(appendText(nil, "MQTT"), 4, 0, 0, 0)
	body = appendText(body, "keeper")
	subscribe := append(appendText([]byte{0, 1}, "devices/#"), 1)
	out := append(appendLength([]byte{0x10}, len(body)), body...)
	if _, err = conn.Write(out); err != nil {
		return err
	}
	answer := make([]byte, 4)
	if _, err = io.ReadFull(conn, answer); err != nil {
		return err
	}
	if _, err = conn.Write(append(appendLength([]byte{0x82}, len(subscribe)), subscribe...)); err != nil {
		return err
	}
	answer = make([]byte, 5)
	if _, err = io.ReadFull(conn, answer); err != nil {
		return err
	}
	_, err = conn.Write([]byte{0xe0, 0})
	return err
}

// serveNATS is the child's part.
func serveNATS(port, dir string) error {
	n, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	s, err := server.NewServer(&server.Options{
		ServerName: "bench", Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: dir, SyncAlways: true, NoSigs: true, NoLog: true,
		MQTT: server.MQTTOpts{Host: "127.0.0.1", Port: n},
	})
	if err != nil {
		return err
	}
	s.Start()
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer cancel()
	<-ctx.Done()
	s.Shutdown()
	s.WaitForShutdown()
	return nil
}
