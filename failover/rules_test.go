package failover_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tandem"
	"tandem/failover"
	"tandem/pairlog"
)

var rewrite = flag.Bool("rewrite", false, "write the answers into testdata")

// TestRules asks each rule the questions of its transcript: lines of JSON that change the facts of the last "base" line.
func TestRules(t *testing.T) {
	planned := failover.Planned{Hub: "fab", From: "westus2", To: "westcentralus", Epoch: 3}
	async := failover.Forced{Hub: "fab", From: "westus2", To: "westcentralus", Epoch: 3}
	sync := async
	sync.Mode = pairlog.SyncAvailable
	accepted := sync
	accepted.AcceptLoss = true
	home := failover.Return{Hub: "fab", Region: "westus2", Peer: "westcentralus", Home: "westus2", Incarnation: "a2"}
	away := failover.Return{Hub: "fab", Region: "westcentralus", Peer: "westus2", Home: "westus2", Incarnation: "b2"}
	for name, next := range map[string]func(t *testing.T, facts ...string) failover.Step{
		"planned":         ask(planned.Next),
		"forced":          ask(async.Next),
		"forced_sync":     ask(sync.Next),
		"forced_accepted": ask(accepted.Next),
		"return":          ask(home.Next),
		"return_away":     ask(away.Next),
	} {
		t.Run(name, func(t *testing.T) { transcript(t, filepath.Join("testdata", name+".txt"), next) })
	}
}

func ask[F any](next func(F) failover.Step) func(*testing.T, ...string) failover.Step {
	return func(t *testing.T, facts ...string) failover.Step {
		var f F
		for _, text := range facts {
			d := json.NewDecoder(strings.NewReader(text))
			d.DisallowUnknownFields()
			if err := d.Decode(&f); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
		}
		return next(f)
	}
}

