package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"tandem"
	"tandem/client"
)

// shownRefusals is how many refused devices an import names; all are counted.
const shownRefusals = 10

// importModes are what a line may ask for; one of its own, "importMode", goes first.
var importModes = []string{"create", "createOrUpdate", "update", "delete"}

func (a *app) deviceImport() *cobra.Command {
	var mode string
	var flights int
	c := a.command("device.import", "import HUB FILE", cobra.ExactArgs(2), `  tandem device import hub-1 devices.jsonl
  seq 1 100000 | sed 's/.*/{"id":"press-&"}/' | tandem device import hub-1 -`, func(c *cobra.Command, args []string) error {
		if !contains(importModes, mode) {
			return errUsage{fmt.Errorf("--mode %q: %s", mode, strings.Join(importModes, ", "))}
		}
		_, s, err := a.service(c, args[0])
		if err != nil {
			return err
		}
		in := io.ReadCloser(a.in)
		if args[1] != "-" {
			if in, err = os.Open(args[1]); err != nil {
				return &tandem.Error{Op: "import", Kind: tandem.NotFound, Err: err}
			}
		}
		defer in.Close()
		return a.importDevices(c.Context(), s, in, mode, max(1, min(flights, 64)))
	})
	c.Flags().StringVar(&mode, "mode", "create", a.say("flag.mode"))
	c.Flags().IntVar(&flights, "parallel", 8, a.say("flag.parallel"))
	return c
}

func (a *app) importDevices(ctx context.Context, s *client.Service, in io.Reader, mode string, flights int) error {
	var done, refused atomic.Int64
	began := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(flights)
	stop := a.counting(func() string {
		return a.say("device.import.progress", done.Load(), refused.Load(), rate(done.Load(), began))
	})
	send := func(batch []json.RawMessage) {
		g.Go(func() error {
			errs, err := retried(ctx, func() ([]client.BulkError, error) { return s.Bulk(ctx, batch) })
			if err != nil {
				return err
			}
			for _, e := range errs {
				if n := refused.Add(1); n <= shownRefusals {
					fmt.Fprintf(a.err, "%s: %v %s\n", e.DeviceID, e.ErrorCode, e.ErrorStatus)
				}
			}
			done.Add(int64(len(batch) - len(errs)))
			return nil
		})
	}
	readErr := readBatches(ctx, in, mode, send)
	err := errors.Join(g.Wait(), readErr)
	stop()
	summary := map[string]any{"done": done.Load(), "refused": refused.Load(), "seconds": time.Since(began).Seconds(), "perSecond": rate(done.Load(), began)}
	if printErr := a.print(summary, func(w io.Writer) {
		row(w, a.say("device.import.progress", done.Load(), refused.Load(), rate(done.Load(), began)))
	}); printErr != nil {
		return printErr
	}
	if err == nil && refused.Load() > 0 {
		return &tandem.Error{Op: "import", Kind: tandem.Invalid, Err: fmt.Errorf("%d devices were refused", refused.Load())}
	}
	return err
}

// readBatches cuts JSON lines into bulks.
func readBatches(ctx context.Context, in io.Reader, mode string, send func([]json.RawMessage)) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 64<<10), 1<<20)
	var batch []json.RawMessage
	for number := 1; lines.Scan(); number++ {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		change, err := bulkChange(line, mode)
		if err != nil {
			return &tandem.Error{Op: "import", Kind: tandem.Invalid, On: fmt.Sprintf("line %d", number), Err: err}
		}
		if batch = append(batch, change); len(batch) == client.BulkLimit {
			send(batch)
			batch = nil
		}
		if ctx.Err() != nil {
			return nil
		}
	}
	if len(batch) > 0 {
		send(batch)
	}
	return lines.Err()
}

// bulkChange makes a line one change of a bulk: what the registry exports has "deviceId" or "id", and no mode.
func bulkChange(line []byte, mode string) (json.RawMessage, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(line, &fields); err != nil {
		return nil, err
	}
	if id, ok := fields["deviceId"]; ok && fields["id"] == nil {
		fields["id"] = id
		delete(fields, "deviceId")
	}
	if fields["id"] == nil {
		return nil, errors.New(`there is no "id"`)
	}
	if fields["importMode"] == nil {
		fields["importMode"] = json.RawMessage(`"` + mode + `"`)
	}
	return json.Marshal(fields)
}

// retried asks again while the hub is moving or busy, for half a minute.
func retried[T any](ctx context.Context, do func() (T, error)) (result T, err error) {
	deadline := time.Now().Add(30 * time.Second)
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		result, err = do()
		if err == nil || !tandem.KindOf(err).Retriable() || time.Now().After(deadline) {
			return result, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return result, ctx.Err()
		}
	}
}

func rate(n int64, since time.Time) int64 {
	return int64(float64(n) / max(time.Since(since).Seconds(), 0.001))
}

// counting shows a line that changes on standard error, each second.
func (a *app) counting(line func() string) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		terminal := isTerminal(a.err)
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		shown := false
		for {
			select {
			case <-done:
				if terminal && shown {
					fmt.Fprintln(a.err)
				}
				return
			case <-ticker.C:
			}
			shown = true
			if terminal {
				fmt.Fprintf(a.err, "\r\033[K%s", line())
			} else {
				fmt.Fprintln(a.err, line())
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}
