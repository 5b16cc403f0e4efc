package main

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"tandem"
	"tandem/client"
)

// simulation is a fleet of devices that send telemetry over MQTT and TLS with QoS 1, and measure the answers.
type simulation struct {
	client *client.Client
	host   string
	prefix string
	count  int
	rate   float64 // messages a second and device
	size   int     // bytes of a message, at least
	window int     // unacknowledged messages a device may have
	secret []byte  // devices' keys are derived from it
	ledger *ledger
	meter  meter
}

func (a *app) deviceSimulate() *cobra.Command {
	s := simulation{}
	var duration time.Duration
	var ledgerFile string
	c := a.command("device.simulate", "simulate HUB", cobra.ExactArgs(1), `  tandem device simulate hub-1
  tandem device simulate hub-1 --count 1000 --rate 0.1 --duration 1m
  tandem device simulate hub-1 --ledger acknowledged.jsonl --output json`, func(c *cobra.Command, args []string) error {
		if s.count < 1 || s.rate <= 0 || s.window < 1 || s.size < 0 || s.size > 256<<10 {
			return errUsage{fmt.Errorf("--count, --rate, --window: > 0; --size: 0–262144")}
		}
		t, service, err := a.service(c, args[0])
		if err != nil {
			return err
		}
		s.client, s.host = t, service.Host()
		keys, err := t.Keys(c.Context(), args[0])
		if err != nil || len(keys) == 0 {
			return fmt.Errorf("read the hub's keys: %w", err)
		}
		s.secret = []byte(keys[0].PrimaryKey)
		if ledgerFile != "" {
			f, err := os.Create(ledgerFile)
			if err != nil {
				return &tandem.Error{Op: "simulate", Err: err}
			}
			defer f.Close()
			s.ledger = &ledger{w: f}
		}
		stop := a.waiting(a.say("device.simulate.register", s.count))
		err = s.register(c.Context(), service)
		stop()
		if err != nil {
			return err
		}
		ctx := c.Context()
		if duration > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, duration)
			defer cancel()
		}
		s.meter.began = time.Now()
		stop = a.counting(func() string {
			n := s.meter.second()
			return a.say("device.simulate.progress", n.connected, n.perSecond, n.acknowledged, n.longest.Milliseconds(), n.reconnects)
		})
		err = s.run(ctx)
		stop()
		if err != nil {
			return err
		}
		return a.printSimulation(s.meter.summary())
	})
	c.Flags().IntVar(&s.count, "count", 20, a.say("flag.count"))
	c.Flags().Float64Var(&s.rate, "rate", 10, a.say("flag.rate"))
	c.Flags().IntVar(&s.size, "size", 128, a.say("flag.size"))
	c.Flags().IntVar(&s.window, "window", 32, a.say("flag.window"))
	c.Flags().StringVar(&s.prefix, "prefix", "sim-", a.say("flag.prefix"))
	c.Flags().DurationVar(&duration, "duration", 0, a.say("flag.duration"))
	c.Flags().StringVar(&ledgerFile, "ledger", "", a.say("flag.ledger"))
	return c
}

func (a *app) printSimulation(s summary) error {
	return a.print(s, func(w io.Writer) {
		row(w, a.say("simulate.sent"), s.Sent)
		row(w, a.say("simulate.acknowledged"), s.Acknowledged)
		row(w, a.say("simulate.persecond"), fmt.Sprintf("%.0f", s.PerSecond))
		row(w, a.say("simulate.latency"), fmt.Sprintf("%.1f / %.1f ms", s.P50Milliseconds, s.P99Milliseconds))
		row(w, a.say("simulate.longest"), fmt.Sprintf("%.0f ms", s.LongestPauseMilliseconds))
		row(w, a.say("simulate.reconnects"), s.Reconnects)
	})
}

func (s *simulation) id(i int) string { return fmt.Sprintf("%s%04d", s.prefix, i+1) }

func (s *simulation) key(id string) string {
	mac := hmac.New(sha256.New, s.secret)
	mac.Write([]byte("simulated device " + id))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// register makes the devices; those that exist get the key that this fleet uses.
func (s *simulation) register(ctx context.Context, service *client.Service) error {
	for first := 0; first < s.count; first += client.BulkLimit {
		changes := make([]json.RawMessage, 0, client.BulkLimit)
		for i := first; i < min(first+client.BulkLimit, s.count); i++ {
			key := s.key(s.id(i))
			change, _ := json.Marshal(map[string]any{"id": s.id(i), "importMode": "createOrUpdate", "status": "enabled", // of plain text: never fails
				"authentication": client.Authentication{Type: "sas", SymmetricKey: &client.SymmetricKey{PrimaryKey: key, SecondaryKey: key}}})
			changes = append(changes, change)
		}
		refused, err := retried(ctx, func() ([]client.BulkError, error) { return service.Bulk(ctx, changes) })
		if err != nil {
			return err
		}
		if len(refused) > 0 {
			return &tandem.Error{Op: "register the devices", Kind: tandem.Conflict, On: refused[0].DeviceID,
				Err: fmt.Errorf("%v %s", refused[0].ErrorCode, refused[0].ErrorStatus), Hint: "another --prefix makes other devices"}
		}
	}
	return nil
}

func (s *simulation) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for i := range s.count {
		g.Go(func() error {
			d := simulated{s: s, id: s.id(i)}
			start := time.Duration(float64(i) / float64(s.count) / s.rate * float64(time.Second)) // spread over one interval
			return d.run(ctx, start)
		})
	}
	return g.Wait()
}

