package failover

import (
	"time"

	"tandem"
	"tandem/operation"
)

// PenMoved: this region has seen a new pen of a hub, or made one. DNS and the concierge follow the same key.
type PenMoved struct {
	Hub      tandem.HubID
	Name     tandem.HubName
	From, To tandem.RegionName // From is empty when it was not known here
	Epoch    tandem.Epoch
	Forced   bool
}

// NoticeName is "pen moved".
func (PenMoved) NoticeName() string { return "pen moved" }

// StepDone: a step of an operation began or ended; Step.Status tells. It comes from the region that drives.
type StepDone struct {
	Hub       tandem.HubID
	Name      tandem.HubName
	Operation string
	Step      operation.Step
}

// NoticeName is "step".
func (StepDone) NoticeName() string { return "step" }

// OperationEnded: an operation that this region drove has ended.
type OperationEnded struct {
	Operation operation.Operation
	Pause     time.Duration // how long the hub took no writes; 0 when it is not known
}

// NoticeName is "operation ended".
func (OperationEnded) NoticeName() string { return "operation ended" }

// NeedsDecision: a hub can't be opened here and nothing will happen by itself.
type NeedsDecision struct {
	Hub  tandem.HubID
	Name tandem.HubName
	Err  error
}

// NoticeName is "needs decision".
func (NeedsDecision) NoticeName() string { return "needs decision" }

// ReceiptWritten: what a forced failover stranded is known, or known better.
type ReceiptWritten struct{ Receipt Receipt }

// NoticeName is "loss receipt written".
func (ReceiptWritten) NoticeName() string { return "loss receipt written" }
