package main

import (
	"io"

	"github.com/spf13/cobra"

	"tandem"
)

func (a *app) region() *cobra.Command {
	return a.group("region", "region", a.regionList(), a.regionStatus())
}

func (a *app) regionList() *cobra.Command {
	return a.command("region.list", "list", cobra.NoArgs, `  tandem region list`, func(c *cobra.Command, _ []string) error {
		t, err := a.connect()
		if err != nil {
			return err
		}
		regions, raw, err := t.Regions(c.Context())
		if err != nil {
			return err
		}
		return a.print(raw, func(w io.Writer) {
			row(w, a.say("column.region"), a.say("column.name"), a.say("column.alive"), a.say("column.hubs"), a.say("column.lag"), a.say("column.directory"))
			for _, r := range regions {
				row(w, tandem.RegionName(r.Name).Display(), r.Name, a.yesNo(r.Alive), len(r.Hubs), a.say("region.lag", r.LagItems, r.LagSeconds), dash(r.Directory))
			}
			for _, r := range regions {
				if r.OneMoreLossStops {
					row(w, "! "+a.say("region.onemore"))
					break
				}
			}
		})
	})
}

func (a *app) yesNo(b bool) string {
	if b {
		return a.say("yes")
	}
	return a.say("no")
}

func (a *app) regionStatus() *cobra.Command {
	return a.command("region.status", "status [HUB]", cobra.MaximumNArgs(1), `  tandem region status
  tandem region status hub-1    # both regions' copies of one hub`, func(c *cobra.Command, args []string) error {
		t, err := a.connect()
		if err != nil {
			return err
		}
		if len(args) == 1 {
			raw, err := t.HubStatus(c.Context(), args[0])
			if err != nil {
				return err
			}
			return a.print(raw, func(w io.Writer) { rows(w, raw) })
		}
		_, raw, err := t.Regions(c.Context())
		if err != nil {
			return err
		}
		return a.print(raw, func(w io.Writer) { rows(w, raw) })
	})
}
