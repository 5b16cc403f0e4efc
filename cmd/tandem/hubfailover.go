package main

import (
	"context"
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
	var yes, noWait, dryRun bool
	c := a.command("hub.failover", "failover HUB", cobra.ExactArgs(1), examples(
		"tandem hub failover hub-1", a.say("example.planned"),
		"tandem hub failover hub-1 --dry-run", a.say("example.dryrun"),
		"tandem hub failover hub-1 --forced --yes", a.say("example.forced"),
		"tandem hub failover hub-1 --forced --accept-loss --yes", a.say("example.acceptloss")),
		func(c *cobra.Command, args []string) error {
			if m.AcceptLoss && !m.Forced {
				return errUsage{errors.New(a.say("hub.failover.acceptforced"))}
			}
			t, err := a.connect()
			if err != nil {
				return err
			}
			m.To = string(tandem.ParseRegion(m.To))
			if dryRun {
				f, raw, err := t.Forecast(c.Context(), args[0], m)
				if err != nil {
					return err
				}
				return a.print(raw, func(w io.Writer) { a.forecastPage(w, f, true) })
			}
			if !yes {
				if err := a.askFailover(c.Context(), t, args[0], m); err != nil {
					return err
				}
			}
			o, raw, err := t.Failover(c.Context(), args[0], m)
			if err != nil {
				return a.refusedMove(err, args[0])
			}
			if noWait {
				return a.print(raw, func(w io.Writer) { a.operationPage(w, o, false) })
			}
			return a.follow(c.Context(), t, o.ID)
		})
	c.Flags().StringVar(&m.To, "to", "", a.say("flag.to"))
	_ = c.RegisterFlagCompletionFunc("to", a.completeRegions)
	c.Flags().BoolVar(&m.Forced, "forced", false, a.say("flag.forced"))
	c.Flags().BoolVar(&m.AcceptLoss, "accept-loss", false, a.say("flag.acceptloss"))
	c.Flags().BoolVar(&dryRun, "dry-run", false, a.say("flag.dryrun"))
	c.Flags().BoolVarP(&yes, "yes", "y", false, a.say("flag.yes"))
	c.Flags().BoolVar(&noWait, "no-wait", false, a.say("flag.nowait"))
	return c
}

// askFailover shows what the move would cost and asks for the hub's name.
func (a *app) askFailover(ctx context.Context, t *client.Client, hub string, m client.Move) error {
	if isTerminal(a.in) {
		if f, _, err := t.Forecast(ctx, hub, m); err == nil {
			w := tabwriter.NewWriter(a.err, 0, 8, 2, ' ', 0)
			a.forecastPage(w, f, false)
			_ = w.Flush()
			fmt.Fprintln(a.err)
		}
	}
	question := a.say("hub.failover.ask", hub)
	if m.Forced {
		question = a.say("hub.failover.askforced", hub)
	}
	return a.confirm(question, hub, false)
}

// refusedMove names the command that a refusal calls for.
func (a *app) refusedMove(err error, hub string) error {
	var refused *client.Answer
	if !errors.As(err, &refused) {
		return err
	}
	hint := ""
	switch refused.Code {
	case "NotInSync":
		hint = a.say("hub.failover.notinsync")
	case "SourceRegionDark":
		hint = a.say("hub.failover.dark", hub)
	default:
		return err
	}
	return &tandem.Error{Op: "fail over", Kind: tandem.KindOf(err), Err: refused, Hint: hint}
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
				fmt.Fprintf(a.err, "  %-10s %-10s %s\n", s.Status, s.Name, s.Details)
			}
		}
	})
	if err != nil {
		return err
	}
	if o.Failed() && a.output == "table" {
		return a.failure(o)
	}
	if err := a.print(raw, func(w io.Writer) { a.operationPage(w, o, false) }); err != nil {
		return err
	}
	if !o.Failed() {
		return nil
	}
	return a.failure(o)
}

// failure is why an operation failed. Its message says what failed and on what.
func (a *app) failure(o client.Operation) error {
	if o.Error == nil {
		return &tandem.Error{Op: "fail over", Kind: tandem.Internal, On: o.HubName, Err: errors.New(o.Status), Hint: a.here("tandem failover show " + o.ID)}
	}
	hint := o.Error.Hint
	if hint == "" {
		hint = a.here("tandem failover show " + o.ID)
	}
	return &tandem.Error{Kind: tandem.Internal, Err: errors.New(withoutHint(o.Error.Message, o.Error.Hint)), Hint: hint}
}

// withoutHint is an error's text without the hint that tandem.Error puts at its end in brackets.
func withoutHint(text, hint string) string {
	if hint == "" {
		return text
	}
	return strings.Replace(text, " ("+hint+")", "", 1)
}
