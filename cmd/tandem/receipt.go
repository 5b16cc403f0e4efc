package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"tandem"
	"tandem/client"
)

func (a *app) failoverReceipt() *cobra.Command {
	var gone, yes, items bool
	var hub string
	c := a.command("failover.receipt", "receipt [RECEIPT]", cobra.MaximumNArgs(1), examples(
		"tandem failover receipt --hub hub-1", a.say("example.receipts"),
		"tandem failover receipt 3f0c…-e4", a.say("example.receipt"),
		"tandem failover receipt 3f0c…-e4 --items", a.say("next.items"),
		"tandem failover receipt 3f0c…-e4 --declare-gone", a.say("example.gone")), func(c *cobra.Command, args []string) error {
		if len(args) == 0 && hub == "" {
			return errUsage{errNeedsReceipt}
		}
		t, err := a.connect()
		if err != nil {
			return err
		}
		switch {
		case len(args) == 0:
			return a.listReceipts(c.Context(), t, hub)
		case items:
			return a.listItems(c.Context(), t, args[0])
		case gone:
			if err := a.confirm(a.say("failover.receipt.ask"), args[0], yes); err != nil {
				return err
			}
			if err := t.CloseReceipt(c.Context(), args[0]); err != nil {
				return err
			}
		}
		r, raw, err := t.Receipt(c.Context(), args[0])
		if err != nil {
			return err
		}
		return a.print(raw, func(w io.Writer) { a.receiptPage(w, r) })
	})
	c.Flags().StringVar(&hub, "hub", "", a.say("flag.hub"))
	c.Flags().BoolVar(&items, "items", false, a.say("flag.items"))
	c.Flags().BoolVar(&gone, "declare-gone", false, a.say("flag.gone"))
	c.Flags().BoolVarP(&yes, "yes", "y", false, a.say("flag.yes"))
	c.MarkFlagsMutuallyExclusive("items", "declare-gone")
	return c
}

var errNeedsReceipt = &tandem.Error{Op: "show a receipt", Kind: tandem.Invalid, Hint: "name a receipt, or list them with --hub HUB"}

func (a *app) listReceipts(ctx context.Context, t *client.Client, hub string) error {
	list, raw, err := t.Receipts(ctx, hub)
	if err != nil {
		return err
	}
	return a.print(raw, func(w io.Writer) {
		if len(list) == 0 {
			fmt.Fprintln(w, a.say("receipt.none", hub))
			return
		}
		row(w, a.say("column.receipt"), a.say("column.region"), a.say("column.state"), a.say("column.opened"), a.say("column.stranded"))
		for _, r := range list {
			stranded := "?"
			if r.State == "complete" {
				stranded = a.items(r.Items)
			}
			row(w, r.ID, display(r.Region), r.State, clock(r.Opened), stranded)
		}
	})
}

// receiptPage tells what a forced failover left behind, as far as it is known.
func (a *app) receiptPage(w io.Writer, r client.Receipt) {
	region := display(r.Region)
	var headline string
	switch {
	case r.State == "provisional":
		headline = a.say("receipt.provisional", region)
	case r.State == "closed incomplete":
		headline = a.say("receipt.short", region)
	case r.Items == 0:
		headline = a.say("receipt.nothing", region)
	default:
		headline = a.say("receipt.complete", region, a.items(r.Items))
	}
	p := a.page(w, headline)
	if r.State == "complete" && r.Items > 0 {
		p.line(a.say("label.stranded"), a.items(r.Items)+", "+size(r.Bytes))
		p.line(a.say("label.kinds"), a.kinds(r.Kinds))
		p.line(a.say("label.written"), clockMS(r.Oldest)+" – "+clockMS(r.Newest))
		p.line(a.say("label.records"), place(r.Fork.Epoch, r.First)+" – "+fmt.Sprint(r.Last))
	}
	if r.State != "complete" {
		p.line(a.say("label.heard"), a.say("receipt.heard", a.items(r.HeardItems), size(r.HeardBytes), seconds(float64(r.HeardAge)/1000)))
	}
	p.line(a.say("label.hub"), r.HubName)
	p.line(a.say("label.fork"), a.say("receipt.fork", place(r.Fork.Epoch, r.Fork.Number), r.Epoch))
	p.line(a.say("label.opened"), clock(r.Opened))
	switch {
	case r.Closed.IsZero():
	case r.State == "complete":
		p.line(a.say("label.completed"), clock(r.Closed))
	default:
		p.line(a.say("label.closed"), clock(r.Closed))
	}
	p.line(a.say("label.state"), r.State)
	p.line(a.say("label.receipt"), r.ID)
	switch {
	case r.State == "provisional":
		p.gap()
		fmt.Fprintln(w, "  "+a.say("receipt.completes", region))
		p.next([2]string{"tandem failover receipt " + r.ID + " --declare-gone", a.say("next.gone")})
	case r.State == "complete" && r.Items > 0:
		p.next([2]string{"tandem failover receipt " + r.ID + " --items", a.say("next.items")})
	case r.State == "complete":
		p.next([2]string{"tandem hub failover " + r.HubName, a.say("next.home")})
	}
}

func (a *app) kinds(kinds map[string]uint64) string {
	var parts []string
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		parts = append(parts, fmt.Sprintf("%d %s", kinds[kind], kind))
	}
	return strings.Join(parts, ", ")
}

// pageLines is how many items are lined up at a time: they are printed as they come, and there may be millions.
const pageLines = 500

// listItems prints the stranded items, oldest first: the server's JSON lines as they are, or a table with their number
// under it.
func (a *app) listItems(ctx context.Context, t *client.Client, id string) error {
	if a.output == "json" {
		return t.Items(ctx, id, func(line []byte, _ client.Item) error {
			_, err := a.out.Write(line)
			return err
		})
	}
	header := func(w io.Writer) {
		row(w, a.say("column.time"), a.say("column.kind"), a.say("column.device"), a.say("column.event"), a.say("column.message"), a.say("column.bytes"))
	}
	var total, bytes uint64
	w := tabwriter.NewWriter(a.out, 0, 8, 2, ' ', 0)
	err := t.Items(ctx, id, func(_ []byte, item client.Item) error {
		if total == 0 {
			header(w)
		}
		event := "-"
		if item.Kind == "telemetry" {
			event = fmt.Sprintf("%d/%d", item.Partition, item.Number)
		}
		row(w, clockMS(item.Time), item.Kind, dash(item.Device), event, dash(item.MessageID), item.Bytes)
		total++
		bytes += uint64(max(item.Bytes, 0))
		if total%pageLines == 0 {
			return w.Flush()
		}
		return nil
	})
	if flushed := w.Flush(); err != nil || flushed != nil {
		return cmp.Or(err, flushed)
	}
	_, err = fmt.Fprintln(a.out, a.items(total)+", "+size(bytes))
	return err
}

func clockMS(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05.000")
}
