package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"tandem"
)

// A page is what a table is for one thing: a headline, labelled lines, perhaps a table, and what to do next.
type page struct {
	a *app
	w io.Writer
}

// page begins one with its headline. It writes to the writer that print hands out, so that columns line up.
func (a *app) page(w io.Writer, headline string) page {
	fmt.Fprintf(w, "%s\n\n", headline)
	return page{a, w}
}

// line is one labelled line; without a value there is none.
func (p page) line(label, value string) {
	if value != "" {
		row(p.w, "  "+label, value)
	}
}

// gap begins another block, whose columns are its own.
func (p page) gap() { fmt.Fprintln(p.w) }

// next names commands to go on with, each with what it does.
func (p page) next(commands ...[2]string) {
	if len(commands) == 0 {
		return
	}
	fmt.Fprintf(p.w, "\n  %s\n", p.a.say("page.next"))
	for _, c := range commands {
		row(p.w, "    "+p.a.here(c[0]), "# "+c[1])
	}
}

func display(region string) string { return tandem.RegionName(region).Display() }

// ms is milliseconds with no more digits than mean something.
func ms(v float64) string {
	switch {
	case v < 10:
		return strconv.FormatFloat(v, 'f', 1, 64) + " ms"
	case v < 10_000:
		return strconv.FormatFloat(v, 'f', 0, 64) + " ms"
	}
	return strconv.FormatFloat(v/1000, 'f', 1, 64) + " s"
}

func seconds(v float64) string {
	if v >= 120 {
		return (time.Duration(v) * time.Second).String()
	}
	return strconv.FormatFloat(v, 'f', 1, 64) + " s"
}

// size is bytes in the unit that keeps the figure short.
func size(bytes uint64) string {
	if bytes < 1024 {
		return strconv.FormatUint(bytes, 10) + " B"
	}
	v, unit := float64(bytes)/1024, 0
	for v >= 1024 && unit < 3 {
		v, unit = v/1024, unit+1
	}
	return strconv.FormatFloat(v, 'f', 1, 64) + " " + []string{"KiB", "MiB", "GiB", "TiB"}[unit]
}

// count is "1 item", "2 items": the catalogue has both words, separated by a bar.
func (a *app) count(n uint64, key string) string {
	one, many, _ := strings.Cut(a.words[key], "|")
	if n != 1 {
		one = many
	}
	return strconv.FormatUint(n, 10) + " " + one
}

func (a *app) items(n uint64) string { return a.count(n, "count.items") }

// place is a record's place as logs and steps name it.
func place(epoch, number uint64) string { return fmt.Sprintf("e%d.%d", epoch, number) }
