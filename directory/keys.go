package directory

import "tandem"

// The spelling of every key is here and nowhere else. A function whose name ends in Prefix returns what List and Watch take.

// PenKey holds a hub's pen: who may append, under which epoch.
func PenKey(hub tandem.HubID) string { return "pen/" + string(hub) }

// PenPrefix covers the pens of all hubs.
func PenPrefix() string { return "pen/" }

// InSyncKey holds the regions whose copy of a hub's log has every acknowledged write.
func InSyncKey(hub tandem.HubID) string { return "insync/" + string(hub) }

// InSyncPrefix covers the in-sync sets of all hubs.
func InSyncPrefix() string { return "insync/" }

// LeaseKey holds the lease of one node incarnation; see Lease.
func LeaseKey(incarnation tandem.Incarnation) string { return "lease/" + string(incarnation) }

// LeasePrefix covers all leases.
func LeasePrefix() string { return "lease/" }

// FenceKey exists once an incarnation is fenced; see Fence.
func FenceKey(incarnation tandem.Incarnation) string { return "fence/" + string(incarnation) }

// FencePrefix covers all fences.
func FencePrefix() string { return "fence/" }

// FollowerKey names the one writer of a region's copy of a hub's log.
func FollowerKey(hub tandem.HubID, region tandem.RegionName) string {
	return FollowerPrefix(hub) + string(region)
}

// FollowerPrefix covers the writers of all copies of one hub's log.
func FollowerPrefix(hub tandem.HubID) string { return "follower/" + string(hub) + "/" }

// HubKey holds the resource with this name; the name's case does not matter.
func HubKey(name tandem.HubName) string { return "hub/" + string(name.Key()) }

// HubPrefix covers all hubs.
func HubPrefix() string { return "hub/" }

// OperationKey holds one operation by its id.
func OperationKey(id string) string { return "op/" + id }

// OperationPrefix covers all operations.
func OperationPrefix() string { return "op/" }

// HubOperationKey holds the id of the one operation that is moving a hub; absent when none is.
func HubOperationKey(hub tandem.HubID) string { return "hubop/" + string(hub) }

// RevokedKey holds the revocation of one device: what a new holder applies before it opens.
func RevokedKey(hub tandem.HubID, device tandem.DeviceID) string {
	return RevokedPrefix(hub) + string(device)
}

// RevokedPrefix covers the revocations of one hub.
func RevokedPrefix(hub tandem.HubID) string { return "revoked/" + string(hub) + "/" }

// RegionKey holds what one node of a region says of itself: its addresses and its present incarnation.
func RegionKey(region tandem.RegionName, node tandem.NodeName) string {
	return RegionPrefix(region) + string(node)
}

// RegionPrefix covers the nodes of one region.
func RegionPrefix(region tandem.RegionName) string { return "region/" + string(region) + "/" }

// RegionsPrefix covers the nodes of all regions.
func RegionsPrefix() string { return "region/" }

// ReceiptKey holds the summary of what a forced failover stranded; the items are listed from the tail itself.
func ReceiptKey(hub tandem.HubID, id string) string { return ReceiptPrefix(hub) + id }

// ReceiptPrefix covers the receipts of one hub.
func ReceiptPrefix(hub tandem.HubID) string { return "receipt/" + string(hub) + "/" }
