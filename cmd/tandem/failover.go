package main

import (
	"encoding/json"
	"io"

	"github.com/spf13/cobra"

	"tandem"
)

func (a *app) failover() *cobra.Command {
	return a.group("failover", "failover", a.failoverList(), a.failoverShow(), a.failoverReceipt())
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
	c := a.command("failover.show", "show OPERATION", cobra.ExactArgs(1), `  tandem failover show 01J9ZQ…
  tandem failover show 01J9ZQ… --follow`, func(c *cobra.Command, args []string) error {
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
		return a.print(raw, func(w io.Writer) {
			a.operationTable(w, o)
			row(w, "")
			row(w, a.say("column.step"), a.say("column.status"), a.say("column.started"), a.say("column.took"), a.say("column.details"))
			for _, s := range o.Steps {
				row(w, s.Name, s.Status, clock(s.Start), took(s.Start, s.End), s.Details)
			}
		})
	})
	c.Flags().BoolVarP(&follow, "follow", "f", false, a.say("flag.follow"))
	return c
}

func (a *app) failoverReceipt() *cobra.Command {
	var gone, yes bool
	var hub string
	c := a.command("failover.receipt", "receipt [RECEIPT]", cobra.MaximumNArgs(1), `  tandem failover receipt --hub hub-1            # list them
  tandem failover receipt 01J9ZQ… --output json
  tandem failover receipt 01J9ZQ… --declare-gone  # the old region never comes back`, func(c *cobra.Command, args []string) error {
		t, err := a.connect()
		if err != nil {
			return err
		}
		var raw json.RawMessage
		switch {
		case len(args) == 0 && hub == "":
			return errUsage{errNeedsReceipt}
		case len(args) == 0:
			raw, err = t.Receipts(c.Context(), hub)
		case gone:
			if err := a.confirm(a.say("failover.receipt.ask"), args[0], yes); err != nil {
				return err
			}
			if err := t.CloseReceipt(c.Context(), args[0]); err != nil {
				return err
			}
			fallthrough
		default:
			raw, err = t.Receipt(c.Context(), args[0])
		}
		if err != nil {
			return err
		}
		return a.print(raw, func(w io.Writer) { rows(w, raw) })
	})
	c.Flags().StringVar(&hub, "hub", "", a.say("flag.hub"))
	c.Flags().BoolVar(&gone, "declare-gone", false, a.say("flag.gone"))
	c.Flags().BoolVarP(&yes, "yes", "y", false, a.say("flag.yes"))
	return c
}

var errNeedsReceipt = &tandem.Error{Op: "show a receipt", Kind: tandem.Invalid, Hint: "name a receipt, or list them with --hub HUB"}
