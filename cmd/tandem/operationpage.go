package main

import (
	"io"
	"strconv"

	"tandem/client"
)

// operationPage tells what a move did, what it cost first; steps adds the table of them.
func (a *app) operationPage(w io.Writer, o client.Operation, steps bool) {
	report, reported := o.ReadReport()
	from, to := display(o.From), display(o.To)
	headline := a.say("operation.running", dash(o.HubName), from, to)
	switch {
	case o.Failed():
		headline = a.say("operation.failed", dash(o.HubName), from, to)
	case !o.Running():
		headline = a.say("operation.moved", dash(o.HubName), from, to)
	}
	p := a.page(w, headline)
	if reported {
		a.costLines(p, o, report)
	}
	if o.Error != nil {
		p.line(a.say("label.error"), withoutHint(o.Error.Message, o.Error.Hint))
	}
	p.line(a.say("label.kind"), o.Kind)
	p.line(a.say("label.status"), o.Status)
	p.line(a.say("label.began"), clock(o.Started))
	if !o.Running() {
		p.line(a.say("label.took"), took(o.Started, o.Ended))
	}
	if reported && report.Epoch > 0 {
		p.line(a.say("label.pen"), a.say("operation.pen", report.Epoch, place(report.Fork.Epoch, report.Fork.Number)))
		p.line(a.say("label.note"), report.Note)
	}
	p.line(a.say("label.operation"), o.ID)
	if steps && len(o.Steps) > 0 {
		p.gap()
		row(w, "  "+a.say("column.step"), a.say("column.ms"), a.say("column.status"), a.say("column.details"))
		for _, s := range o.Steps {
			ms := "-"
			if !s.End.IsZero() {
				ms = strconv.FormatFloat(float64(s.End.Sub(s.Start).Microseconds())/1000, 'f', 1, 64)
			}
			row(w, "  "+s.Name, ms, s.Status, s.Details)
		}
	}
	if !steps || // it has just been asked for
		o.Running() || o.Failed() || report.Lost != nil {
		p.next(a.afterOperation(o, report)...)
	}
}

// costLines are the pause and the loss.
func (a *app) costLines(p page, o client.Operation, r client.Report) {
	switch {
	case r.Pause > 0:
		p.line(a.say("label.pause"), a.say("operation.pause", ms(r.Pause)))
	case r.Switch > 0:
		p.line(a.say("label.pause"), a.say("operation.switch", ms(r.Switch)))
	}
	switch {
	case o.Failed():
	case r.Lost == nil && r.Lossless:
		p.line(a.say("label.lost"), a.say("lost.nothing"))
	case r.Lossless:
		p.line(a.say("label.lost"), a.say("lost.insync"))
	case r.Lost != nil && r.Lost.Items > 0:
		p.line(a.say("label.lost"), a.say("lost.heard", a.items(r.Lost.Items), size(r.Lost.Bytes), seconds(r.Lost.Seconds)))
	case r.Lost != nil:
		p.line(a.say("label.lost"), a.say("lost.open", seconds(r.Lost.Seconds)))
	}
	if r.Connections > 0 {
		text := a.say("connections.open", r.Connections)
		if r.Lost != nil {
			text = a.say("connections.again", r.Connections)
		}
		p.line(a.say("label.connections"), text)
	}
}

func (a *app) afterOperation(o client.Operation, r client.Report) (next [][2]string) {
	add := func(command, what string) { next = append(next, [2]string{command, what}) }
	switch {
	case o.Running():
		add("tandem failover show "+o.ID+" --follow", a.say("next.follow"))
	case o.Failed():
		add("tandem region status "+o.HubName, a.say("next.copies"))
	case r.Lost != nil:
		add("tandem failover receipt "+r.Lost.Receipt, a.say("next.receipt"))
	default:
		add("tandem hub failover "+o.HubName, a.say("next.back", display(o.From)))
	}
	return next
}
