package failover

import (
	"fmt"
	"time"

	"tandem"
	"tandem/pairlog"
)

// A Step is what a rule says to do now. The driver does it, learns new facts, and asks again.
type Step interface {
	// Name is the step's fixed short phrase, as operations record it.
	Name() string
	// String is the step with its arguments, for logs and transcripts.
	String() string
}

// The steps.
type (
	// Wait does nothing for a moment.
	Wait struct{ For string }
	// Prepare makes the target's next segment ahead of time.
	Prepare struct{ Epoch tandem.Epoch }
	// Close asks the source to hold writes, flush, and end its epoch. The pause begins.
	Close struct {
		Source tandem.RegionName
		Epoch  tandem.Epoch
	}
	// Reach waits until the target has all of the closed epoch, in the same state.
	Reach struct{ At ClosedAt }
	// Drain asks the source of a forced failover to close within a second, or else to fence itself.
	Drain struct {
		Source tandem.RegionName
		Epoch  tandem.Epoch
		For    time.Duration
	}
	// FenceSource makes it impossible for an incarnation to renew its lease, for ever. Lapsed: its lease was seen lapsed
	// already; otherwise it is fenced first and its lease waited for afterwards.
	FenceSource struct {
		Incarnation tandem.Incarnation
		Lapsed      bool
	}
	// EndCopy ends the target's copy durably, and only then reads where it ends.
	EndCopy struct{ Epoch tandem.Epoch }
	// Claim takes the pen by compare-and-set.
	Claim struct {
		Epoch  tandem.Epoch
		Fork   pairlog.Fork
		Whole  bool               // nothing lies beyond the fork: claimed as open at once
		Fenced tandem.Incarnation // must be fenced when the claim is made
	}
	// Lead opens the hub in this region, under the pen that it has or a newer one of its own.
	Lead struct{}
	// Announce tells the other region where the pen is now. The pause has ended.
	Announce struct{ To tandem.RegionName }
	// GiveUp ends the operation without the move.
	GiveUp struct{ Err *tandem.Error }
	// Done ends the operation: the pen is where it was to go.
	Done struct{}

	// Stay: the region is as it has to be.
	Stay struct{ As Role }
	// Follow another region's pen.
	Follow struct{ Pen pairlog.Pen }
	// Fence stops answering.
	Fence struct{ Why string }
	// Compare asks the peer where its copy ends.
	Compare struct{}
	// Fetch brings back from the peer what this region lost of its own log.
	Fetch struct{ UpTo pairlog.Fork }
	// Reopen goes on under a new epoch at the end of this region's own log.
	Reopen struct {
		Epoch  tandem.Epoch
		Forced bool
	}
	// Refuse: this region must not open; the operator has to decide.
	Refuse struct{ Err *tandem.Error }
)

func (Wait) Name() string        { return "wait" }
func (Prepare) Name() string     { return "prepare" }
func (Close) Name() string       { return "close" }
func (Reach) Name() string       { return "reach" }
func (Drain) Name() string       { return "drain" }
func (FenceSource) Name() string { return "fence" }
func (EndCopy) Name() string     { return "end copy" }
func (Claim) Name() string       { return "claim" }
func (Lead) Name() string        { return "open" }
func (Announce) Name() string    { return "announce" }
func (GiveUp) Name() string      { return "give up" }
func (Done) Name() string        { return "done" }
func (Stay) Name() string        { return "stay" }
func (Follow) Name() string      { return "follow" }
func (Fence) Name() string       { return "stop answering" }
func (Compare) Name() string     { return "compare" }
func (Fetch) Name() string       { return "fetch" }
func (Reopen) Name() string      { return "reopen" }
func (Refuse) Name() string      { return "refuse" }

func (s Wait) String() string    { return "wait: " + s.For }
func (s Prepare) String() string { return fmt.Sprintf("prepare e%d", s.Epoch) }
func (s Close) String() string   { return fmt.Sprintf("close e%d in %s", s.Epoch, s.Source) }
func (s Reach) String() string   { return "reach " + forkString(s.At.Fork) }
func (s Drain) String() string {
	return fmt.Sprintf("drain e%d in %s, at most %v", s.Epoch, s.Source, s.For)
}
func (s FenceSource) String() string {
	if s.Lapsed {
		return "fence " + string(s.Incarnation)
	}
	return "fence " + string(s.Incarnation) + " first, then wait for its lease"
}
func (s EndCopy) String() string { return fmt.Sprintf("end copy of e%d", s.Epoch) }
func (s Claim) String() string {
	text := fmt.Sprintf("claim e%d after %s", s.Epoch, forkString(s.Fork))
	if s.Whole {
		text += ", whole"
	}
	if s.Fenced != "" {
		text += ", " + string(s.Fenced) + " fenced"
	}
	return text
}
func (Lead) String() string       { return "open" }
func (s Announce) String() string { return "announce to " + string(s.To) }
func (s GiveUp) String() string   { return "give up: " + s.Err.Error() }
func (Done) String() string       { return "done" }
func (s Stay) String() string     { return "stay " + string(s.As) }
func (s Follow) String() string   { return fmt.Sprintf("follow %s, e%d", s.Pen.Region, s.Pen.Epoch) }
func (s Fence) String() string    { return "stop answering: " + s.Why }
func (Compare) String() string    { return "compare with the peer's copy" }
func (s Fetch) String() string    { return "fetch up to " + forkString(s.UpTo) }
func (s Reopen) String() string {
	if s.Forced {
		return fmt.Sprintf("reopen as e%d, forced", s.Epoch)
	}
	return fmt.Sprintf("reopen as e%d", s.Epoch)
}
func (s Refuse) String() string { return "refuse: " + s.Err.Error() }

func forkString(f pairlog.Fork) string { return fmt.Sprintf("e%d.%d", f.Epoch, f.Number) }
