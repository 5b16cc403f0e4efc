package natslog

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestEngineRepeatsItselfQuietly(t *testing.T) {
	var out bytes.Buffer
	e := newEngineLogger(slog.New(slog.NewTextHandler(&out, nil)))
	now := time.Unix(0, 0)
	e.now = func() time.Time { return now }
	for n := range 100 {
		e.Errorf("no connection to %d", n)
		now = now.Add(time.Second)
	}
	e.Errorf("another line")
	e.Warnf("Plaintext passwords detected, use nkeys or bcrypt")
	if lines := strings.Count(out.String(), "\n"); lines != 5 || !strings.Contains(out.String(), "left_out=29") || strings.Contains(out.String(), "Plaintext") {
		t.Errorf("%d lines:\n%s", lines, out.String())
	}
	for n := range 10 * mostLines {
		e.Warnf(strings.Repeat("x", n))
	}
	if len(e.lines) > mostLines {
		t.Errorf("%d lines remembered", len(e.lines))
	}
}
