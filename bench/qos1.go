package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// qos1 measures acknowledged messages a second, latency and CPU per message: every system in turn, then all again.
func (b *bench) qos1(ctx context.Context) error {
	peers, err := b.peers(ctx)
	defer func() {
		for _, p := range peers {
			p.stop()
		}
	}()
	if err != nil {
		return err
	}
	for _, size := range b.connections {
		for _, window := range b.windows {
			table := &table{title: fmt.Sprintf("QoS 1, %d connections, window %d, 256 B that cannot be compressed", size, window),
				head: []string{"system", "acknowledged/s", "p50 ms", "p99 ms", "CPU µs/msg, serving", "CPU µs/msg, all", "failed"}}
			runs := map[string][]sample{}
			for round := range b.rounds {
				for _, p := range peers {
					if p.sizes != nil && !slices.Contains(p.sizes, size) {
						continue
					}
					one, err := b.once(ctx, p, size, window)
					if err != nil {
						return fmt.Errorf("%s: %w", p.name, err)
					}
					progress("round %d, %d connections, window %d, %s: %.0f/s", round+1, size, window, p.name, one.perSecond)
					runs[p.name] = append(runs[p.name], one)
				}
			}
			for _, p := range peers {
				if r := runs[p.name]; len(r) > 0 {
					table.row(p.name+" ("+p.about+")", spread(r, func(r sample) float64 { return r.perSecond }, "%.0f"),
						spread(r, func(r sample) float64 { return r.p50 }, "%.1f"), spread(r, func(r sample) float64 { return r.p99 }, "%.1f"),
						spread(r, func(r sample) float64 { return r.serving }, "%.1f"), spread(r, func(r sample) float64 { return r.all }, "%.1f"),
						fmt.Sprint(failures(r)))
				}
			}
			b.report.add(table)
			b.judgeQoS1(size, window, runs)
		}
	}
	return nil
}

// sample is one measured load. CPU is in microseconds per message.
type sample struct {
	perSecond, p50, p99, serving, all float64
	failures                          int64
}

func failures(runs []sample) (n int64) {
	for _, r := range runs {
		n += r.failures
	}
	return n
}

func (b *bench) once(ctx context.Context, p peer, size, window int) (sample, error) {
	var serving, all time.Duration
	r, err := load{clients: p.clients(size), window: window, payload: 256, warm: time.Second}.run(ctx, func(*meter) {
		processes := p.processes()
		before, beforeAll := cpu(processes[0]), sum(processes)
		select {
		case <-time.After(b.seconds):
		case <-ctx.Done():
		}
		serving, all = cpu(processes[0])-before, sum(processes)-beforeAll
	})
	if err != nil {
		return sample{}, err
	}
	if p.after != nil {
		if err := p.after(); err != nil {
			return sample{}, err
		}
	}
	each := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(max(1, r.acked)) }
	return sample{r.perSecond(), r.latency.quantile(0.5), r.latency.quantile(0.99), each(serving), each(all), r.failures}, nil
}

func sum(processes []int) (total time.Duration) {
	for _, pid := range processes {
		total += cpu(pid)
	}
	return total
}

func (b *bench) peers(ctx context.Context) (list []peer, err error) {
	dir := filepath.Join(b.data, "peers")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	add := func(some []peer, err error) error {
		for _, p := range some {
			if b.only == "" || strings.Contains(strings.ToLower(p.name), strings.ToLower(b.only)) {
				list = append(list, p)
			} else {
				p.stop()
			}
		}
		return err
	}
	// Mosquitto's two listeners are one process, which the first of its peers stops: -only keeps or drops both.
	if b.only == "" || strings.Contains("mosquitto tls persistence", strings.ToLower(b.only)) {
		if err := add(mosquitto(dir)); err != nil {
			return list, err
		}
	}
	if b.only == "" || strings.Contains("nats-server mqtt", strings.ToLower(b.only)) {
		if err := add(natsServer(dir)); err != nil {
			return list, err
		}
	}
	if b.only == "" || strings.Contains("tandem", strings.ToLower(b.only)) {
		if err := add(b.asPeer(ctx)); err != nil {
			return list, err
		}
	}
	return list, nil
}

// asPeer is Tandem with its follower running: direct, over TLS, through the other region, and in sync mode.
func (b *bench) asPeer(ctx context.Context) ([]peer, error) {
	t, err := b.start(ctx)
	if err != nil {
		return nil, err
	}
	if err := t.register(ctx, max(1000, slices.Max(b.connections))); err != nil {
		return nil, err
	}
	holder, err := t.holder()
	if err != nil {
		return nil, err
	}
	processes := func() []int { return []int{t.pid(holder), t.pid(other(holder))} }
	kind := func(name, about, region, mode string, secure bool) peer {
		return peer{name: name, about: about, processes: processes, stop: func() {}, clients: func(n int) []client {
			if err := t.mode(mode); err != nil {
				progress("replication %s: %v", mode, err)
			}
			return t.clients(region, n, secure)
		}}
	}
	sync := kind("Tandem sync", "sync-available: answered when both regions have it", holder, "sync-available", false)
	sync.sizes = []int{100}
	sync.after = func() error {
		both, err := t.inSync()
		if !both && err == nil {
			err = errors.New("the peer fell out of sync, so this was not a measurement of it")
		}
		return err
	}
	forwarded := kind("Tandem forwarded", "through the region without the pen", other(holder), "async", false)
	forwarded.sizes = []int{100}
	return []peer{
		kind("Tandem", "durable, follower on, plain", holder, "async", false),
		kind("Tandem TLS", "durable, follower on, TLS", holder, "async", true), forwarded, sync,
	}, nil
}

