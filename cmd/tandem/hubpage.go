package main

import (
	"io"
	"strings"

	"tandem"
	"tandem/client"
)

// hubPage tells where a hub is and how it is set.
func (a *app) hubPage(w io.Writer, h client.Hub) {
	own := h.Properties.Tandem
	here, other := tandem.ParseRegion(h.Location), ""
	for _, l := range h.Properties.Locations {
		if tandem.ParseRegion(l.Location) != here {
			other = tandem.ParseRegion(l.Location).Display()
		}
	}
	p := a.page(w, a.say("hub.headline", h.Name, here.Display()))
	p.line(a.say("label.state"), h.Properties.State)
	p.line(a.say("label.home"), display(own.Home))
	p.line(a.say("label.other"), other)
	p.line(a.say("label.host"), h.Properties.HostName)
	p.line(a.say("label.replication"), a.replication(own.Replication))
	if own.Replication != "async" && len(own.InSync) > 0 {
		names := make([]string, len(own.InSync))
		for i, region := range own.InSync {
			names[i] = display(region)
		}
		p.line(a.say("label.insync"), strings.Join(names, ", "))
	}
	if own.PlatformFailover == "operator" {
		p.line(a.say("label.platform"), a.say("hub.platform.operator"))
	} else {
		p.line(a.say("label.platform"), own.PlatformFailover)
	}
	if own.Epoch > 0 {
		p.line(a.say("label.pen"), a.say("hub.pen", dash(own.PenState), own.Epoch))
	}
	if e, ok := h.Properties.EventHubEndpoints["events"]; ok {
		p.line(a.say("label.events"), a.say("hub.events.kept", e.Partitions, a.count(uint64(e.RetentionDays), "count.days")))
	}
	p.line(a.say("label.group"), h.ResourceGroup)
	p.line(a.say("label.id"), own.ID)
	next := [][2]string{{"tandem region status " + h.Name, a.say("next.copies")}}
	if other != "" {
		next = append(next, [2]string{"tandem hub failover " + h.Name, a.say("next.move", other)})
	}
	p.next(next...)
}

// replication is a mode and what it means.
func (a *app) replication(mode string) string {
	if text, ok := a.words["replication."+mode]; ok {
		return mode + ": " + text
	}
	return mode
}
