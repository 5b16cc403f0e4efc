package dev

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"tandem"
)

// showWarnings copies warnings and errors from the sites' log files to w as they come, each with its site's name. The
// files are the sites' own, so that a dev that stands still never holds a site up.
func showWarnings(ctx context.Context, sites []*site, w io.Writer) error {
	tails := make([]tail, len(sites))
	for i, s := range sites {
		tails[i] = tail{file: s.log(), name: s.spec.name}
		if info, err := os.Stat(s.log()); err == nil {
			tails[i].at = info.Size() // what earlier runs wrote is old
		}
	}
	for {
		for i := range tails {
			tails[i].show(w)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(200 * time.Millisecond):
		}
	}
}

type tail struct {
	file string
	name tandem.RegionName
	at   int64
}

// tailChunk bounds what is read of one file at a time.
const tailChunk = 256 << 10

func (t *tail) show(w io.Writer) {
	f, err := os.Open(t.file)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			fmt.Fprintln(w, t.name, err)
		}
		return
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() < t.at {
		t.at = 0 // set aside and begun anew
	}
	text := make([]byte, tailChunk)
	n, _ := f.ReadAt(text, t.at)
	end := bytes.LastIndexByte(text[:n], '\n') + 1
	if end == 0 && n == tailChunk {
		end = n
	}
	t.at += int64(end)
	for line := range bytes.Lines(text[:end]) {
		if bytes.Contains(line, []byte("level=WARN")) || bytes.Contains(line, []byte("level=ERROR")) || bytes.HasPrefix(line, []byte("panic:")) {
			fmt.Fprintf(w, "%-14s %s", t.name, line)
		}
	}
}
