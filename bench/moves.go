package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"time"
)

// paced is a load of n connections, as many messages a second, at one region's door.
func (t *tandem) paced(region string, n int, rate float64) load {
	return load{clients: t.clients(region, n, false), rate: rate, payload: 256, warm: 2 * time.Second}
}

// lag measures how far the follower is behind at 20,000 messages a second.
func (b *bench) lag(ctx context.Context) error {
	t, err := b.start(ctx)
	if err != nil {
		return err
	}
	if err := t.register(ctx, 1000); err != nil {
		return err
	}
	if err := t.mode("async"); err != nil {
		return err
	}
	holder, err := t.holder()
	if err != nil {
		return err
	}
	table := &table{title: "Replication lag, 100 connections, paced (the follower's age of its copy, sampled each 20 ms; latency of the devices beside it)",
		head: []string{"msg/s offered", "msg/s acknowledged", "lag p50 ms", "lag p99 ms", "latency p50 ms", "latency p99 ms", "memory of the holder MB", "of the follower MB"}}
	for _, rate := range []float64{5000, 20000} {
		var lags []float64
		var memory, peerMemory int64
		r, err := t.paced(holder, 100, rate).run(ctx, func(*meter) {
			for began := time.Now(); time.Since(began) < b.seconds && ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
				if age, ok := t.lagOf(other(holder)); ok {
					lags = append(lags, age)
				}
				memory, peerMemory = max(memory, rss(t.pid(holder))), max(peerMemory, rss(t.pid(other(holder))))
			}
		})
		if err != nil {
			return err
		}
		if len(lags) == 0 {
			return fmt.Errorf("the status document shows no lag of %s", other(holder))
		}
		p50, p99 := quantile(lags, 0.5), quantile(lags, 0.99)
		table.row(fmt.Sprintf("%.0f", rate), fmt.Sprintf("%.0f", r.perSecond()), fmt.Sprintf("%.1f", p50), fmt.Sprintf("%.1f", p99),
			fmt.Sprintf("%.1f", r.latency.quantile(0.5)), fmt.Sprintf("%.1f", r.latency.quantile(0.99)),
			fmt.Sprint(memory>>20), fmt.Sprint(peerMemory>>20))
		if rate == 20000 {
			b.report.judge("replication lag at 20 k msg/s", "p50 ≤ 15 ms, p99 ≤ 50 ms", fmt.Sprintf("%.1f / %.1f ms", p50, p99), p50 <= 15 && p99 <= 50)
			b.report.judge("memory of a whole process under load", "≤ 512 MB", fmt.Sprintf("%d MB", max(memory, peerMemory)>>20), max(memory, peerMemory) <= 512<<20)
		}
	}
	b.report.add(table)
	return nil
}

// lagOf is the age of a region's copy in milliseconds, from that region's own status.
func (t *tandem) lagOf(region string) (float64, bool) {
	request, err := http.NewRequest(http.MethodGet, "https://"+t.at(region, 8443)+"/tandem/hubs/"+t.env()["TANDEM_HUB_NAME"]+"/status", nil)
	if err != nil {
		return 0, false
	}
	request.Header.Set("Authorization", "Bearer "+t.env()["TANDEM_CLIENT_SECRET"])
	response, err := t.http.Do(request)
	if err != nil {
		return 0, false
	}
	defer response.Body.Close()
	var document any
	if json.NewDecoder(response.Body).Decode(&document) != nil {
		return 0, false
	}
	return findLag(document, region)
}

// findLag looks for an object of this region with a lag in it, wherever it is nested.
func findLag(v any, region string) (float64, bool) {
	switch v := v.(type) {
	case []any:
		for _, each := range v {
			if age, ok := findLag(each, region); ok {
				return age, true
			}
		}
	case map[string]any:
		if seconds, ok := v["lagSeconds"].(float64); ok && v["region"] == region {
			known, _ := v["lagKnown"].(bool)
			return seconds * 1e3, known
		}
		for _, each := range v {
			if age, ok := findLag(each, region); ok {
				return age, true
			}
		}
	}
	return 0, false
}