// simulated is one device: it sends at its own times, keeps what is not acknowledged, and sends that again on a new
// connection.
type simulated struct {
	s    *simulation
	id   string
	next int64

	mu      sync.Mutex
	pending []pending // oldest first
}

type pending struct {
	id      uint16
	number  int64
	payload []byte
	sent    time.Time
}

// reconnectPause is what a device waits before it connects again, doubled up to a second.
const reconnectPause = 20 * time.Millisecond

func (d *simulated) run(ctx context.Context, start time.Duration) error {
	ticker := time.NewTicker(max(time.Duration(float64(time.Second)/d.s.rate), time.Microsecond))
	defer ticker.Stop()
	if wait(ctx, start) != nil {
		return nil
	}
	o := client.DeviceOptions{Addresses: d.s.client.MQTTAddresses(), Host: d.s.host, ID: d.id, Key: d.s.key(d.id), KeepAlive: 3 * time.Minute}
	pause := reconnectPause
	for first := true; ctx.Err() == nil; first = false {
		conn, err := d.s.client.Connect(ctx, o)
		if err == nil {
			if !first {
				d.s.meter.reconnected()
			}
			pause = reconnectPause
			d.session(ctx, conn, ticker.C)
			if ctx.Err() == nil {
				d.s.meter.lost()
			}
			continue
		}
		if tandem.KindOf(err) == tandem.Unauthorized && first {
			return err
		}
		if wait(ctx, pause) != nil {
			return nil
		}
		pause = min(2*pause, time.Second)
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// session uses one connection until it breaks or ctx ends; at the end it waits a moment for answers.
func (d *simulated) session(ctx context.Context, conn *client.Conn, tick <-chan time.Time) {
	d.s.meter.connected(1)
	defer d.s.meter.connected(-1)
	broken := make(chan struct{})
	room := make(chan struct{}, 1)
	go func() {
		defer close(broken)
		for {
			id, err := conn.Acknowledged()
			if err != nil {
				return
			}
			d.acknowledged(id)
			select {
			case room <- struct{}{}:
			default:
			}
		}
	}()
	defer func() {
		conn.Close()
		<-broken
	}()
	topic := client.EventsTopic(d.id, "%24.ct=application%2Fjson&%24.ce=utf-8")
	for _, p := range d.unacknowledged() {
		if conn.Publish(topic, p.payload, p.id, true) != nil {
			return
		}
	}
	ping := time.NewTicker(time.Minute)
	defer ping.Stop()
	for {
		select {
		case <-broken:
			return
		case <-ctx.Done():
			d.drain(broken, room)
			return
		case <-ping.C:
			if conn.Ping() != nil {
				return
			}
		case <-tick:
			for len(d.unacknowledged()) >= d.s.window {
				select {
				case <-room:
				case <-broken:
					return
				case <-ctx.Done():
					d.drain(broken, room)
					return
				}
			}
			p := d.make()
			if conn.Publish(topic, p.payload, p.id, false) != nil {
				return
			}
		}
	}
}

// drain waits up to two seconds for what is still unanswered.
func (d *simulated) drain(broken, room <-chan struct{}) {
	deadline := time.After(2 * time.Second)
	for len(d.unacknowledged()) > 0 {
		select {
		case <-room:
		case <-broken:
			return
		case <-deadline:
			return
		}
	}
}

func (d *simulated) unacknowledged() []pending {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.pending)
}

func (d *simulated) make() pending {
	d.next++
	now := time.Now()
	payload := fmt.Appendf(nil, `{"device":%q,"n":%d,"sent":%q`, d.id, d.next, now.UTC().Format(time.RFC3339Nano))
	if pad := d.s.size - len(payload) - len(`,"pad":""}`); pad > 0 {
		random := make([]byte, pad*3/4+3)
		_, _ = rand.Read(random) // never fails; random, so that nothing gains by compressing it
		payload = append(payload, `,"pad":"`...)
		payload = append(payload, base64.StdEncoding.EncodeToString(random)[:pad]...)
		payload = append(payload, '"')
	}
	p := pending{id: uint16((d.next-1)%65535) + 1, number: d.next, payload: append(payload, '}'), sent: now}
	d.mu.Lock()
	d.pending = append(d.pending, p)
	d.mu.Unlock()
	d.s.meter.sent()
	return p
}

func (d *simulated) acknowledged(id uint16) {
	d.mu.Lock()
	i := slices.IndexFunc(d.pending, func(p pending) bool { return p.id == id })
	var p pending
	if i >= 0 {
		p = d.pending[i]
		d.pending = slices.Delete(d.pending, i, i+1)
	}
	d.mu.Unlock()
	if i < 0 {
		return
	}
	now := time.Now()
	d.s.meter.acknowledged(now, now.Sub(p.sent))
	d.s.ledger.write(d.id, p.number, now)
}

// ledger keeps each acknowledged message as a line, for comparing with what is read back.
type ledger struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *ledger) write(device string, number int64, at time.Time) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(l.w, `{"device":%q,"n":%d,"acknowledged":%q}`+"\n", device, number, at.UTC().Format(time.RFC3339Nano))
}
