package dev

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"tandem"
	"tandem/region"
)

// A site is one site's process. A process that ends stays ended until it is started again.
type site struct {
	spec    *siteSpec
	o       Options
	changed func() // a process began or ended

	mu     sync.Mutex
	cmd    *exec.Cmd // nil when nothing runs
	pipe   io.Closer
	gone   chan struct{} // closed when cmd has ended
	result string        // how the last process ended
	ending bool          // we asked it to
}

func newSite(spec *siteSpec, o Options, changed func()) *site {
	return &site{spec: spec, o: o, changed: changed}
}

func (s *site) log() string { return filepath.Join(s.spec.dir, "log") }

// maxLog is the size from which a log file is set aside at the next start.
const maxLog = 64 << 20

// start runs the site's process. Kind Conflict when it runs already.
func (s *site) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd != nil {
		return &tandem.Error{Op: "start the site", Kind: tandem.Conflict, On: string(s.spec.name), Err: errors.New("it runs")}
	}
	if info, err := os.Stat(s.log()); err == nil && info.Size() > maxLog {
		_ = os.Rename(s.log(), s.log()+".1")
	}
	file, err := os.OpenFile(s.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return &tandem.Error{Op: "start the site", On: string(s.spec.name), Err: err}
	}
	defer file.Close()
	verb := "serve"
	if s.spec.witness {
		verb = "witness"
	}
	cmd, pipe, err := region.Child(s.o.Program, true, verb, "--config", filepath.Join(s.spec.dir, "config.json"), "--end-with-parent")
	if err != nil {
		return &tandem.Error{Op: "start the site", On: string(s.spec.name), Err: err}
	}
	cmd.Stdout, cmd.Stderr = file, file
	if err := cmd.Start(); err != nil {
		return &tandem.Error{Op: "start the site", On: string(s.spec.name), Err: err}
	}
	gone := make(chan struct{})
	s.cmd, s.pipe, s.gone, s.ending = cmd, pipe, gone, false
	go func() { // ends when the process does
		err := cmd.Wait()
		s.mu.Lock()
		s.cmd, s.result = nil, "it ended"
		if err != nil {
			s.result = "it ended: " + err.Error()
		}
		asked := s.ending
		s.mu.Unlock()
		if !asked {
			s.o.Logger.Warn("site ended", "site", s.spec.name, "how", s.result, "again", "tandem dev start "+string(s.spec.name))
		}
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what it left behind in its group
		close(gone)
		s.changed()
	}()
	go s.changed()
	return nil
}

// pid is that of the running process, 0 when none runs. It is its process group's number too.
func (s *site) pid() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return 0
	}
	return s.cmd.Process.Pid
}

// signal sends a signal to the site's whole process group, as if it befell the machine.
func (s *site) signal(sig syscall.Signal) error {
	s.mu.Lock()
	cmd, gone := s.cmd, s.gone
	s.mu.Unlock()
	if cmd == nil {
		return &tandem.Error{Op: "signal the site", Kind: tandem.Precondition, On: string(s.spec.name), Err: errors.New("it does not run"),
			Hint: "tandem dev start " + string(s.spec.name)}
	}
	if err := syscall.Kill(-cmd.Process.Pid, sig); err != nil {
		return &tandem.Error{Op: "signal the site", On: string(s.spec.name), Err: err}
	}
	if sig == syscall.SIGKILL {
		select {
		case <-gone:
		case <-time.After(5 * time.Second):
			return &tandem.Error{Op: "kill the site", Kind: tandem.Timeout, On: string(s.spec.name)}
		}
	}
	return nil
}

// end asks the process to end and kills it after patience.
func (s *site) end(patience time.Duration) {
	s.mu.Lock()
	cmd, pipe, gone := s.cmd, s.pipe, s.gone
	s.ending = true
	s.mu.Unlock()
	if cmd == nil {
		return
	}
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGCONT)
	_ = cmd.Process.Signal(syscall.SIGTERM)
	_ = pipe.Close()
	select {
	case <-gone:
	case <-time.After(patience):
		_ = s.signal(syscall.SIGKILL)
	}
}

// waitReady waits until the site answers. When its process ends first, the error carries the end of its log.
func (s *site) waitReady(ctx context.Context) error {
	s.mu.Lock()
	gone := s.gone
	s.mu.Unlock()
	for {
		if s.spec.witness || s.healthy(ctx) {
			return nil
		}
		select {
		case <-gone:
			return &tandem.Error{Op: "start the site", Kind: tandem.Unavailable, On: string(s.spec.name),
				Err: fmt.Errorf("%s; its log ends with:\n%s", s.result, s.logEnd())}
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *site) healthy(ctx context.Context) bool {
	return s.pid() != 0 && ready(ctx, "http://"+join(s.spec.address, s.spec.config.Ports.Metrics)+"/readyz")
}

// logEnd is the last few lines of the log.
func (s *site) logEnd() string {
	text, err := os.ReadFile(s.log())
	if err != nil {
		return err.Error()
	}
	text = bytes.TrimSpace(text[max(0, len(text)-2000):])
	lines := bytes.Split(text, []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-5):], []byte("\n")))
}

func (s *site) info() SiteInfo {
	return SiteInfo{Name: string(s.spec.name), Display: s.spec.name.Display(), Address: s.spec.address, Log: s.log(), PID: s.pid(),
		Witness: s.spec.witness}
}
