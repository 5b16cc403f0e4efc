package natslog

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// engineLogger writes the engine's lines to ours; what it calls a notice is our debug. A line that comes again and again,
// as of every attempt to reach a dark peer, is written now and then.
type engineLogger struct {
	l   *slog.Logger
	now func() time.Time

	mu    sync.Mutex
	lines map[string]*line // by format
}

type line struct {
	written time.Time
	left    int // how often it was left out since
}

const (
	sameLineEvery = 30 * time.Second
	mostLines     = 256
)

func newEngineLogger(l *slog.Logger) *engineLogger {
	return &engineLogger{l: l, now: time.Now, lines: make(map[string]*line)}
}

// due reports whether a line is to be written, and how often it was left out.
func (e *engineLogger) due(format string) (left int, yes bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.now()
	known := e.lines[format]
	switch {
	case known == nil:
		if len(e.lines) >= mostLines {
			clear(e.lines)
		}
		e.lines[format] = &line{written: now}
		return 0, true
	case now.Sub(known.written) < sameLineEvery:
		known.left++
		return 0, false
	}
	left = known.left
	*known = line{written: now}
	return left, true
}

func (e *engineLogger) write(level func(string, ...any), f string, v []any) {
	left, yes := e.due(f)
	switch {
	case !yes:
	case left > 0:
		level(fmt.Sprintf(f, v...), "left_out", left)
	default:
		level(fmt.Sprintf(f, v...))
	}
}

func (e *engineLogger) Noticef(f string, v ...any) { e.l.Debug(fmt.Sprintf(f, v...)) }
func (e *engineLogger) Fatalf(f string, v ...any)  { e.l.Error(fmt.Sprintf(f, v...)) }
func (e *engineLogger) Errorf(f string, v ...any)  { e.write(e.l.Error, f, v) }
func (e *engineLogger) Debugf(string, ...any)      {}
func (e *engineLogger) Tracef(string, ...any)      {}

// Warnf passes warnings on, but one: the passwords are random, new at each start, and never leave the process.
func (e *engineLogger) Warnf(f string, v ...any) {
	if !strings.HasPrefix(f, "Plaintext passwords detected") {
		e.write(e.l.Warn, f, v)
	}
}
