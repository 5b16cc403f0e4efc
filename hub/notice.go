package hub

import (
	"time"

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

// PeerLeftBehind says that a hub's log is trimmed past what the peer region has: it needs a reseed when it comes back.
type PeerLeftBehind struct {
	Hub          tandem.HubName
	Region, Peer tandem.RegionName
	Number       uint64 // of the last record that goes
}

// NoticeName implements tandem.Notice.
func (PeerLeftBehind) NoticeName() string { return "peer needs a reseed" }

// Reseeded says that this region took a hub's state over from its peer.
type Reseeded struct {
	Hub    tandem.HubName
	Region tandem.RegionName
	Number uint64 // of the record that the state belongs to
	Took   time.Duration
}

// NoticeName implements tandem.Notice.
func (Reseeded) NoticeName() string { return "reseeded" }
