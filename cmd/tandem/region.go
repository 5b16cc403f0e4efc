package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"tandem/client"
)

func (a *app) region() *cobra.Command {
	return a.group("region", "region", `  tandem region status`, a.regionList(), a.regionStatus())
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
				row(w, display(r.Name), r.Name, a.yesNo(r.Alive), len(r.Hubs), a.lag(r.LagItems, r.LagSeconds), dash(r.Directory))
			}
			a.warnOneMore(w, regions)
		})
	})
}

func (a *app) warnOneMore(w io.Writer, regions []client.Region) {
	for _, r := range regions {
		if r.OneMoreLossStops {
			fmt.Fprintf(w, "\n! %s\n", a.say("region.onemore"))
			return
		}
	}
}

func (a *app) lag(items uint64, behind float64) string {
	return a.items(items) + ", " + seconds(behind)
}

func (a *app) yesNo(b bool) string {
	if b {
		return a.say("yes")
	}
	return a.say("no")
}

func (a *app) regionStatus() *cobra.Command {
	return a.command("region.status", "status [HUB]", cobra.MaximumNArgs(1), examples(
		"tandem region status", a.say("example.regions"),
		"tandem region status hub-1", a.say("example.copies")), func(c *cobra.Command, args []string) error {
		t, err := a.connect()
		if err != nil {
			return err
		}
		if len(args) == 1 {
			sides, raw, err := t.HubStatus(c.Context(), args[0])
			if err != nil {
				return err
			}
			return a.print(raw, func(w io.Writer) { a.copiesPage(w, args[0], sides) })
		}
		regions, raw, err := t.Regions(c.Context())
		if err != nil {
			return err
		}
		return a.print(raw, func(w io.Writer) { a.regionsPage(w, regions) })
	})
}

// regionsPage tells of each region what it has and how it is.
func (a *app) regionsPage(w io.Writer, regions []client.Region) {
	var dark, hub string // a region that is dark with a hub that it holds; else any hub
	for i, r := range regions {
		if i > 0 {
			fmt.Fprintln(w)
		}
		headline := a.say("region.alive", display(r.Name), r.Name)
		if !r.Alive {
			headline = a.say("region.dark", display(r.Name), r.Name)
		}
		p := a.page(w, headline)
		p.line(a.say("label.hubs"), dash(strings.Join(r.Hubs, ", ")))
		p.line(a.say("label.behind"), a.lag(r.LagItems, r.LagSeconds))
		p.line(a.say("label.directory"), r.Directory)
		for _, n := range r.Nodes {
			state := a.say("region.node", n.Address, clock(n.Started))
			if !n.Alive {
				state = a.say("region.nodedark", n.Address)
			}
			p.line(a.say("label.node", n.Name), state)
		}
		switch {
		case len(r.Hubs) > 0 && !r.Alive:
			dark, hub = display(r.Name), r.Hubs[0]
		case len(r.Hubs) > 0 && hub == "":
			hub = r.Hubs[0]
		}
	}
	a.warnOneMore(w, regions)
	if hub == "" {
		return
	}
	next := [][2]string{{"tandem region status " + hub, a.say("next.copies")}}
	if dark != "" {
		next = append(next, [2]string{"tandem hub failover " + hub + " --forced --dry-run", a.say("next.forcedforecast", dark)})
	}
	page{a, w}.next(next...)
}

// copiesPage sets the two copies of a hub side by side.
func (a *app) copiesPage(w io.Writer, hub string, sides []client.Side) {
	p := a.page(w, a.say("copies.headline", hub))
	names := []any{"  "}
	for _, s := range sides {
		names = append(names, strings.ToUpper(display(s.Region)))
	}
	row(w, names...)
	known := func(label string, value func(client.Side) string) {
		cells, any := []any{"  " + label}, false
		for _, s := range sides {
			text := ""
			if s.Known {
				text = value(s)
			}
			any = any || text != ""
			cells = append(cells, dash(text))
		}
		if any {
			row(w, cells...)
		}
	}
	roles := []any{"  " + a.say("label.role")}
	for _, s := range sides {
		role := a.say("role.dark")
		if s.Known {
			role = a.say("role." + s.Role)
		}
		roles = append(roles, role)
	}
	row(w, roles...)
	known(a.say("label.copyend"), func(s client.Side) string { return place(s.End.Epoch, s.End.Number) })
	known(a.say("label.behind"), func(s client.Side) string {
		if s.Role != "follower" {
			return ""
		}
		if !s.LagKnown {
			return a.say("copies.lastheard", a.lag(s.LagItems, s.LagSeconds))
		}
		return a.lag(s.LagItems, s.LagSeconds)
	})
	known(a.say("label.view"), func(s client.Side) string { return place(s.Applied.Epoch, s.Applied.Number) })
	known(a.say("label.peer"), func(s client.Side) string {
		switch {
		case s.Role != "holder":
			return ""
		case !s.PeerKnown:
			return a.say("copies.peerunknown")
		}
		return a.say("copies.peer", s.PeerAcked, ms(s.PeerAckMS))
	})
	known(a.say("label.connections"), func(s client.Side) string { return fmt.Sprint(s.Sessions) })
	known(a.say("label.root"), func(s client.Side) string {
		switch {
		case s.RootDiffers:
			return a.say("copies.differs", s.RootNumber)
		case s.RootNumber == 0:
			return a.say("copies.notyet")
		}
		return a.say("copies.equal", s.RootNumber)
	})
	known(a.say("label.damage"), func(s client.Side) string {
		if s.NeedsReseed && s.Damaged == "" {
			return a.say("copies.reseed")
		}
		return s.Damaged
	})
	a.afterCopies(p, hub, sides)
}

func (a *app) afterCopies(p page, hub string, sides []client.Side) {
	if len(sides) != 2 {
		return
	}
	for i, s := range sides {
		other := sides[1-i]
		switch {
		case s.Role == "holder" && other.Known:
			p.next([2]string{"tandem hub failover " + hub + " --dry-run", a.say("next.forecast", display(other.Region))})
		case s.Known && s.Role != "holder" && !other.Known:
			p.next([2]string{"tandem hub failover " + hub + " --forced --dry-run", a.say("next.forcedforecast", display(other.Region))})
		}
	}
}
