package failover

import (
	"tandem"
	"tandem/operation"
)

// Failback brings a hub home: a planned failover in the other direction, by the same rule. Nothing is resynced, since
// the home region has followed since it came back.
func Failback(hub Hub, epoch tandem.Epoch) Planned {
	return Planned{Hub: hub.Name, From: hub.Peer, To: hub.Home, Epoch: epoch}
}

// plannedKind is what a planned move to a region is called.
func plannedKind(to, home tandem.RegionName) operation.Kind {
	if to == home {
		return operation.Failback
	}
	return operation.Failover
}
