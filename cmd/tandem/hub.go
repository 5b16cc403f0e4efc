package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tandem"
	"tandem/client"
)

func (a *app) hub() *cobra.Command {
	return a.group("hub", "hub", `  tandem hub list
  tandem hub failover hub-1`,
		a.hubCreate(), a.hubUpdate(), a.hubList(), a.hubShow(), a.hubDelete(), a.hubFailover(), a.hubEvents(), a.hubKeys())
}

var replications = []string{"async", "sync-available", "sync-strict"}

func (a *app) hubSettings(c *cobra.Command, spec *client.HubSpec) {
	c.Flags().StringVar(&spec.Replication, "replication", "", a.say("flag.replication"))
	c.Flags().StringVar(&spec.PlatformFailover, "platform-failover", "", a.say("flag.platform"))
	_ = c.RegisterFlagCompletionFunc("replication", cobra.FixedCompletions(replications, cobra.ShellCompDirectiveNoFileComp))
}

func checkSettings(spec client.HubSpec) error {
	if spec.Replication != "" && !contains(replications, spec.Replication) {
		return errUsage{fmt.Errorf("--replication %q: %s", spec.Replication, strings.Join(replications, ", "))}
	}
	switch spec.PlatformFailover {
	case "", "operator":
		return nil
	case "automatic":
		return &tandem.Error{Op: "set platform-failover", Kind: tandem.Unsupported, Hint: "operator is the only policy so far"}
	}
	return errUsage{fmt.Errorf("--platform-failover %q: operator", spec.PlatformFailover)}
}

func contains(list []string, s string) bool {
	for _, one := range list {
		if one == s {
			return true
		}
	}
	return false
}

func (a *app) hubCreate() *cobra.Command {
	var spec client.HubSpec
	c := a.command("hub.create", "create HUB", cobra.ExactArgs(1), `  tandem hub create fab-17
  tandem hub create fab-17 --location "West US 2" --replication sync-available`,
		func(c *cobra.Command, args []string) error {
			if err := checkSettings(spec); err != nil {
				return err
			}
			t, err := a.connect()
			if err != nil {
				return err
			}
			spec.SKU = "S1"
			if spec.Location == "" {
				spec.Location = t.Target().Location
			}
			if _, _, err := t.Hub(c.Context(), args[0]); err == nil {
				return &tandem.Error{Op: "create the hub", Kind: tandem.Exists, On: args[0], Hint: "tandem hub update changes it"}
			}
			defer a.waiting(a.say("hub.create.wait", args[0]))()
			h, err := t.PutHub(c.Context(), args[0], spec)
			if err != nil {
				return err
			}
			return a.printHub(h, h)
		})
	c.Flags().StringVar(&spec.Location, "location", "", a.say("flag.location"))
	a.hubSettings(c, &spec)
	return c
}

func (a *app) hubUpdate() *cobra.Command {
	var spec client.HubSpec
	c := a.command("hub.update", "update HUB", cobra.ExactArgs(1), `  tandem hub update fab-17 --replication sync-strict`,
		func(c *cobra.Command, args []string) error {
			if err := checkSettings(spec); err != nil {
				return err
			}
			t, err := a.connect()
			if err != nil {
				return err
			}
			h, _, err := t.Hub(c.Context(), args[0])
			if err != nil {
				return err
			}
			spec.Location = h.Location
			defer a.waiting(a.say("hub.update.wait", args[0]))()
			if h, err = t.PutHub(c.Context(), args[0], spec); err != nil {
				return err
			}
			return a.printHub(h, h)
		})
	a.hubSettings(c, &spec)
	return c
}

func (a *app) hubList() *cobra.Command {
	return a.command("hub.list", "list", cobra.NoArgs, `  tandem hub list`, func(c *cobra.Command, _ []string) error {
		t, err := a.connect()
		if err != nil {
			return err
		}
		hubs, raw, err := t.Hubs(c.Context())
		if err != nil {
			return err
		}
		return a.print(raw, func(w io.Writer) { a.hubTable(w, hubs...) })
	})
}

func (a *app) hubTable(w io.Writer, hubs ...client.Hub) {
	row(w, a.say("column.hub"), a.say("column.region"), a.say("column.home"), a.say("column.state"), a.say("column.replication"), a.say("column.host"))
	for _, h := range hubs {
		p := h.Properties
		row(w, h.Name, tandem.ParseRegion(h.Location).Display(), tandem.RegionName(p.Tandem.Home).Display(), dash(p.State),
			dash(p.Tandem.Replication), dash(p.HostName))
	}
}

