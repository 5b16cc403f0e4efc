package tandem

// A Notice is something that happened, as a typed value (PenMoved, FollowerLagging, StepDone). Logs, metrics and live
// pages are three listeners of one stream of notices.
type Notice interface {
	// NoticeName is the fixed short phrase that logs print ("pen moved").
	NoticeName() string
}

// A Notify takes notices. It must not block; nil means nobody listens.
type Notify func(Notice)

// Send delivers n if anybody listens.
func (f Notify) Send(n Notice) {
	if f != nil {
		f(n)
	}
}
