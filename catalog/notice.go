package catalog

// HubAppeared is sent when this node learns of a hub: at the start for each one, later when one is created.
type HubAppeared struct{ Hub Hub }

// HubChanged is sent when a hub's resource changed: settings, policies, keys, tags.
type HubChanged struct{ Old, Hub Hub }

// HubGone is sent when a hub was deleted.
type HubGone struct{ Hub Hub }

// NoticeName is tandem.Notice.
func (HubAppeared) NoticeName() string { return "hub appeared" }

// NoticeName is tandem.Notice.
func (HubChanged) NoticeName() string { return "hub changed" }

// NoticeName is tandem.Notice.
func (HubGone) NoticeName() string { return "hub gone" }
