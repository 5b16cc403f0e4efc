package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// A report gathers tables and verdicts and writes them as Markdown.
type report struct {
	began    time.Time
	tables   []*table
	verdicts [][]string
	missed   int
	notes    []string
	failures []string
}

type table struct {
	title string
	head  []string
	rows  [][]string
}

func newReport() *report { return &report{began: time.Now()} }

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

func (r *report) add(t *table)     { r.tables = append(r.tables, t) }
func (r *report) note(text string) { r.notes = append(r.notes, text) }
func (r *report) failed(part string, err error) {
	r.failures = append(r.failures, fmt.Sprintf("%s: %v", part, err))
}

// judge compares a figure with its budget.
func (r *report) judge(what, budget, got string, met bool) {
	verdict := "met"
	if !met {
		verdict = "**MISSED**"
		r.missed++
	}
	r.verdicts = append(r.verdicts, []string{what, budget, got, verdict})
	progress("%s: %s (budget %s): %s", what, got, budget, verdict)
}

// write puts the report into a file, or on standard output; an error says which parts failed.
func (r *report) write(file string) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Benchmarks\n\nMeasured %s, by the command `%s`.\n\n", r.began.Format("2 January 2006, 15:04 MST"), strings.Join(os.Args, " "))
	for _, line := range machine() {
		fmt.Fprintf(&b, "- %s\n", line)
	}
	b.WriteString("\nBoth regions, the witness, the peers and the load generator share this machine, and both regions one disk. Systems alternate within a table; " +
		"a figure is the median of its runs with [lowest … highest]. Compare within one table only.\n")
	for _, failure := range r.failures {
		fmt.Fprintf(&b, "\n**Not measured** — %s\n", failure)
	}
	if len(r.verdicts) > 0 {
		fmt.Fprintf(&b, "\n## Budgets (%d of %d missed)\n\n", r.missed, len(r.verdicts))
		(&table{head: []string{"what", "budget", "measured", ""}, rows: r.verdicts}).write(&b)
	}
	for _, t := range r.tables {
		fmt.Fprintf(&b, "\n## %s\n\n", t.title)
		t.write(&b)
	}
	for _, note := range r.notes {
		fmt.Fprintf(&b, "\n%s\n", note)
	}
	if file == "" {
		_, err := os.Stdout.Write(b.Bytes())
		if err != nil {
			return err
		}
	} else if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
		return err
	}
	if len(r.failures) > 0 {
		return fmt.Errorf("not measured: %s", strings.Join(r.failures, "; "))
	}
	return nil
}

func (t *table) write(b *bytes.Buffer) {
	fmt.Fprintf(b, "| %s |\n|%s\n", strings.Join(t.head, " | "), strings.Repeat("---|", len(t.head)))
	for _, row := range t.rows {
		fmt.Fprintf(b, "| %s |\n", strings.Join(row, " | "))
	}
}

// machine describes where this ran.
func machine() []string {
	model := "unknown processor"
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			model = strings.TrimSpace(value)
			break
		}
	}
	lines := []string{fmt.Sprintf("%d cores, %s, %s/%s, %s", runtime.NumCPU(), model, runtime.GOOS, runtime.GOARCH, runtime.Version())}
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		first, _, _ := strings.Cut(string(text), "\n")
		lines = append(lines, "memory: "+strings.TrimSpace(strings.TrimPrefix(first, "MemTotal:")))
	}
	for _, c := range [][]string{{"uname", "-sr"}, {"git", "describe", "--always", "--dirty"}, {"dpkg-query", "-W", "mosquitto"}} {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		out, err := exec.CommandContext(ctx, c[0], c[1:]...).Output()
		cancel()
		if err == nil {
			lines = append(lines, strings.Join(strings.Fields(string(out)), " "))
		}
	}
	return append(lines, "nats-server 2.15.2, embedded in a process of its own")
}

func median[T any](list []T, of func(T) float64) float64 {
	values := make([]float64, len(list))
	for i := range list {
		values[i] = of(list[i])
	}
	return quantile(values, 0.5)
}

// quantile of values; it is the highest when there are few.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	if q == 0.5 && len(sorted)%2 == 0 {
		return (sorted[len(sorted)/2-1] + sorted[len(sorted)/2]) / 2
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

func spread[T any](list []T, of func(T) float64, format string) string {
	values := make([]float64, len(list))
	for i := range list {
		values[i] = of(list[i])
	}
	if len(values) < 2 {
		return fmt.Sprintf(format, median(list, of))
	}
	return fmt.Sprintf(format+" ["+format+" … "+format+"]", median(list, of), slices.Min(values), slices.Max(values))
}
