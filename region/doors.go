package region

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"tandem"
	"tandem/gateway"
	"tandem/gateway/https"
	"tandem/gateway/mqtt"
)

// doors are a node's listening ports; nil ones are closed. They are bound before anything else, so that a port that is
// taken is the first thing an operator hears.
type doors struct {
	mqtt, mqttPlain, https, arm, metrics net.Listener
}

func listen(c *Config) (*doors, error) {
	d := &doors{}
	for _, port := range []struct {
		into *net.Listener
		port int
		what string
	}{
		{&d.mqtt, c.Ports.MQTT, "MQTT"}, {&d.mqttPlain, c.Ports.MQTTPlain, "MQTT without TLS"}, {&d.https, c.Ports.HTTPS, "HTTPS"},
		{&d.arm, c.Ports.ARM, "management"}, {&d.metrics, c.Ports.Metrics, "metrics"},
	} {
		if port.port == 0 {
			continue
		}
		address := net.JoinHostPort(c.Listen, strconv.Itoa(port.port))
		l, err := net.Listen("tcp", address)
		if err != nil {
			d.close()
			return nil, cannotListen(port.what, address, err)
		}
		*port.into = l
	}
	return d, nil
}

func cannotListen(what, address string, err error) error {
	e := &tandem.Error{Op: "open the door for " + what, Kind: tandem.Unavailable, On: address, Err: err}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		e.Kind, e.Hint = tandem.Conflict, "another program has the port; end it, or choose another port or address"
	case errors.Is(err, syscall.EACCES):
		e.Kind, e.Hint = tandem.Forbidden, "sysctl -w net.ipv4.ip_unprivileged_port_start=443, or setcap cap_net_bind_service=+ep on the program"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		e.Hint = "this machine does not have the address"
	}
	return e
}

func (d *doors) close() {
	for _, l := range []net.Listener{d.mqtt, d.mqttPlain, d.https, d.arm, d.metrics} {
		if l != nil {
			_ = l.Close()
		}
	}
}

// serveDoors answers devices, services and operators until ctx ends.
func (n *node) serveDoors(ctx context.Context, d *doors) error {
	certificate, err := newCertificate(n.c.DoorCert, n.c.DoorKey)
	if err != nil {
		return err
	}
	guard := &guard{logger: n.logger, metrics: n.metrics}
	devices, err := mqtt.New(mqtt.Options{Hubs: n.replicas, Logger: n.logger, Clock: n.clock})
	if err != nil {
		return err
	}
	gate := gateway.NewGate(gateway.HandshakeOptions{}, n.notice)
	n.metrics.gateways(devices, gate)
	group, ctx := errgroup.WithContext(ctx)
	if d.mqtt != nil {
		group.Go(func() error {
			return gate.Serve(ctx, d.mqtt, gateway.TLSConfig(certificate.get, "mqtt"), guard.serve(devices.Serve))
		})
	}
	if d.mqttPlain != nil {
		group.Go(func() error { return gate.Serve(ctx, d.mqttPlain, nil, guard.serve(devices.Serve)) })
	}
	if d.https != nil {
		server := https.New(https.Options{Hubs: n.replicas, Clock: n.clock, Logger: n.logger}).Server()
		group.Go(func() error {
			return serveHTTP(ctx, server, d.https, gateway.TLSConfig(certificate.get, "h2", "http/1.1"))
		})
	}
	management, err := n.management()
	if err != nil {
		return err
	}
	if d.arm != nil {
		group.Go(func() error {
			return serveHTTP(ctx, management, d.arm, gateway.TLSConfig(certificate.get, "h2", "http/1.1"))
		})
	}
	n.serving.Store(true)
	return group.Wait()
}

// A guard keeps a fault that one connection brings to light from ending all others: it is logged with its trace, and that
// connection ends.
type guard struct {
	logger  *slog.Logger
	metrics *metrics
}

func (g *guard) serve(serve func(context.Context, net.Conn)) func(context.Context, net.Conn) {
	return func(ctx context.Context, conn net.Conn) {
		defer func() {
			if fault := recover(); fault != nil {
				g.metrics.panics.Inc()
				g.logger.Error("connection ended by a fault", "fault", fault, "trace", string(debug.Stack()))
				_ = conn.Close()
			}
		}()
		serve(ctx, conn)
	}
}

// serveHTTP serves until ctx ends; requests under way get a second.
func serveHTTP(ctx context.Context, s *http.Server, l net.Listener, config *tls.Config) error {
	requests, cancel := context.WithCancel(context.Background())
	defer cancel()
	s.BaseContext = func(net.Listener) context.Context { return requests }
	if config != nil {
		l = tls.NewListener(l, config)
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		leaving, done := context.WithTimeout(context.Background(), time.Second)
		defer done()
		time.AfterFunc(500*time.Millisecond, cancel) // streams end with their request
		if s.Shutdown(leaving) != nil {
			_ = s.Close()
		}
	})
	err := s.Serve(l)
	if !stop() {
		<-stopped
	}
	if ctx.Err() != nil || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve %s: %w", l.Addr(), err)
}

// A certificate is read again when its file changes, so that a renewed one needs no restart.
type certificate struct {
	certFile, keyFile string

	mu      sync.Mutex
	pair    *tls.Certificate
	read    time.Time // of the last look
	changed time.Time // of the file that pair came from
}

const certificateLook = 10 * time.Second

func newCertificate(certFile, keyFile string) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile}
	if _, err := c.get(nil); err != nil {
		return nil, &tandem.Error{Op: "read the doors' certificate", Kind: tandem.Invalid, On: certFile, Err: err}
	}
	return c, nil
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pair != nil && time.Since(c.read) < certificateLook {
		return c.pair, nil
	}
	c.read = time.Now()
	info, err := os.Stat(c.certFile)
	if err == nil && c.pair != nil && info.ModTime().Equal(c.changed) {
		return c.pair, nil
	}
	if err == nil {
		var pair tls.Certificate
		if pair, err = tls.LoadX509KeyPair(c.certFile, c.keyFile); err == nil {
			c.pair, c.changed = &pair, info.ModTime()
		}
	}
	if c.pair != nil { // half a renewal: the old one goes on
		return c.pair, nil
	}
	return nil, err
}
