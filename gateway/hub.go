package gateway

import (
	"tandem/catalog"
	"tandem/hub"
)

// A Hub is what a door needs of a hub: its resource, with names and keys, and the way in.
type Hub struct {
	Resource catalog.Hub
	Handle   hub.Handle
}

// Hubs finds the hub that a client names by its host (see catalog.Catalog.Hub). Errors are catalog.ErrHubNotFound, or of
// kind Unavailable while this node cannot say or has not opened the hub yet: retriable.
type Hubs interface {
	Hub(host string) (Hub, error)
}

// Policy returns the hub's shared access policy of that name with its keys decoded, as Token.SignedBy takes them on the
// hub's own host. Ok is false when there is none.
func (h Hub) Policy(name string) (p Policy, ok bool) {
	stored, ok := h.Resource.Policy(name)
	if !ok {
		return Policy{}, false
	}
	rights, err := ParseRights(stored.Rights)
	if err != nil {
		return Policy{}, false
	}
	p = Policy{Name: stored.Name, Rights: rights}
	for i, text := range []string{stored.Primary, stored.Secondary} {
		if key, err := DecodeKey(text); err == nil {
			p.Keys[i] = key
		}
	}
	return p, true
}