func transcript(t *testing.T, file string, next func(*testing.T, ...string) failover.Step) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	base, got, asked := "{}", []string{}, 0
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "-> "):
			continue
		case strings.HasPrefix(line, "base "):
			base = strings.TrimPrefix(line, "base ")
		case strings.HasPrefix(line, "{"):
			got = append(got, line, "-> "+next(t, base, line).String())
			asked++
			continue
		}
		got = append(got, line)
	}
	if asked == 0 {
		t.Fatalf("%s asks nothing", file)
	}
	out := strings.Join(got, "\n") + "\n"
	if *rewrite {
		if err := os.WriteFile(file, []byte(out), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if out != string(text) {
		t.Errorf("%s: the answers differ, got\n%s", file, out)
	}
}

func TestCheck(t *testing.T) {
	hub := failover.Hub{ID: "1", Name: "fab", Home: "westus2", Peer: "westcentralus"}
	sync, lone := hub, hub
	sync.Mode, lone.Peer = pairlog.SyncStrict, ""
	pen := pairlog.Pen{Epoch: 3, Region: "westus2"}
	well := failover.StartFacts{Hub: hub, Found: true, Pen: pen, Reached: true}
	with := func(f failover.StartFacts, change func(*failover.StartFacts)) failover.StartFacts {
		change(&f)
		return f
	}
	for name, c := range map[string]struct {
		r    failover.Request
		f    failover.StartFacts
		kind string
		want *tandem.Error
	}{
		"planned":             {failover.Request{To: "West Central US"}, well, "failover", nil},
		"no target":           {failover.Request{}, well, "failover", nil},
		"home":                {failover.Request{To: "westus2"}, with(well, func(f *failover.StartFacts) { f.Pen.Region = "westcentralus" }), "failback", nil},
		"unknown":             {failover.Request{}, failover.StartFacts{}, "", failover.ErrUnknownHub},
		"no pair":             {failover.Request{}, with(well, func(f *failover.StartFacts) { f.Hub = lone }), "", failover.ErrUnpaired},
		"not its pair":        {failover.Request{To: "eastus"}, well, "", failover.ErrUnpaired},
		"already there":       {failover.Request{To: "West US 2"}, well, "", failover.ErrAlreadyThere},
		"no pen":              {failover.Request{}, with(well, func(f *failover.StartFacts) { f.Pen = pairlog.Pen{} }), "", failover.ErrNoPen},
		"dark":                {failover.Request{}, with(well, func(f *failover.StartFacts) { f.Reached = false }), "", failover.ErrSourceDark},
		"dark, forced":        {failover.Request{Forced: true}, with(well, func(f *failover.StartFacts) { f.Reached = false }), "forced failover", nil},
		"Azure's, lapsed":     {failover.Request{ForcedIfLapsed: true}, with(well, func(f *failover.StartFacts) { f.Lapsed = true }), "forced failover", nil},
		"Azure's, alive":      {failover.Request{ForcedIfLapsed: true}, well, "failover", nil},
		"out of sync":         {failover.Request{Forced: true}, with(well, func(f *failover.StartFacts) { f.Hub = sync }), "", failover.ErrNotInSync},
		"out of sync, agreed": {failover.Request{Forced: true, AcceptLoss: true}, with(well, func(f *failover.StartFacts) { f.Hub = sync }), "forced failover", nil},
		"in sync":             {failover.Request{Forced: true}, with(well, func(f *failover.StartFacts) { f.Hub, f.InSync = sync, true }), "forced failover", nil},
	} {
		t.Run(name, func(t *testing.T) {
			r, kind, err := failover.Check(c.r, c.f)
			if string(kind) != c.kind || c.want == nil && err != nil || c.want != nil && !is(err, c.want) {
				t.Errorf("%q, %v; want %q, %v", kind, err, c.kind, c.want)
			}
			if err == nil && r.To == c.f.Pen.Region {
				t.Errorf("goes to %s", r.To)
			}
		})
	}
	for _, r := range []failover.Request{{Seize: true}, {OnIsolation: failover.IsolationContinue}} {
		if _, _, err := failover.Check(r, well); tandem.KindOf(err) != tandem.Unsupported {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

func TestInChain(t *testing.T) {
	pen := pairlog.Pen{Epoch: 5, Forks: []pairlog.Branch{{Epoch: 1}, {Epoch: 2, Fork: pairlog.Fork{Epoch: 1, Number: 10}},
		{Epoch: 5, Fork: pairlog.Fork{Epoch: 2, Number: 20}}}}
	for at, want := range map[pairlog.Fork]bool{
		{}: true, {Epoch: 1, Number: 10}: true, {Epoch: 1, Number: 11}: false, {Epoch: 2, Number: 20}: true,
		{Epoch: 2, Number: 21}: false, {Epoch: 3, Number: 15}: false, {Epoch: 5, Number: 30}: true,
	} {
		if got := failover.InChain(pen, at); got != want {
			t.Errorf("%+v: %v", at, got)
		}
	}
}

func TestForecast(t *testing.T) {
	hub := failover.Hub{ID: "1", Name: "fab", Home: "westus2", Peer: "westcentralus"}
	f := failover.ForecastFacts{Start: failover.StartFacts{Hub: hub, Found: true, Pen: pairlog.Pen{Epoch: 1, Region: "westus2"}, Reached: true}}
	f.Source = failover.Side{Known: true, Facts: failover.ReplicaFacts{Role: failover.RoleHolder, Sessions: 7}}
	f.Target = failover.Side{Known: true, Facts: failover.ReplicaFacts{Role: failover.RoleFollower,
		Lag: pairlog.Lag{Items: 12, Bytes: 3000, Age: 40e6, Known: true}}}
	if got := failover.NewForecast(failover.Request{}, f); !got.Ready || got.Items != 0 || got.Connections != 7 || got.Switch == 0 {
		t.Errorf("planned: %+v", got)
	}
	if got := failover.NewForecast(failover.Request{Forced: true}, f); got.Items != 12 || got.Bytes != 3000 || got.Seconds != 0.04 || !got.Known {
		t.Errorf("forced: %+v", got)
	}
	f.Start.Hub.Mode = pairlog.SyncAvailable
	if got := failover.NewForecast(failover.Request{Forced: true}, f); got.Ready || got.Reason == "" || got.Hint == "" {
		t.Errorf("out of sync: %+v", got)
	}
	f.Start.InSync = true
	if got := failover.NewForecast(failover.Request{Forced: true}, f); !got.Ready || got.Items != 0 {
		t.Errorf("in sync: %+v", got)
	}
	f.Target = failover.Side{}
	if got := failover.NewForecast(failover.Request{}, f); got.Ready {
		t.Errorf("dark target: %+v", got)
	}
}
