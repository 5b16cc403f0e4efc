package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"tandem"
	"tandem/dev"
)

func (a *app) dev() *cobra.Command {
	o := dev.Default()
	var regions []string
	c := a.command("dev", "dev", cobra.NoArgs, `  tandem dev
  tandem dev --data /tmp/second --port-offset 20000
  tandem dev kill westus2 && tandem dev start westus2
  tandem dev cut link && tandem dev join link`, nil)
	c.RunE = func(c *cobra.Command, _ []string) error {
		flags := o
		o = dev.Remembered(o)
		for name, keep := range map[string]func(){
			"regions":     func() { o.Regions = []tandem.RegionName{} },
			"addresses":   func() { o.Addresses = flags.Addresses },
			"port-offset": func() { o.PortOffset = flags.PortOffset },
			"domain":      func() { o.Domain = flags.Domain },
		} {
			if c.Flags().Changed(name) {
				keep()
			}
		}
		if len(o.Regions) == 0 {
			for _, r := range regions {
				o.Regions = append(o.Regions, tandem.ParseRegion(r))
			}
		}
		return a.runDev(c.Context(), o)
	}
	c.PersistentFlags().StringVar(&o.Data, "data", o.Data, a.say("flag.dev.data"))
	c.Flags().StringSliceVar(&regions, "regions", []string{"westus2", "westcentralus"}, a.say("flag.regions"))
	c.Flags().StringSliceVar(&o.Addresses, "addresses", o.Addresses, a.say("flag.addresses"))
	c.Flags().IntVar(&o.PortOffset, "port-offset", 0, a.say("flag.offset"))
	c.Flags().StringVar(&o.Domain, "domain", o.Domain, a.say("flag.domain"))
	c.Flags().StringVar(&o.Hub, "hub", o.Hub, a.say("flag.dev.hub"))
	c.Flags().StringVar(&o.FailoverLimits, "failover-limits", o.FailoverLimits, a.say("flag.limits"))
	c.Flags().DurationVar(&o.LeaseTTL, "lease", o.LeaseTTL, a.say("flag.lease"))
	c.Flags().StringVar(&o.LogLevel, "log-level", o.LogLevel, a.say("flag.loglevel"))
	c.Flags().BoolVar(&o.NoRelays, "no-relays", false, a.say("flag.norelays"))
	c.AddCommand(a.devEnv(&o.Data), a.devHosts(&o.Data))
	for _, verb := range dev.Verbs {
		c.AddCommand(a.devFault(verb, &o.Data))
	}
	return c
}

func (a *app) runDev(ctx context.Context, o dev.Options) error {
	program, err := os.Executable()
	if err != nil {
		return &tandem.Error{Op: "start", Err: err}
	}
	o.Program, o.Warnings = program, a.err
	o.Logger = slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
	stop := func() {}
	o.Progress = func(phase string) {
		stop()
		stop = a.waiting(a.say("dev.wait." + phase))
	}
	o.Ready = func(r dev.Ready) {
		stop()
		stop = func() {}
		a.welcome(o, r)
	}
	d, err := dev.New(o)
	if err != nil {
		return err
	}
	err = d.Run(ctx)
	stop()
	if err == nil && ctx.Err() != nil {
		fmt.Fprintln(a.err, a.say("dev.ended", o.Data))
	}
	return err
}