func (a *app) printHub(raw any, h client.Hub) error {
	return a.print(raw, func(w io.Writer) { a.hubTable(w, h) })
}

func (a *app) hubShow() *cobra.Command {
	return a.command("hub.show", "show HUB", cobra.ExactArgs(1), `  tandem hub show hub-1
  tandem hub show hub-1 --output json`, func(c *cobra.Command, args []string) error {
		t, err := a.connect()
		if err != nil {
			return err
		}
		h, raw, err := t.Hub(c.Context(), args[0])
		if err != nil {
			return err
		}
		return a.print(raw, func(w io.Writer) { a.hubPage(w, h) })
	})
}

func (a *app) hubDelete() *cobra.Command {
	var yes bool
	c := a.command("hub.delete", "delete HUB", cobra.ExactArgs(1), `  tandem hub delete fab-17
  tandem hub delete fab-17 --yes`, func(c *cobra.Command, args []string) error {
		t, err := a.connect()
		if err != nil {
			return err
		}
		if err := a.confirm(a.say("hub.delete.ask", args[0]), args[0], yes); err != nil {
			return err
		}
		defer a.waiting(a.say("hub.delete.wait", args[0]))()
		return t.DeleteHub(c.Context(), args[0])
	})
	c.Flags().BoolVarP(&yes, "yes", "y", false, a.say("flag.yes"))
	return c
}

func (a *app) hubKeys() *cobra.Command {
	return a.command("hub.keys", "keys HUB", cobra.ExactArgs(1), `  tandem hub keys hub-1`, func(c *cobra.Command, args []string) error {
		t, err := a.connect()
		if err != nil {
			return err
		}
		h, _, err := t.Hub(c.Context(), args[0])
		if err != nil {
			return err
		}
		keys, err := t.Keys(c.Context(), args[0])
		if err != nil {
			return err
		}
		return a.print(keys, func(w io.Writer) {
			row(w, a.say("column.policy"), a.say("column.rights"), a.say("column.connection"))
			for _, k := range keys {
				row(w, k.KeyName, k.Rights,
					client.ConnectionString{HostName: h.Properties.HostName, SharedAccessKeyName: k.KeyName, SharedAccessKey: k.PrimaryKey})
			}
		})
	})
}

func (a *app) hubEvents() *cobra.Command {
	var q client.EventQuery
	var since time.Duration
	var count int
	c := a.command("hub.events", "events HUB", cobra.ExactArgs(1), `  tandem hub events hub-1 --follow
  tandem hub events hub-1 --from 0 --output json
  tandem hub events hub-1 --since 10m --partition 2 --count 100`, func(c *cobra.Command, args []string) error {
		t, err := a.connect()
		if err != nil {
			return err
		}
		s, err := t.Service(c.Context(), args[0])
		if err != nil {
			return err
		}
		if since > 0 {
			q.Time = time.Now().Add(-since)
		}
		if q.From == "" && since == 0 {
			q.Follow = true // nothing else would ever come
		}
		seen := 0
		err = s.Events(c.Context(), args[0], q, func(line []byte) error {
			if err := a.printEvent(line); err != nil {
				return err
			}
			if seen++; seen == count {
				return io.EOF
			}
			return nil
		})
		if err == io.EOF || c.Context().Err() != nil {
			return nil
		}
		return err
	})
	c.Flags().StringVar(&q.Partition, "partition", "", a.say("flag.partition"))
	c.Flags().StringVar(&q.From, "from", "", a.say("flag.from"))
	c.Flags().DurationVar(&since, "since", 0, a.say("flag.since"))
	c.Flags().BoolVarP(&q.Follow, "follow", "f", false, a.say("flag.follow"))
	c.Flags().IntVar(&count, "count", 0, a.say("flag.events.count"))
	return c
}

func (a *app) printEvent(line []byte) error {
	if a.output == "json" {
		_, err := a.out.Write(line)
		return err
	}
	var e struct {
		Partition    int
		Number       json.Number
		EnqueuedTime time.Time
		DeviceID     string
		Body         json.RawMessage
		BodyBase64   string
	}
	if err := json.Unmarshal(line, &e); err != nil {
		_, err = a.out.Write(line)
		return err
	}
	body := string(e.Body)
	if text, err := strconv.Unquote(body); err == nil {
		body = text
	} else if body == "" {
		body = e.BodyBase64
	}
	_, err := fmt.Fprintf(a.out, "%d %10s  %s  %-16s %s\n", e.Partition, e.Number, e.EnqueuedTime.Local().Format("15:04:05.000"), e.DeviceID, body)
	return err
}
