package hub

import (
	"tandem"
)

// PenOpened says that this region writes a hub's log from now on.
type PenOpened struct {
	Hub    tandem.HubName
	Region tandem.RegionName
	Epoch  tandem.Epoch
}

// NoticeName implements tandem.Notice.
func (PenOpened) NoticeName() string { return "pen opened" }

// PenPutDown says that this region stopped writing without a CLOSE: it was fenced, or its log failed.
type PenPutDown struct {
	Hub    tandem.HubName
	Region tandem.RegionName
	Epoch  tandem.Epoch
	Err    error
}

// NoticeName implements tandem.Notice.
func (PenPutDown) NoticeName() string { return "pen put down" }
