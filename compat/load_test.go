package compat

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A line is one line of load.js.
type line struct {
	E   string  // what happened
	D   string  // device
	N   int     // message
	T   float64 // milliseconds
	Err string
}

// A load is a running load.js with what it has written so far.
type load struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    io.WriteCloser
	ended chan struct{}

	mu    sync.Mutex
	lines []line
}

// startLoad registers devices, ten with Azure's SDK and ten with mqtt, connects them all and lets them send.
func startLoad(t *testing.T, s *system, rate int) *load {
	t.Helper()
	type device struct {
		ID   string `json:"id"`
		Key  string `json:"key"`
		Kind string `json:"kind"`
	}
	var devices []device
	for i := range 20 {
		kind := [2]string{"sdk", "raw"}[i%2]
		id := fmt.Sprintf("%s-%02d", kind, i/2)
		key, err := s.register(id)
		if err != nil {
			t.Fatalf("register %s: %v", id, err)
		}
		devices = append(devices, device{id, key, kind})
	}
	host := s.owner().host
	port := 8883 + s.offset
	setup, err := json.Marshal(map[string]any{
		"host": host, "port": port, "hostName": host, "rate": rate, "devices": devices,
	})
	if err != nil {
		t.Fatal(err)
	}
	l := &load{t: t, cmd: exec.Command("node", "load.js"), ended: make(chan struct{})}
	l.cmd.Env = append(os.Environ(), "NODE_EXTRA_CA_CERTS="+s.env()["TANDEM_CA"])
	stderr := &lockedBuffer{}
	l.cmd.Stderr = stderr
	if l.in, err = l.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := l.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(l.ended)
		l.read(out)
		_ = l.cmd.Wait()
	}()
	t.Cleanup(func() {
		l.stop()
		if text := stderr.String(); text != "" {
			t.Logf("load.js on standard error:\n%s", tail(text, 30))
		}
	})
	if _, err := l.in.Write(append(setup, '\n')); err != nil {
		t.Fatal(err)
	}
	l.await("ready", 0, 30*time.Second)
	l.order("resume")
	return l
}

func (l *load) read(out io.Reader) {
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var v line
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			l.t.Errorf("load.js wrote %q: %v", lines.Text(), err)
			continue
		}
		l.mu.Lock()
		l.lines = append(l.lines, v)
		l.mu.Unlock()
	}
}

func (l *load) order(do string) {
	if _, err := fmt.Fprintf(l.in, "{\"do\":%q}\n", do); err != nil {
		l.t.Errorf("load.js is gone: %v", err)
	}
}

// pause stops sending and waits until every message is answered.
func (l *load) pause() {
	l.t.Helper()
	from := len(l.journal())
	l.order("pause")
	for began := time.Now(); time.Since(began) < 90*time.Second; time.Sleep(10 * time.Millisecond) {
		if slices.ContainsFunc(l.journal()[from:], func(v line) bool { return v.E == "paused" }) {
			return
		}
	}
	l.t.Fatalf("after 90 s there are messages without an answer:\n%s", strings.Join(l.unanswered(), "\n"))
}

// unanswered tells the stories of messages that wait, some for each device.
func (l *load) unanswered() (stories []string) {
	about := map[message][]string{}
	drops := map[string][]string{}
	for _, v := range l.journal() {
		at := time.UnixMicro(int64(v.T * 1e3)).Format("15:04:05.000")
		m := message{v.D, v.N}
		switch v.E {
		case "acked", "failed":
			delete(about, m)
		case "sent", "wire":
			about[m] = append(about[m], v.E+" "+at)
		case "drop", "connected", "error", "refused":
			drops[v.D] = append(drops[v.D], v.E+" "+v.Err+" "+at)
		}
	}
	shown := map[string]int{}
	for m, story := range about {
		if shown[m.device]++; shown[m.device] <= 2 {
			stories = append(stories, fmt.Sprintf("%v: %v; its connections: %q", m, story, drops[m.device]))
		}
	}
	slices.Sort(stories)
	return append(stories, fmt.Sprint(len(about), " in all"))
}

func (l *load) stop() {
	_ = l.in.Close()
	select {
	case <-l.ended:
	case <-time.After(5 * time.Second):
		_ = l.cmd.Process.Kill()
		<-l.ended
	}
}

// journal is what has been written so far; lines are never changed.
func (l *load) journal() []line {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines[:len(l.lines):len(l.lines)]
}

// await waits for an event after line number from.
func (l *load) await(e string, from int, limit time.Duration) {
	l.t.Helper()
	for began := time.Now(); time.Since(began) < limit; time.Sleep(5 * time.Millisecond) {
		if slices.ContainsFunc(l.journal()[from:], func(v line) bool { return v.E == e }) {
			return
		}
	}
	var last []line
	for _, v := range l.journal() {
		if v.E != "sent" && v.E != "acked" && v.E != "wire" {
			last = append(last, v)
		}
	}
	l.t.Fatalf("load.js did not say %q within %v; what it said besides sent and acked ends with %+v", e, limit, last[max(0, len(last)-10):])
}

// awaitAck waits until a message that was sent after now is acknowledged, and returns how long after now that was.
func (l *load) awaitAck(now time.Time, limit time.Duration) (time.Duration, error) {
	after := millis(now)
	for began := time.Now(); time.Since(began) < limit; time.Sleep(5 * time.Millisecond) {
		sent := map[string]bool{}
		for _, v := range l.since(after) {
			id := fmt.Sprint(v.D, "/", v.N)
			if v.E == "sent" {
				sent[id] = true
			} else if v.E == "acked" && sent[id] {
				return time.Duration((v.T - after) * float64(time.Millisecond)), nil
			}
		}
	}
	return 0, fmt.Errorf("no message sent after the fault was acknowledged within %v", limit)
}

// since are the lines from a time on. Lines come in the order of time.
func (l *load) since(ms float64) []line {
	all := l.journal()
	at, _ := slices.BinarySearchFunc(all, ms, func(v line, ms float64) int {
		if v.T < ms {
			return -1
		}
		return 1
	})
	return all[at:]
}

func millis(t time.Time) float64 { return float64(t.UnixNano()) / 1e6 }

// longestGap is the longest time in which nothing was acknowledged, and the longest a message waited for its answer,
// between two moments.
func (l *load) longestGap(from, to time.Time) (gap, wait time.Duration) {
	return longestGap(l.since(millis(from)-2000), millis(from), millis(to))
}

func longestGap(lines []line, from, to float64) (gap, wait time.Duration) {
	last := from
	sent := map[string]float64{}
	var longest, slowest float64
	for _, v := range lines {
		id := fmt.Sprint(v.D, "/", v.N)
		switch {
		case v.E == "sent":
			sent[id] = v.T
		case v.E == "acked" && v.T >= from && v.T <= to:
			longest = max(longest, v.T-last)
			last = v.T
			if at, ok := sent[id]; ok {
				slowest = max(slowest, v.T-at)
			}
		}
	}
	return time.Duration(longest * float64(time.Millisecond)), time.Duration(slowest * float64(time.Millisecond))
}
