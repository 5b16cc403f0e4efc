package region

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"net"
	"net/http"
	"sync"
	"time"

	"tandem/gateway"
)

// The doors' ports are bound before a node can serve: whoever comes early is told so at once, instead of waiting for an
// answer that comes when the directory has a majority, or never.

// serveEarly answers at the doors until ctx ends; then they are free for those who serve. why says what is waited for.
func (d *doors) serveEarly(ctx context.Context, c *certificate, why func() string) {
	var group sync.WaitGroup
	defer group.Wait()
	for _, l := range []net.Listener{d.mqtt, d.mqttPlain} {
		if l != nil {
			group.Go(func() { turnAway(borrow(ctx, l)) })
		}
	}
	for _, l := range []net.Listener{d.https, d.arm} {
		if l != nil {
			server := &http.Server{Handler: unavailable(why), ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second}
			group.Go(func() {
				_ = server.Serve(tls.NewListener(borrow(ctx, l), gateway.TLSConfig(c.get, "h2", "http/1.1")))
				_ = server.Close() // nothing is under way that somebody waits for
			})
		}
	}
}

// turnAway closes every connection: devices try again.
func turnAway(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		_ = conn.Close()
	}
}

// unavailable is the retriable answer to every request, in the form that both Resource Manager and the registry use.
func unavailable(why func() string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		text := "this region does not answer yet: " + why()
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusServiceUnavailable)
		_ = json.NewEncoder(w).Encode(map[string]any{
			"error": map[string]string{"code": "ServiceUnavailable", "message": text}, "Message": text,
		})
	})
}

// A borrowed listener is closed without closing the one it was borrowed from.
type borrowed struct {
	net.Listener
	once sync.Once
	gone chan struct{}
}

// deadliner is a listener whose Accept can be called off, as TCP's.
type deadliner interface{ SetDeadline(time.Time) error }

// borrow returns l until ctx ends or it is closed.
func borrow(ctx context.Context, l net.Listener) net.Listener {
	b := &borrowed{Listener: l, gone: make(chan struct{})}
	b.setDeadline(time.Time{})
	context.AfterFunc(ctx, func() { _ = b.Close() })
	return b
}

func (b *borrowed) setDeadline(t time.Time) {
	if d, ok := b.Listener.(deadliner); ok {
		_ = d.SetDeadline(t)
	}
}

// Accept implements net.Listener.
func (b *borrowed) Accept() (net.Conn, error) {
	conn, err := b.Listener.Accept()
	select {
	case <-b.gone:
		if conn != nil {
			_ = conn.Close()
		}
		return nil, net.ErrClosed
	default:
		return conn, err
	}
}

// Close implements net.Listener: it only calls off Accept.
func (b *borrowed) Close() error {
	b.once.Do(func() {
		close(b.gone)
		b.setDeadline(time.Now())
	})
	return nil
}

// giveBack makes the listeners as they were before serveEarly.
func (d *doors) giveBack() {
	for _, l := range []net.Listener{d.mqtt, d.mqttPlain, d.https, d.arm} {
		if t, ok := l.(deadliner); ok {
			_ = t.SetDeadline(time.Time{})
		}
	}
}
