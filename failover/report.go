package failover

import (
	"encoding/json"
	"time"

	"tandem"
	"tandem/operation"
	"tandem/pairlog"
)

// A Report is what an operation did, with its times. It is kept in operation.Operation.Report. All times are of the
// driver's clock, in milliseconds.
type Report struct {
	Kind  operation.Kind    `json:"kind"`
	Hub   tandem.HubName    `json:"hub"`
	From  tandem.RegionName `json:"from"`
	To    tandem.RegionName `json:"to"`
	Epoch tandem.Epoch      `json:"epoch"` // of the pen afterwards
	Fork  pairlog.Fork      `json:"fork"`
	// Pause is from the request to close to the first write that the new holder could take; 0 when this driver did not
	// see both (a forced one of a dead source, or its driver was lost).
	Pause float64 `json:"pause_ms,omitempty"`
	// Switch is from the driver's beginning to the same moment.
	Switch float64 `json:"switch_ms,omitempty"`
	// Total is from the request.
	Total float64     `json:"total_ms"`
	Steps []StepTimes `json:"steps"`
	// Lossless is true when the target had everything that was acknowledged.
	Lossless bool  `json:"lossless"`
	Lost     *Lost `json:"lost,omitempty"`
	// Connections is how many device connections the source's doors had; a planned move leaves them open.
	Connections int    `json:"connections"`
	Note        string `json:"note,omitempty"`
}

// StepTimes is how long one step took.
type StepTimes struct {
	Name    string           `json:"name"`
	Status  operation.Status `json:"status"`
	Took    float64          `json:"ms"`
	Details string           `json:"details,omitempty"`
}

// Lost sums up what a forced failover may have stranded, as far as it is known when the report is written.
type Lost struct {
	Receipt string       `json:"receipt"` // id
	State   ReceiptState `json:"state"`
	AtRisk  uint64       `json:"items_at_risk"` // heard of and not copied
	Bytes   uint64       `json:"bytes_at_risk"`
	Seconds float64      `json:"seconds_at_risk"`
}

// ReportOf reads an operation's report; false when it has none yet.
func ReportOf(o operation.Operation) (Report, bool) {
	var r Report
	if len(o.Report) == 0 || json.Unmarshal(o.Report, &r) != nil {
		return Report{}, false
	}
	return r, true
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func stepTimes(steps []operation.Step, now time.Time) []StepTimes {
	times := make([]StepTimes, 0, len(steps))
	for _, s := range steps {
		times = append(times, StepTimes{Name: s.Name, Status: s.Status, Took: milliseconds(s.Took(now)), Details: s.Details})
	}
	return times
}