func (b *bench) judgeQoS1(size, window int, runs map[string][]sample) {
	perSecond := func(r sample) float64 { return r.perSecond }
	ratio := func(a, o string, of func(sample) float64) (float64, bool) {
		if len(runs[a]) == 0 || len(runs[o]) == 0 || median(runs[o], of) == 0 {
			return 0, false
		}
		return median(runs[a], of) / median(runs[o], of), true
	}
	judge := func(what, a, o string, of func(sample) float64, budget float64, atLeast bool) {
		got, ok := ratio(a, o, of)
		if !ok {
			return
		}
		sign := map[bool]string{true: "≥", false: "≤"}[atLeast]
		b.report.judge(what, fmt.Sprintf("%s %.2f ×", sign, budget), fmt.Sprintf("%.2f ×", got), got >= budget == atLeast)
	}
	serving, all := func(r sample) float64 { return r.serving }, func(r sample) float64 { return r.all }
	what := fmt.Sprintf("QoS 1, %d connections, window %d", size, window)
	switch {
	case window == 32 && size == 100:
		judge(what+": against Mosquitto", "Tandem", "Mosquitto", perSecond, 3, true)
		judge(what+": against nats-server", "Tandem", "nats-server MQTT", perSecond, 30, true)
		judge(what+": CPU of the holder against Mosquitto", "Tandem", "Mosquitto", serving, 0.25, false)
		if len(runs["Tandem"]) > 0 && len(runs["Mosquitto"]) > 0 {
			got := median(runs["Tandem"], all) / median(runs["Mosquitto"], serving)
			b.report.judge(what+": CPU of both regions against Mosquitto", "≤ 0.50 ×", fmt.Sprintf("%.2f ×", got), got <= 0.5)
		}
	case window == 1 && size == 100:
		judge(what+": against Mosquitto", "Tandem", "Mosquitto", perSecond, 0.4, true)
		judge(what+": against nats-server", "Tandem", "nats-server MQTT", perSecond, 4, true)
	case window == 1 && size == 1000:
		judge(what+": against Mosquitto", "Tandem", "Mosquitto", perSecond, 0.6, true)
	}
	if size == 100 {
		judge(what+": sync against async", "Tandem sync", "Tandem", perSecond, 0.6, true)
		judge(what+": forwarded against direct", "Tandem forwarded", "Tandem", perSecond, 0.7, true)
	}
}

// mode sets the replication mode if it is another than the last one set.
func (t *tandem) mode(mode string) error {
	if t.replication == mode || t.replication == "" && mode == "async" {
		return nil
	}
	if err := t.replicate(mode); err != nil {
		return err
	}
	t.replication = mode
	return nil
}

// startTimes measures dev from nothing, and again on its data, each to the first acknowledged message.
func (b *bench) startTimes(ctx context.Context) error {
	var empty, again []float64
	for range b.rounds {
		b.stopTandem()
		b.tandem = nil
		if err := os.RemoveAll(filepath.Join(b.data, "tandem")); err != nil {
			return err
		}
		began := time.Now()
		t, err := b.start(ctx)
		if err != nil {
			return err
		}
		if err := t.register(ctx, 1); err != nil {
			return err
		}
		holder, err := t.holder()
		if err != nil {
			return err
		}
		if _, err := t.firstAck(ctx, holder, 30*time.Second); err != nil {
			return err
		}
		empty = append(empty, time.Since(began).Seconds())
		if err := t.stop(syscall.SIGINT); err != nil {
			return err
		}
		began = time.Now()
		if _, err := t.run(ctx); err != nil {
			return err
		}
		if holder, err = t.holder(); err != nil {
			return err
		}
		if _, err := t.firstAck(ctx, holder, 30*time.Second); err != nil {
			return err
		}
		again = append(again, time.Since(began).Seconds())
	}
	table := &table{title: "`tandem dev` from start to the first acknowledged message, seconds", head: []string{"case", "seconds"}}
	id := func(v float64) float64 { return v }
	table.row("empty data directory", spread(empty, id, "%.2f"))
	table.row("its own data, after Ctrl-C", spread(again, id, "%.2f"))
	b.report.add(table)
	b.report.judge("`tandem dev` from start to first telemetry", "≤ 5 s", fmt.Sprintf("%.2f s", median(empty, id)), median(empty, id) <= 5)
	return nil
}