// planned measures the pause of planned failovers with few and many registered devices, at 5,000 messages a second.
func (b *bench) planned(ctx context.Context) error {
	table := &table{title: "Planned failover: longest time without an acknowledgement, ms (100 connections that stay at one door, 5,000 msg/s)",
		head: []string{"registered devices", "moves", "median", "p99 (longest if few)", "longest wait of a message", "connections dropped", "without a move"}}
	t, err := b.start(ctx)
	if err != nil {
		return err
	}
	if err := t.mode("async"); err != nil {
		return err
	}
	first := 0.0
	for _, n := range b.registered {
		if err := t.register(ctx, n); err != nil {
			return err
		}
		holder, err := t.holder()
		if err != nil {
			return err
		}
		var gaps []float64
		var baseline float64
		var moving error
		r, err := t.paced(holder, 100, 5000).run(ctx, func(m *meter) {
			time.Sleep(2 * time.Second)
			baseline = float64(m.longest.Swap(0)) / 1e6
			to := other(holder)
			for range b.moves {
				m.longest.Store(0)
				if _, moving = t.failover(to, false); moving != nil || ctx.Err() != nil {
					return
				}
				time.Sleep(500 * time.Millisecond)
				gaps = append(gaps, float64(m.longest.Load())/1e6)
				to = other(to)
			}
		})
		if err := firstError(moving, err); err != nil {
			return fmt.Errorf("with %d devices: %w", n, err)
		}
		middle, worst := quantile(gaps, 0.5), quantile(gaps, 0.99)
		progress("planned failover with %d devices: median %.1f ms, p99 %.1f ms", n, middle, worst)
		table.row(fmt.Sprint(n), fmt.Sprint(len(gaps)), fmt.Sprintf("%.1f", middle), fmt.Sprintf("%.1f", worst),
			fmt.Sprintf("%.1f", r.latency.quantile(1)), fmt.Sprint(r.failures), fmt.Sprintf("%.1f", baseline))
		if first == 0 {
			first = middle
			b.report.judge("planned failover, longest gap", "median ≤ 25 ms, p99 ≤ 100 ms", fmt.Sprintf("%.1f / %.1f ms", middle, worst), middle <= 25 && worst <= 100)
		} else {
			b.report.judge(fmt.Sprintf("planned failover with %d devices against %d", n, b.registered[0]), "≤ 1.20 ×", fmt.Sprintf("%.2f ×", middle/first), middle <= 1.2*first)
		}
		b.report.judge(fmt.Sprintf("planned failover with %d devices, connections dropped", n), "0", fmt.Sprint(r.failures), r.failures == 0)
	}
	b.report.add(table)
	b.imports()
	return nil
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// imports reports the imports so far that were large enough to say something.
func (b *bench) imports() {
	table := &table{title: "Import of identities with `tandem device import` (REST, bulks of 100, 16 in parallel)", head: []string{"devices before", "after", "devices/s"}}
	best := 0.0
	for _, i := range b.tandem.importRates {
		if i.to-i.from >= 5000 {
			table.row(fmt.Sprint(i.from), fmt.Sprint(i.to), fmt.Sprintf("%.0f", i.rate))
			best = max(best, i.rate)
		}
	}
	if len(table.rows) > 0 {
		b.report.add(table)
		b.report.judge("import of identities", "≥ 50,000/s", fmt.Sprintf("%.0f/s", best), best >= 50000)
	}
}

// forced measures the operator's forced failover: the source reachable, killed and its lease lapsed, killed a moment ago.
func (b *bench) forced(ctx context.Context) error {
	t, err := b.start(ctx)
	if err != nil {
		return err
	}
	if err := firstError(t.register(ctx, 1000), t.mode("async")); err != nil {
		return err
	}
	table := &table{title: "Forced failover by the operator: command to first acknowledgement in the other region, seconds", head: []string{"case", "seconds"}}
	for _, c := range []struct {
		name   string
		kill   bool
		after  time.Duration
		budget float64
	}{
		{"source reachable", false, 0, 2}, {"source killed, lease lapsed", true, 5 * time.Second, 1}, {"source killed a moment ago (lease 3 s)", true, 0, 4.5},
	} {
		var times []float64
		for range b.rounds {
			took, err := t.forcedOnce(ctx, c.kill, c.after)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			progress("forced, %s: %.3f s", c.name, took)
			times = append(times, took)
		}
		id := func(v float64) float64 { return v }
		table.row(c.name, spread(times, id, "%.2f"))
		b.report.judge("forced failover, "+c.name, fmt.Sprintf("≤ %.1f s", c.budget), fmt.Sprintf("%.2f s", median(times, id)), median(times, id) <= c.budget)
	}
	b.report.add(table)
	return nil
}

func (t *tandem) forcedOnce(ctx context.Context, kill bool, after time.Duration) (float64, error) {
	holder, err := t.holder()
	if err != nil {
		return 0, err
	}
	if _, err := t.firstAck(ctx, holder, 10*time.Second); err != nil {
		return 0, err
	}
	if kill {
		if err := syscall.Kill(t.pid(holder), syscall.SIGKILL); err != nil {
			return 0, err
		}
		time.Sleep(after)
	}
	to := other(holder)
	began := time.Now()
	failed := make(chan error, 1)
	go func() {
		_, err := t.failover(to, true)
		failed <- err
	}()
	for { // until the pen is there: a door of this region also answers for the old holder
		if now, err := t.holder(); err == nil && now == to {
			break
		}
		select {
		case err := <-failed:
			if err != nil {
				return 0, err
			}
			failed <- nil
		case <-time.After(5 * time.Millisecond):
		}
		if time.Since(began) > 30*time.Second {
			return 0, fmt.Errorf("after 30 s the pen is not in %s", to)
		}
	}
	if _, err := t.firstAck(ctx, to, 30*time.Second); err != nil {
		return 0, err
	}
	took := time.Since(began).Seconds()
	if err := <-failed; err != nil {
		return 0, err
	}
	if kill {
		if err := t.verb(ctx, "start", holder); err != nil {
			return 0, err
		}
	}
	return took, t.settled(60 * time.Second)
}

// settled waits until one region holds and the other follows, close behind.
func (t *tandem) settled(limit time.Duration) error {
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		holder, err := t.holder()
		if err == nil {
			if age, ok := t.lagOf(other(holder)); ok && age < 2000 {
				return nil
			}
		}
		if time.Since(began) > limit {
			return fmt.Errorf("the pair has not settled after %v", limit)
		}
	}
}