// welcome says what runs where, and what to try first.
func (a *app) welcome(o dev.Options, r dev.Ready) {
	w := tabwriter.NewWriter(a.out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(a.out, "\n%s\n\n", a.say("dev.welcome", r.Took.Round(10*time.Millisecond)))
	for _, s := range r.Sites {
		what := a.say("dev.site.region")
		switch {
		case s.Witness:
			what = a.say("dev.site.witness")
		case string(tandem.ParseRegion(s.Name)) == r.Holder:
			what = a.say("dev.site.holder", r.Hub)
		}
		row(w, "  "+s.Display, s.Address, fmt.Sprintf("pid %d", s.PID), what)
	}
	row(w, "  "+a.say("dev.front"), "127.0.0.1, ::1", "", a.say("dev.front.what"))
	_ = w.Flush()
	fmt.Fprintf(a.out, "\n  %s\n    %s\n  %s\n    %s\n", a.say("dev.hubstring"), r.HubString, a.say("dev.devicestring"), r.DeviceString)
	fmt.Fprintf(a.out, "  %s\n    set -a; . %s; set +a\n", a.say("dev.environment"), quote(r.Environment))
	for _, note := range r.Notes {
		fmt.Fprintf(a.out, "\n  ! %s\n", note)
	}
	command, flags, data := started(os.Args[0], exists), "", ""
	if o.Data != dev.Default().Data {
		flags, data = " --env "+quote(r.Environment), " --data "+quote(o.Data)
	}
	fmt.Fprintf(a.out, "\n  %s\n", a.say("dev.try"))
	w = tabwriter.NewWriter(a.out, 0, 8, 2, ' ', 0)
	row(w, "    "+command+" device simulate "+r.Hub+flags, a.say("dev.try.send"))
	row(w, "    "+command+" hub failover "+r.Hub+" --yes"+flags, a.say("dev.try.failover"))
	row(w, "    "+command+" dev kill "+r.Holder+data, a.say("dev.try.kill"))
	_ = w.Flush()
	fmt.Fprintf(a.out, "\n  %s\n", a.say("dev.end"))
}

func (a *app) devEnv(data *string) *cobra.Command {
	return a.command("dev.env", "env", cobra.NoArgs, `  eval "$(tandem dev env | sed 's/^/export /')"`, func(*cobra.Command, []string) error {
		text, err := os.ReadFile(filepath.Join(*data, "env"))
		if err != nil {
			_, err = dev.ReadEnvironment(filepath.Join(*data, "env"))
			return err
		}
		_, err = a.out.Write(text)
		return err
	})
}

const hostsMark = "# tandem dev"

func (a *app) devHosts(data *string) *cobra.Command {
	var write bool
	file := "/etc/hosts"
	c := a.command("dev.hosts", "hosts", cobra.NoArgs, `  tandem dev hosts
  sudo tandem dev hosts --write`, func(c *cobra.Command, _ []string) error {
		if a.envFile == defaultEnvFile {
			a.envFile = filepath.Join(*data, "env")
		}
		t, err := a.connect()
		if err != nil {
			return err
		}
		hubs, _, err := t.Hubs(c.Context())
		if err != nil {
			return err
		}
		var names []string
		for _, h := range hubs {
			names = append(names, h.Properties.HostName)
		}
		if u, err := url.Parse(t.Target().URLs[0]); err != nil || u.Hostname() != "localhost" && !net.ParseIP(u.Hostname()).IsLoopback() {
			return &tandem.Error{Op: "list host names", Kind: tandem.Precondition, Err: errors.New("the target is not a tandem dev on this machine")}
		}
		line := "127.0.0.1 " + strings.Join(names, " ") + " " + hostsMark
		if !write {
			_, err := fmt.Fprintln(a.out, line)
			return err
		}
		old, err := os.ReadFile(file)
		if err != nil {
			return &tandem.Error{Op: "write host names", Kind: tandem.Forbidden, Err: err}
		}
		lines := slices.DeleteFunc(strings.Split(strings.TrimRight(string(old), "\n"), "\n"), func(l string) bool { return strings.HasSuffix(l, hostsMark) })
		if err := os.WriteFile(file, []byte(strings.Join(append(lines, line), "\n")+"\n"), 0o644); err != nil {
			return &tandem.Error{Op: "write host names", Kind: tandem.Forbidden, Err: err, Hint: "sudo tandem dev hosts --write"}
		}
		return nil
	})
	c.Flags().BoolVar(&write, "write", false, a.say("flag.write"))
	return c
}

func (a *app) devFault(verb string, data *string) *cobra.Command {
	second := " witness"
	if verb == "cut" || verb == "join" {
		second = " link"
	}
	c := a.command("dev."+verb, verb+" SITE", cobra.ExactArgs(1), "  tandem dev "+verb+" westus2\n  tandem dev "+verb+second,
		func(c *cobra.Command, args []string) error {
			if err := dev.Send(c.Context(), *data, dev.Command{Verb: verb, Site: args[0]}); err != nil {
				return err
			}
			return a.print(map[string]string{"verb": verb, "site": args[0]}, func(w io.Writer) { row(w, a.say("dev.done."+verb, args[0])) })
		})
	c.ValidArgsFunction = completeSites(data, verb)
	return c
}
