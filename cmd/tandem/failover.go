package main

import (
	"io"

	"github.com/spf13/cobra"

	"tandem"
)

func (a *app) failover() *cobra.Command {
	return a.group("failover", "failover", `  tandem failover list
  tandem failover receipt --hub hub-1`,
		a.failoverList(), a.failoverShow(), a.failoverReceipt())
}

func (a *app) failoverList() *cobra.Command {
	var hub string
	c := a.command("failover.list", "list", cobra.NoArgs, `  tandem failover list
  tandem failover list --hub hub-1`, func(c *cobra.Command, _ []string) error {
		t, err := a.connect()
		if err != nil {
			return err
		}
		list, raw, err := t.Operations(c.Context(), hub)
		if err != nil {
			return err
		}
		return a.print(raw, func(w io.Writer) {
			row(w, a.say("column.operation"), a.say("column.kind"), a.say("column.hub"), a.say("column.fromto"), a.say("column.status"),
				a.say("column.started"), a.say("column.took"))
			for _, o := range list {
				row(w, o.ID, o.Kind, dash(o.HubName), tandem.RegionName(o.From).Display()+" → "+tandem.RegionName(o.To).Display(), o.Status,
					clock(o.Started), took(o.Started, o.Ended))
			}
		})
	})
	c.Flags().StringVar(&hub, "hub", "", a.say("flag.hub"))
	return c
}

func (a *app) failoverShow() *cobra.Command {
	var follow bool
	c := a.command("failover.show", "show OPERATION", cobra.ExactArgs(1), `  tandem failover show 3f0c…-01a1…
  tandem failover show 3f0c…-01a1… --follow`, func(c *cobra.Command, args []string) error {
		t, err := a.connect()
		if err != nil {
			return err
		}
		if follow {
			return a.follow(c.Context(), t, args[0])
		}
		o, raw, err := t.Operation(c.Context(), args[0])
		if err != nil {
			return err
		}
		return a.print(raw, func(w io.Writer) { a.operationPage(w, o, true) })
	})
	c.Flags().BoolVarP(&follow, "follow", "f", false, a.say("flag.follow"))
	return c
}
