package region

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strconv"
	"time"

	"tandem"
	"tandem/arm"
	"tandem/directory"
	"tandem/failover"
	"tandem/pairlog"
)

// moves is what the management door asks about moving hubs: this node's controller and what lies in the directory.
type moves struct {
	*failover.Controller
	n *node
}

func (n *node) management() (*http.Server, error) {
	m := moves{n.failover, n}
	return arm.New(arm.Options{
		Catalog: n.catalog, Directory: n.directory, Hubs: n.replicas, Failover: n.failover, Regions: m, Clock: n.clock, Logger: n.logger,
		NoLimits: n.c.FailoverLimits == "off",
	}).Server(), nil
}

// Regions implements arm.Regions: as this node sees them.
func (m moves) Regions(ctx context.Context) ([]arm.Region, error) {
	items, _, err := m.n.directory.List(ctx, directory.RegionsPrefix())
	state := "ok"
	if err != nil {
		state = "no majority"
	}
	at := map[tandem.RegionName]*arm.Region{}
	var regions []*arm.Region
	for _, name := range m.n.catalog.Regions() {
		r := &arm.Region{Name: name, Display: name.Display(), Self: name == m.n.c.Region, Directory: state, Nodes: []arm.Node{}, Hubs: []tandem.HubName{}}
		r.Alive = r.Self || m.n.engine.Link().Up()
		r.OneMoreLossStops = !m.n.engine.Link().Up()
		at[name] = r
		regions = append(regions, r)
	}
	for _, item := range items {
		var site Site
		if json.Unmarshal(item.Value, &site) == nil && at[site.Region] != nil {
			r := at[site.Region]
			r.Nodes = append(r.Nodes, arm.Node{
				Name: site.Node, Address: net.JoinHostPort(site.Listen, strconv.Itoa(site.Ports.ARM)), Started: site.Started, Alive: r.Alive,
			})
		}
	}
	if err := m.fill(ctx, at); err != nil && state == "ok" {
		return nil, err
	}
	out := make([]arm.Region, 0, len(regions))
	for _, r := range regions {
		out = append(out, *r)
	}
	return out, nil
}

// fill adds which hubs run where, and the lag of each region's copies.
func (m moves) fill(ctx context.Context, at map[tandem.RegionName]*arm.Region) error {
	for _, h := range m.n.catalog.Hubs() {
		holder := h.Home
		pen, _, err := pairlog.ReadPen(ctx, m.n.directory, h.ID)
		switch {
		case err == nil:
			holder = pen.Region
		case !errors.Is(err, pairlog.ErrNoPen):
			return err
		}
		if r := at[holder]; r != nil {
			r.Hubs = append(r.Hubs, h.Name)
		}
		sides, err := m.Status(ctx, h.ID)
		if err != nil {
			return err
		}
		for name, side := range sides {
			if r := at[name]; r != nil && side.Known && name != holder {
				r.LagItems += side.Facts.Lag.Items
				r.LagSeconds = max(r.LagSeconds, side.Facts.Lag.Age.Round(time.Millisecond).Seconds())
			}
		}
	}
	return nil
}
