// Command bench measures a whole Tandem from outside, side by side with other brokers in one run, and writes the figures
// with machine, date and command: docs/benchmarks.md. `make bench` runs it.
//
//	bench -parts qos1,lag -rounds 3 -seconds 5 -report docs/benchmarks.md
//
// The load generator shares the machine with what it measures. Compare only within one table.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// settings are the flags.
type settings struct {
	parts        []string
	only         string
	rounds       int
	seconds      time.Duration
	moves        int
	registered   []int
	connections  []int
	windows      []int
	idle         int
	binary, data string
	report       string
}

// parts in the order they run.
var parts = []struct {
	name string
	run  func(*bench, context.Context) error
}{
	{"start", (*bench).startTimes}, {"qos1", (*bench).qos1}, {"lag", (*bench).lag}, {"planned", (*bench).planned},
	{"open", (*bench).openTimes}, {"forced", (*bench).forced}, {"memory", (*bench).memory},
}

func main() {
	if len(os.Args) == 4 && os.Args[1] == "nats-server" {
		exit(serveNATS(os.Args[2], os.Args[3]))
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	exit(run(ctx))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func run(ctx context.Context) error {
	var s settings
	names := make([]string, len(parts))
	for i := range parts {
		names[i] = parts[i].name
	}
	list := flag.String("parts", strings.Join(names, ","), "what to measure")
	flag.StringVar(&s.only, "only", "", "in qos1, only systems whose name contains this")
	flag.IntVar(&s.rounds, "rounds", 3, "times each case is run, alternating")
	flag.DurationVar(&s.seconds, "seconds", 5*time.Second, "how long each case is measured")
	flag.IntVar(&s.moves, "moves", 10, "planned failovers for each size")
	registered := flag.String("registered", "10000,100000,1000000", "registered devices for planned failovers and opening")
	connections := flag.String("connections", "100,1000", "connections in qos1")
	windows := flag.String("windows", "1,32", "unanswered messages per connection in qos1")
	flag.IntVar(&s.idle, "idle", 10000, "idle connections for the memory of one")
	flag.StringVar(&s.binary, "tandem", "bin/tandem", "the binary")
	flag.StringVar(&s.data, "data", "", "directory for everybody's data; a temporary one when empty")
	flag.StringVar(&s.report, "report", "", "file to write; standard output when empty")
	flag.Parse()
	s.parts = strings.Split(*list, ",")
	for _, part := range s.parts {
		if !slices.Contains(names, part) {
			return fmt.Errorf("there is no part %q; there are %s", part, strings.Join(names, ", "))
		}
	}
	for _, numbers := range []struct {
		text string
		into *[]int
	}{{*registered, &s.registered}, {*connections, &s.connections}, {*windows, &s.windows}} {
		for text := range strings.SplitSeq(numbers.text, ",") {
			var n int
			if _, err := fmt.Sscan(text, &n); err != nil || n < 1 {
				return fmt.Errorf("%q is not a number of 1 or more", text)
			}
			*numbers.into = append(*numbers.into, n)
		}
	}
	if s.data == "" {
		dir, err := os.MkdirTemp("", "tandem-bench-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		s.data = dir
	}
	b := &bench{settings: s, report: newReport()}
	defer b.stopTandem()
	for _, part := range parts {
		if !slices.Contains(s.parts, part.name) {
			continue
		}
		progress("part %s", part.name)
		if err := part.run(b, ctx); err != nil {
			b.report.failed(part.name, err)
			progress("part %s FAILED: %v", part.name, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return b.report.write(s.report)
}

// bench is a run under way.
type bench struct {
	settings
	report *report
	tandem *tandem
}

func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
}
