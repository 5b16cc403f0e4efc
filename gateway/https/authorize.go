package https

import (
	"errors"

	"tandem"
	"tandem/gateway"
	"tandem/hub"
)

// authorize finds the hub and proves that the bearer of the request's token may do what the route does. The hub is the
// one that the token names: behind a gateway host name the Host header is the gateway's (specs/clients.md §1).
func (d *Door) authorize(q *request, route *route) error {
	header := q.Header.Get("Authorization")
	if header == "" {
		return errNoToken
	}
	token, err := gateway.ParseToken(header)
	if err != nil {
		return err
	}
	if q.hub, err = d.options.Hubs.Hub(token.Host); err != nil {
		return err
	}
	if route.stream { // the path names the hub too
		named, err := d.options.Hubs.Hub(q.path[2])
		if err != nil {
			return err
		}
		if named.Resource.ID != q.hub.Resource.ID {
			return gateway.ErrTokenResource
		}
	}
	if token.Expired(d.options.Clock.Now()) {
		return gateway.ErrTokenExpired
	}
	q.expires = token.Expiry
	if token.Policy == "" {
		if route.rights != gateway.DeviceConnect {
			return errNoPolicy
		}
		return d.authorizeDevice(q, &token)
	}
	policy, ok := q.hub.Policy(token.Policy)
	if !ok {
		return gateway.ErrTokenSignature
	}
	if err := policy.Check(&token, q.resource(), route.rights); err != nil {
		return err
	}
	if route.rights == gateway.DeviceConnect {
		_, err = d.enabled(q)
	}
	return err
}

// resource is what the request is about, as tokens name it.
func (q *request) resource() string {
	switch {
	case len(q.path) > 1 && q.path[0] == "devices":
		return gateway.DevicePath(tandem.DeviceID(q.path[1]), "")
	case q.path[0] == "tandem":
		return "messages/events"
	}
	return q.path[0]
}

// authorizeDevice checks a token that is signed with the device's own key. An unknown device is told no more than one
// with a wrong key.
func (d *Door) authorizeDevice(q *request, token *gateway.Token) error {
	device, err := q.hub.Handle.Identity(q.Context(), tandem.DeviceID(q.path[1]))
	switch {
	case same(err, hub.ErrDeviceNotFound):
		return gateway.ErrTokenSignature
	case err != nil:
		return err
	case device.Auth.Type != hub.AuthSAS || !token.SignedBy(device.Auth.PrimaryKey, device.Auth.SecondaryKey):
		return gateway.ErrTokenSignature
	case !token.Covers(q.resource()):
		return gateway.ErrTokenResource
	case device.Status != hub.Enabled:
		return hub.ErrDeviceDisabled
	}
	return nil
}

// enabled returns the device of the path when it may connect.
func (d *Door) enabled(q *request) (hub.Device, error) {
	device, err := q.hub.Handle.Identity(q.Context(), tandem.DeviceID(q.path[1]))
	if err == nil && device.Status != hub.Enabled {
		err = hub.ErrDeviceDisabled
	}
	return device, err
}

// same reports whether err is the condition, perhaps after a journey between nodes, which only its words survive.
func same(err error, condition *tandem.Error) bool {
	if errors.Is(err, condition) {
		return true
	}
	var e *tandem.Error
	return errors.As(err, &e) && e.Kind == condition.Kind && e.Op == condition.Op
}
