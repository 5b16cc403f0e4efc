package failover

import (
	"slices"
	"time"

	"tandem"
	"tandem/operation"
	"tandem/pairlog"
)

// A Forecast is what a failover would cost now.
type Forecast struct {
	Hub    tandem.HubName    `json:"hub"`
	From   tandem.RegionName `json:"from"`
	To     tandem.RegionName `json:"to"`
	Forced bool              `json:"forced"`
	// Ready is false when Check would refuse; Reason and Hint say why.
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty"`
	Hint   string `json:"hint,omitempty"`
	// What a forced failover could strand now; zero for a planned one. Known is false when the source has not been heard
	// of for 3 s: then the figures are the last ones, and more is possible.
	Items   uint64  `json:"items_at_risk"`
	Bytes   uint64  `json:"bytes_at_risk"`
	Seconds float64 `json:"seconds_at_risk"`
	Known   bool    `json:"known"`
	// Switch is how long the hub is expected to take no writes, in milliseconds; Measured of how many earlier moves of the
	// same sort it is the median (0: the design's figure).
	Switch   float64 `json:"switch_ms"`
	Measured int     `json:"measured"`
	// Recover is Switch plus the time until clients that were cut off know the new address, in milliseconds.
	Recover float64 `json:"time_to_recover_ms"`
	// Connections that the source's doors have now: they stay open in a planned move, and have to reconnect otherwise.
	Connections int          `json:"connections"`
	InSync      bool         `json:"in_sync"`
	Mode        pairlog.Mode `json:"replication"`
}

// ForecastFacts is what NewForecast looks at.
type ForecastFacts struct {
	Start          StartFacts
	Source, Target Side
	LeaseLeft      time.Duration         // until the holder's lease counts as lapsed, when it lapses from now on
	DNS            time.Duration         // how long an address may be cached
	History        []operation.Operation // of the hub, newest first
}

// The expected pauses where nothing was measured yet (design §10).
const (
	expectedPlanned = 25 * time.Millisecond
	expectedForced  = 500 * time.Millisecond
	forecastHistory = 10
)

// NewForecast works a forecast out.
func NewForecast(r Request, f ForecastFacts) Forecast {
	r, kind, err := Check(r, f.Start)
	out := Forecast{Hub: f.Start.Hub.Name, From: f.Start.Pen.Region, To: r.To, Forced: r.Forced, Ready: err == nil,
		Connections: f.Source.Facts.Sessions, InSync: f.Start.InSync, Mode: f.Start.Hub.Mode}
	if out.Mode == "" {
		out.Mode = pairlog.Async
	}
	if err != nil {
		out.Reason, out.Hint = err.Error(), tandem.HintOf(err)
	} else if why := unfit(r.To, f.Target.Facts); !f.Target.Known || why != "" {
		out.Ready, out.Reason = false, why
		if !f.Target.Known {
			out.Reason = r.To.Display() + " does not answer"
		}
	}
	lag := f.Target.Facts.Lag
	out.Known = f.Target.Known && lag.Known
	if r.Forced {
		out.Items, out.Bytes, out.Seconds = lag.Items, lag.Bytes, lag.Age.Seconds()
	}
	if r.Forced && synchronous(f.Start.Hub.Mode) && f.Start.InSync {
		out.Items, out.Bytes, out.Seconds = 0, 0, 0
	}
	expected, measured := expectedSwitch(kind, f.History)
	if r.Forced && !f.Start.Reached && !f.Start.Lapsed {
		expected += f.LeaseLeft
	}
	out.Switch, out.Measured = milliseconds(expected), measured
	out.Recover = out.Switch
	if r.Forced {
		out.Recover += milliseconds(f.DNS)
	}
	return out
}

// expectedSwitch is the median pause of the last moves of the same sort.
func expectedSwitch(kind operation.Kind, history []operation.Operation) (time.Duration, int) {
	forced := kind == operation.Forced
	var pauses []float64
	for _, o := range history {
		r, ok := ReportOf(o)
		if !ok || o.Status != operation.Succeeded || (o.Kind == operation.Forced) != forced {
			continue
		}
		pause := r.Pause
		if forced {
			pause = r.Switch
		}
		if pause > 0 {
			pauses = append(pauses, pause)
		}
		if len(pauses) == forecastHistory {
			break
		}
	}
	switch {
	case len(pauses) > 0:
		slices.Sort(pauses)
		return time.Duration(pauses[len(pauses)/2] * float64(time.Millisecond)), len(pauses)
	case forced:
		return expectedForced, 0
	}
	return expectedPlanned, 0
}
