package hub_test

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"tandem"
	"tandem/hub"
	"tandem/pairlog"
)

var rewrite = flag.Bool("rewrite", false, "write the answers of testdata anew")

// A transcript is commands, each followed by its answers behind "> ". Commands of one record stand between two "apply".
func TestViewTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/view-*.script.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			want, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			p := newPlayer(t)
			for lines := bufio.NewScanner(strings.NewReader(string(want))); lines.Scan(); {
				line := lines.Text()
				if strings.HasPrefix(line, "> ") {
					continue
				}
				fmt.Fprintln(&got, line)
				if words := strings.Fields(line); len(words) > 0 && words[0] != "#" {
					for _, answer := range p.play(words) {
						fmt.Fprintln(&got, "> "+answer)
					}
				}
			}
			if *rewrite {
				if err := os.WriteFile(name, []byte(got.String()), 0o600); err != nil {
					t.Fatal(err)
				}
			} else if got.String() != string(want) {
				t.Errorf("got\n%s", got.String())
			}
		})
	}
}

// player carries a transcript out on one view.
type player struct {
	t        *testing.T
	dir      string
	v        *hub.View
	c        *chain
	batch    pairlog.Batch
	commands []*hub.Command
	etags    map[string]string // names for etags and generations, which are opaque
}

func newPlayer(t *testing.T) *player {
	p := &player{t: t, dir: t.TempDir(), c: newChain(t), etags: map[string]string{}}
	p.open()
	return p
}

func (p *player) open() {
	o := viewOptions(p.dir)
	o.Partitions = 2
	v, err := hub.OpenView(context.Background(), o)
	if err != nil {
		p.t.Fatal(err)
	}
	p.v = v
	p.t.Cleanup(func() { _ = v.Close() })
}

func (p *player) play(words []string) []string {
	rest := words[1:]
	switch words[0] {
	case "create", "update", "put", "delete":
		op := map[string]hub.Op{"create": hub.OpDeviceCreate, "update": hub.OpDeviceUpdate, "put": hub.OpDevicePut, "delete": hub.OpDeviceDelete}[words[0]]
		c := p.change(op, rest)
		cmd := hub.Command{Op: op, Device: tandem.DeviceID(c.ID), Body: hub.AppendDeviceChange(nil, &c), IfMatch: c.IfMatch}
		return p.decide(&cmd)
	case "bulk":
		var list []hub.DeviceChange
		for _, one := range strings.Split(strings.Join(rest, " "), ";") {
			w := strings.Fields(one)
			op := map[string]hub.Op{"create": hub.OpDeviceCreate, "update": hub.OpDeviceUpdate, "put": hub.OpDevicePut, "delete": hub.OpDeviceDelete}[w[0]]
			list = append(list, p.change(op, w[1:]))
		}
		return p.decide(&hub.Command{Op: hub.OpBulk, Body: hub.AppendBulk(nil, list)})
	case "send":
		cmd := said(rest[0], strings.Join(rest[1:], " "))
		return p.decide(&cmd)
	case "door":
		first, _ := strconv.ParseUint(rest[1], 10, 64)
		count, _ := strconv.ParseUint(rest[2], 10, 32)
		resolved, _ := strconv.ParseUint(rest[3], 10, 64)
		var refused []hub.Refusal
		for _, n := range rest[4:] {
			number, _ := strconv.ParseUint(n, 10, 64)
			refused = append(refused, hub.Refusal{Number: number, Kind: tandem.NotFound})
		}
		p.batch.Add(hub.KindDoor, hub.AppendDoorEntry(nil, hub.DoorID(rest[0]), first, uint32(count), resolved, refused))
		return nil
	case "door-gone":
		p.batch.Add(hub.KindDoorGone, []byte(rest[0]))
		return nil
	case "root":
		root := p.v.Root()
		p.batch.Add(hub.KindRoot, root[:])
		return nil
	case "trim":
		number, _ := strconv.ParseUint(rest[0], 10, 64)
		p.batch.Add(pairlog.KindTrim, jsonEntry(pairlog.KindTrim, pairlog.Trim{Number: number}).data)
		return nil
	case "apply":
		return p.apply()
	case "fence":
		p.batch.Reset()
		p.commands = nil
		p.v.DropOverlay()
		return nil
	case "forced", "planned":
		pen := pairlog.Pen{Hub: viewHub, Epoch: p.c.at.Epoch + 1, Forced: words[0] == "forced", Fork: p.c.at}
		p.c.at.Epoch++
		p.batch.Add(pairlog.KindPen, jsonEntry(pairlog.KindPen, pen).data)
		return p.apply()
	case "wait":
		d, err := time.ParseDuration(rest[0])
		if err != nil {
			p.t.Fatal(err)
		}
		p.c.time = p.c.time.Add(d)
		return nil
	case "reopen":
		if err := p.v.Close(); err != nil {
			p.t.Fatal(err)
		}
		root := p.v.Root()
		p.open()
		return []string{fmt.Sprintf("at %d, same root %v", p.v.Applied().Number, p.v.Root() == root)}
	}
	return p.show(words[0], rest)
}