// openTimes measures how soon a system with all its devices acknowledges again after a clean stop and after a crash.
func (b *bench) openTimes(ctx context.Context) error {
	t, err := b.start(ctx)
	if err != nil {
		return err
	}
	if err := t.register(ctx, slices.Max(b.registered)); err != nil {
		return err
	}
	table := &table{title: fmt.Sprintf("Opening with %d devices: start of `tandem dev` to the first acknowledgement, seconds", t.devices), head: []string{"case", "seconds"}}
	id := func(v float64) float64 { return v }
	for _, c := range []struct {
		name string
		sig  syscall.Signal
	}{{"after a clean stop", syscall.SIGINT}, {"after kill -9 of everything", syscall.SIGKILL}} {
		var times []float64
		for range b.rounds {
			holder, err := t.holder()
			if err != nil {
				return err
			}
			if _, err := t.firstAck(ctx, holder, 30*time.Second); err != nil {
				return err
			}
			if err := t.stop(c.sig); err != nil {
				return err
			}
			began := time.Now()
			if _, err := t.run(ctx); err != nil {
				return err
			}
			if holder, err = t.holder(); err != nil {
				return err
			}
			if _, err := t.firstAck(ctx, holder, 60*time.Second); err != nil {
				return err
			}
			times = append(times, time.Since(began).Seconds())
			progress("open %s: %.2f s", c.name, times[len(times)-1])
		}
		table.row(c.name, spread(times, id, "%.2f"))
	}
	b.report.add(table)
	b.report.note("Opening is measured as a user sees it: three processes, the directory's election and the hub's opening together. The budgets (≤ 1 s and ≤ 5 s " +
		"with 5 M devices) are for the hub alone; subtract the start of `tandem dev` on a small hub's data, above.")
	return nil
}

// memory measures what one idle connection costs the serving process.
func (b *bench) memory(ctx context.Context) error {
	t, err := b.start(ctx)
	if err != nil {
		return err
	}
	if err := t.register(ctx, b.idle); err != nil {
		return err
	}
	table := &table{title: fmt.Sprintf("Memory per idle connection, %d connections, growth of the serving process's resident memory", b.idle),
		head: []string{"case", "KiB per connection", "before MB", "after MB"}}
	for _, c := range []struct {
		name   string
		secure bool
		budget float64
	}{{"plain", false, 6}, {"TLS", true, 20}} {
		// A fresh process, so that the heap's slack is the same each time.
		if err := t.stop(syscall.SIGINT); err != nil {
			return err
		}
		if _, err := t.run(ctx); err != nil {
			return err
		}
		holder, err := t.holder()
		if err != nil {
			return err
		}
		time.Sleep(5 * time.Second)
		before := rss(t.pid(holder))
		clients := t.clients(holder, b.idle, c.secure)
		conns, err := idle(ctx, clients)
		if err == nil {
			time.Sleep(10 * time.Second)
			after := rss(t.pid(holder))
			each := float64(after-before) / 1024 / float64(b.idle)
			table.row(c.name, fmt.Sprintf("%.1f", each), fmt.Sprint(before>>20), fmt.Sprint(after>>20))
			b.report.judge("memory per idle connection, "+c.name, fmt.Sprintf("≤ %.0f KiB", c.budget), fmt.Sprintf("%.1f KiB", each), each <= c.budget)
		}
		for _, conn := range conns {
			if conn != nil {
				_ = conn.Close()
			}
		}
		if err != nil {
			return err
		}
	}
	b.report.add(table)
	return nil
}

func idle(ctx context.Context, clients []client) ([]net.Conn, error) {
	conns := make([]net.Conn, len(clients))
	errs := make(chan error, len(clients))
	gate := make(chan struct{}, 16)
	var opening sync.WaitGroup
	for i := range clients {
		gate <- struct{}{}
		opening.Go(func() {
			defer func() { <-gate }()
			conn, _, err := clients[i].connect(ctx, 1200)
			if err != nil {
				errs <- err
				return
			}
			conns[i] = conn
		})
	}
	opening.Wait()
	select {
	case err := <-errs:
		return conns, fmt.Errorf("%d of %d connections failed, one with: %w", len(errs)+1, len(clients), err)
	default:
		return conns, nil
	}
}
