package dev

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"tandem"
)

// A Command is one fault to bring, or to take back, on a running dev.
type Command struct {
	Verb string // kill, stop, cont, start, cut, join
	Site string // a region, "witness", or "link" for cut and join
}

// Verbs are the commands that Send takes.
var Verbs = []string{"kill", "stop", "cont", "start", "cut", "join"}

type reply struct {
	OK    bool
	Kind  tandem.Kind
	Error string
	Hint  string
}

// socketPath is where a dev on this data listens for commands. A path that is too long for a socket is replaced by one
// in the temporary directory that both sides compute.
func socketPath(data string) string {
	path := filepath.Join(data, "dev.sock")
	if len(path) < 100 {
		return path
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("tandem-%x.sock", sha256.Sum256([]byte(path)))[:40])
}

// Send gives a command to the dev that runs on this data and waits until it is done. Kind NotFound when none runs.
func Send(ctx context.Context, data string, c Command) error {
	const op = "reach tandem dev"
	data, err := filepath.Abs(data)
	if err != nil {
		return &tandem.Error{Op: op, Err: err}
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", socketPath(data))
	if err != nil {
		return &tandem.Error{Op: op, Kind: tandem.NotFound, On: data, Err: errors.New("none runs on this data"),
			Hint: "start `tandem dev` here, or name its directory with --data"}
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	var r reply
	if err := errors.Join(json.NewEncoder(conn).Encode(c), json.NewDecoder(conn).Decode(&r)); err != nil {
		return &tandem.Error{Op: op, Kind: tandem.Timeout, Err: err}
	}
	if !r.OK {
		return &tandem.Error{Op: c.Verb + " " + c.Site, Kind: r.Kind, Err: errors.New(r.Error), Hint: r.Hint}
	}
	return nil
}

func listenControl(data string) (net.Listener, error) {
	path := socketPath(data)
	_ = os.Remove(path) // of one that was killed; the data's lock is ours
	old := syscall.Umask(0o177)
	l, err := net.Listen("unix", path)
	syscall.Umask(old)
	if err != nil {
		return nil, &tandem.Error{Op: "listen for commands", On: path, Err: err}
	}
	return l, nil
}

func (d *Dev) serveControl(ctx context.Context, l net.Listener) error {
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return &tandem.Error{Op: "listen for commands", Err: err}
		}
		d.answer(conn)
	}
}

// answer carries out one command; they come one at a time.
func (d *Dev) answer(conn net.Conn) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	var c Command
	if err := json.NewDecoder(conn).Decode(&c); err != nil {
		return
	}
	r := reply{OK: true}
	if err := d.Do(c); err != nil {
		cause := err
		var e *tandem.Error
		if errors.As(err, &e) && e.Err != nil {
			cause = e.Err
		}
		r = reply{Kind: tandem.KindOf(err), Error: cause.Error(), Hint: tandem.HintOf(err)}
	}
	_ = json.NewEncoder(conn).Encode(r)
}

// Do carries out a command. Kind Invalid for a site that is not there.
func (d *Dev) Do(c Command) error {
	op := c.Verb + " " + c.Site
	name := tandem.ParseRegion(c.Site)
	var on *site
	names := []string{"link"}
	for _, s := range d.sites {
		names = append(names, string(s.spec.name))
		if s.spec.name == name {
			on = s
		}
	}
	if on == nil && name != "link" {
		return &tandem.Error{Op: op, Kind: tandem.Invalid, Err: fmt.Errorf("there is no %q here", c.Site), Hint: "one of: " + strings.Join(names, ", ")}
	}
	switch c.Verb {
	case "cut", "join":
		if d.relays == nil {
			return &tandem.Error{Op: op, Kind: tandem.Precondition, Err: errors.New("this dev was started with --no-relays, so nothing can be cut")}
		}
		d.relays.sever(name, c.Verb == "cut")
		return nil
	}
	if on == nil {
		return &tandem.Error{Op: op, Kind: tandem.Invalid, Err: errors.New("only cut and join take the link")}
	}
	switch c.Verb {
	case "kill":
		return on.signal(syscall.SIGKILL)
	case "stop":
		return on.signal(syscall.SIGSTOP)
	case "cont":
		return on.signal(syscall.SIGCONT)
	case "start":
		return on.start()
	}
	return &tandem.Error{Op: op, Kind: tandem.Invalid, Err: fmt.Errorf("there is no %q", c.Verb), Hint: "one of: " + strings.Join(Verbs, ", ")}
}

// lockData takes the data directory. The lock ends with this process, however it ends.
func lockData(data string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(data, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, &tandem.Error{Op: "start", Kind: tandem.Forbidden, Err: err}
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder := make([]byte, 32)
		n, _ := f.Read(holder)
		_ = f.Close()
		return nil, &tandem.Error{Op: "start", Kind: tandem.Conflict, On: data,
			Err:  fmt.Errorf("another tandem dev (pid %s) runs on this data", strings.TrimSpace(string(holder[:n]))),
			Hint: fmt.Sprintf("end it, or start one beside it: tandem dev --data %s-2 --port-offset 20000", data)}
	}
	_ = f.Truncate(0)
	_, _ = fmt.Fprintf(f, "%d\n", os.Getpid())
	return f, nil
}
