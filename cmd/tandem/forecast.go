package main

import (
	"io"

	"tandem/client"
)

// forecastPage tells what a move would cost now; next adds the commands to go on with.
func (a *app) forecastPage(w io.Writer, f client.Forecast, next bool) {
	headline := a.say("forecast.planned", f.Hub, display(f.From), display(f.To))
	if f.Forced {
		headline = a.say("forecast.forced", f.Hub, display(f.From), display(f.To))
	}
	p := a.page(w, headline)
	if !f.Ready {
		p.line(a.say("forecast.notnow"), withoutHint(f.Reason, f.Hint))
	}
	basis := a.say("forecast.design")
	if f.Measured > 0 {
		basis = a.count(uint64(f.Measured), "forecast.measured")
	}
	p.line(a.say("label.pause"), a.say("forecast.pause", ms(f.Switch), basis))
	if f.Recover > f.Switch {
		p.line(a.say("forecast.recover"), ms(f.Recover))
	}
	p.line(a.say("label.atrisk"), a.atRisk(f))
	switch {
	case f.Connections > 0 && f.Forced:
		p.line(a.say("label.connections"), a.say("connections.again", f.Connections))
	case f.Connections > 0:
		p.line(a.say("label.connections"), a.say("connections.open", f.Connections))
	}
	p.line(a.say("label.replication"), a.replication(f.Replication))
	if f.Replication != "async" {
		p.line(a.say("label.insync"), a.yesNo(f.InSync))
	}
	if next {
		p.next(a.afterForecast(f)...)
	}
}

func (a *app) atRisk(f client.Forecast) string {
	switch {
	case !f.Forced:
		return a.say("lost.nothing")
	case f.Replication != "async" && f.InSync:
		return a.say("lost.insync")
	case !f.Known:
		return a.say("risk.unknown", a.items(f.Items), size(f.Bytes), seconds(f.Seconds))
	}
	return a.say("risk.now", a.items(f.Items), size(f.Bytes), seconds(f.Seconds))
}

func (a *app) afterForecast(f client.Forecast) [][2]string {
	switch {
	case f.Ready && f.Forced:
		return [][2]string{{"tandem hub failover " + f.Hub + " --forced", a.say("next.force", display(f.To))}}
	case f.Ready:
		return [][2]string{{"tandem hub failover " + f.Hub, a.say("next.move", display(f.To))}}
	case !f.Forced:
		return [][2]string{
			{"tandem hub failover " + f.Hub + " --forced --dry-run", a.say("next.forcedforecast", display(f.From))},
			{"tandem region status " + f.Hub, a.say("next.copies")},
		}
	}
	return [][2]string{{"tandem region status " + f.Hub, a.say("next.copies")}}
}