// change reads "id key=value …".
func (p *player) change(op hub.Op, words []string) hub.DeviceChange {
	c := hub.DeviceChange{Op: op, ID: words[0]}
	for _, w := range words[1:] {
		key, value, _ := strings.Cut(w, "=")
		switch key {
		case "disabled":
			c.Status = hub.Disabled
		case "reason":
			c.StatusReason = value
		case "key":
			c.Auth.PrimaryKey = []byte(value)
		case "key2":
			c.Auth.SecondaryKey = []byte(value)
		case "if":
			c.IfMatch = value
			for etag, name := range p.etags {
				if name == value {
					c.IfMatch = etag
				}
			}
		default:
			p.t.Fatalf("what is %q", w)
		}
	}
	return c
}

func (p *player) decide(c *hub.Command) []string {
	before := p.batch.Len()
	if err := p.v.Decide(c, p.c.next(), &p.batch); err != nil {
		if p.batch.Len() != before {
			p.t.Errorf("a refusal added entries")
		}
		return []string{"refused: " + err.Error()}
	}
	p.commands = append(p.commands, c)
	var answers []string
	for i, e := range p.batch.Entries() {
		if int(i) < before {
			continue
		}
		switch e.Kind {
		case hub.KindTelemetry:
			m, err := hub.DecodeTelemetry(e.Data)
			if err != nil {
				p.t.Fatal(err)
			}
			answers = append(answers, fmt.Sprintf("telemetry of %s, generation %s, to partition %d as %d", m.Device, m.Generation, m.Partition, m.Number))
		default:
			d, err := hub.DecodeDeviceEntry(e.Kind, e.Data)
			if err != nil {
				p.t.Fatal(err)
			}
			answers = append(answers, fmt.Sprintf("entry of %s, kind %d, revokes %v", d.Device, e.Kind, d.Revokes))
		}
	}
	return answers
}

func (p *player) apply() (answers []string) {
	rec := p.c.record(entriesOf(&p.batch)...)
	p.batch.Reset()
	if err := p.v.Apply(rec); err != nil {
		return []string{"error: " + err.Error()}
	}
	for _, c := range p.commands {
		var o hub.Outcome
		if p.v.Answer(c, &o); o.Device != nil {
			answers = append(answers, p.device(*o.Device))
		}
		for i, err := range o.Bulk {
			answers = append(answers, fmt.Sprintf("%d: %v", i, err))
		}
	}
	p.commands = nil
	return append(answers, fmt.Sprintf("record e%d.%d", rec.Header.Epoch, rec.Header.Number))
}

func (p *player) device(d hub.Device) string {
	if _, ok := p.etags[d.Etag]; !ok {
		p.etags[d.Etag] = fmt.Sprint("etag", len(p.etags)+1)
	}
	updated := "never"
	if !d.StatusUpdated.IsZero() {
		updated = d.StatusUpdated.Format(time.TimeOnly)
	}
	return fmt.Sprintf("%s %s %q (changed %s) generation %s %s keys %q %q", d.ID, d.Status, d.StatusReason, updated, d.Generation, p.etags[d.Etag],
		d.Auth.PrimaryKey, d.Auth.SecondaryKey)
}

// show answers questions to the applied view.
func (p *player) show(what string, rest []string) (answers []string) {
	number := func(i int) uint64 {
		n, err := strconv.ParseUint(rest[i], 10, 64)
		if err != nil {
			p.t.Fatal(err)
		}
		return n
	}
	switch what {
	case "device":
		d, err := p.v.Device(tandem.DeviceID(rest[0]))
		if err != nil {
			return []string{err.Error()}
		}
		return []string{p.device(d)}
	case "devices":
		list, err := p.v.Devices(tandem.DeviceID(strings.TrimPrefix(rest[0], "after=")), int(number(1)))
		if err != nil {
			return []string{err.Error()}
		}
		for _, d := range list {
			answers = append(answers, d.ID)
		}
		return answers
	case "statistics":
		return []string{fmt.Sprintf("%+v, version base %d", p.v.Statistics(p.c.time), p.v.VersionBase())}
	case "partitions":
		for _, s := range p.v.Partitions() {
			answers = append(answers, fmt.Sprintf("partition %d: first %d, last %d, at %s", s.Partition, s.First, s.LastEnqueued, s.LastTime.Format(time.DateTime)))
		}
		return answers
	case "mark":
		return []string{fmt.Sprintf("%+v", p.v.Door(hub.DoorID(rest[0])))}
	case "find":
		record, err := p.v.FindEvent(int(number(0)), int64(number(1)))
		return []string{fmt.Sprint(record, " ", err)}
	case "check":
		c := p.v.LastRootCheck()
		return []string{fmt.Sprintf("record %d, equal %v", c.Number, c.Equal()), fmt.Sprint("scrub: ", p.v.Check(context.Background()))}
	case "hash":
		root := p.v.Root()
		return []string{hex.EncodeToString(root[:8])}
	}
	p.t.Fatal(errors.New("unknown command " + what))
	return nil
}
