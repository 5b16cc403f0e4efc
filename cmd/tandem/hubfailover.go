package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"tandem"
	"tandem/client"
)

func (a *app) hubFailover() *cobra.Command {
	var m client.Move
	var yes, noWait bool
	c := a.command("hub.failover", "failover HUB", cobra.ExactArgs(1), `  tandem hub failover hub-1                      # planned: nothing is lost; run it again to fail back
  tandem hub failover hub-1 --dry-run            # what it would cost now
  tandem hub failover hub-1 --forced --accept-loss --yes   # the region is dark`,
		func(c *cobra.Command, args []string) error {
			if m.AcceptLoss && !m.Forced {
				return errUsage{errors.New("--accept-loss: --forced")}
			}
			t, err := a.connect()
			if err != nil {
				return err
			}
			m.To = string(tandem.ParseRegion(m.To))
			if m.DryRun {
				_, raw, err := t.Failover(c.Context(), args[0], m)
				if err != nil {
					return err
				}
				return a.print(raw, func(w io.Writer) { rows(w, raw) })
			}
			if !yes {
				if err := a.askFailover(c.Context(), t, args[0], m); err != nil {
					return err
				}
			}
			o, raw, err := t.Failover(c.Context(), args[0], m)
			if err != nil {
				return err
			}
			if noWait {
				return a.print(raw, func(w io.Writer) { a.operationTable(w, o) })
			}
			return a.follow(c.Context(), t, o.ID)
		})
	c.Flags().StringVar(&m.To, "to", "", a.say("flag.to"))
	c.Flags().BoolVar(&m.Forced, "forced", false, a.say("flag.forced"))
	c.Flags().BoolVar(&m.AcceptLoss, "accept-loss", false, a.say("flag.acceptloss"))
	c.Flags().BoolVar(&m.DryRun, "dry-run", false, a.say("flag.dryrun"))
	c.Flags().BoolVarP(&yes, "yes", "y", false, a.say("flag.yes"))
	c.Flags().BoolVar(&noWait, "no-wait", false, a.say("flag.nowait"))
	return c
}

// askFailover shows what the move would cost and asks for the hub's name.
func (a *app) askFailover(ctx context.Context, t *client.Client, hub string, m client.Move) error {
	if isTerminal(a.in) {
		if raw, err := t.Forecast(ctx, hub, m); err == nil {
			w := tabwriter.NewWriter(a.err, 0, 8, 2, ' ', 0)
			rows(w, raw)
			_ = w.Flush()
		}
	}
	question := a.say("hub.failover.ask", hub)
	if m.Forced {
		question = a.say("hub.failover.askforced", hub)
	}
	return a.confirm(question, hub, false)
}

// follow shows an operation's steps on standard error as they happen, and the outcome at the end. A failed operation is
// an error.
func (a *app) follow(ctx context.Context, t *client.Client, id string) error {
	shown := map[string]string{}
	o, raw, err := t.Follow(ctx, id, func(o client.Operation) {
		for i, s := range o.Steps {
			key := fmt.Sprint(i, s.Name)
			if shown[key] != s.Status {
				shown[key] = s.Status
				fmt.Fprintf(a.err, "  %-10s %-24s %s\n", s.Status, s.Name, s.Details)
			}
		}
	})
	if err != nil {
		return err
	}
	if err := a.print(raw, func(w io.Writer) { a.operationTable(w, o) }); err != nil {
		return err
	}
	if !o.Failed() {
		return nil
	}
	if o.Error == nil {
		return &tandem.Error{Op: "fail over", Kind: tandem.Internal, On: o.HubName, Err: errors.New(o.Status)}
	}
	message := strings.ReplaceAll(o.Error.Message, " ("+o.Error.Hint+")", "") // it says what failed and on what
	return &tandem.Error{Kind: tandem.Internal, Err: errors.New(message), Hint: o.Error.Hint}
}

func (a *app) operationTable(w io.Writer, o client.Operation) {
	row(w, a.say("column.operation"), o.ID)
	row(w, a.say("column.kind"), o.Kind)
	row(w, a.say("column.hub"), dash(o.HubName))
	row(w, a.say("column.fromto"), tandem.RegionName(o.From).Display()+" → "+tandem.RegionName(o.To).Display())
	row(w, a.say("column.status"), o.Status)
	row(w, a.say("column.started"), clock(o.Started))
	row(w, a.say("column.took"), took(o.Started, o.Ended))
	if o.Error != nil {
		row(w, a.say("column.error"), o.Error.Message)
	}
	if len(o.Report) > 0 && string(o.Report) != "null" {
		rows(w, o.Report)
	}
	var report struct {
		Lost struct {
			Receipt string `json:"receipt"`
		} `json:"lost"`
	}
	if json.Unmarshal(o.Report, &report) == nil && report.Lost.Receipt != "" {
		row(w, a.say("failover.receipt.see"), "tandem failover receipt "+report.Lost.Receipt)
	}
}
