package gateway

import (
	"context"
	"time"

	"tandem"
	"tandem/hub"
)

// ErrModule answers a module's log-in: a hub without module identities has none of that name.
var ErrModule = &tandem.Error{Op: "find the module", Kind: tandem.NotFound, Hint: "module identities are not offered yet"}

// ErrNoCredential is a device that sent no token.
var ErrNoCredential = &tandem.Error{Op: "log in", Kind: tandem.Unauthorized,
	Hint: "send a SAS token; X.509 devices are not offered yet"}

// A Login is who wants in, and with what.
type Login struct {
	Host   string // of the hub, as the device wrote it
	Device tandem.DeviceID
	Module string // empty for a device
	Token  string // a SAS token
}

// An Admitted is a device that has proven who it is.
type Admitted struct {
	Hub    Hub
	Device hub.Device
	Policy string    // the policy whose key was used; empty for the device's own
	Until  time.Time // when the token ends
}

// Admit checks a log-in with a SAS token. The device has to exist and be enabled, and the token to be of the same hub,
// good at now, made for the device or a prefix of it, with one of the device's keys or with a policy that grants
// DeviceConnect. A refusal that rests on this region's copy is asked of the holder before it counts: the device may
// have been created, or its key rolled, a moment ago.
//
// Errors of a retriable kind mean that it could not be told; every other is a refusal.
func Admit(ctx context.Context, hubs Hubs, login Login, now time.Time) (Admitted, error) {
	none := Admitted{}
	if login.Token == "" {
		return none, ErrNoCredential
	}
	token, err := ParseToken(login.Token)
	if err != nil {
		return none, err
	}
	if token.Expired(now) {
		return none, ErrTokenExpired
	}
	h, err := hubs.Hub(Host(login.Host))
	if err != nil {
		return none, err
	}
	if err := sameHub(hubs, h, &token, Host(login.Host)); err != nil {
		return none, err
	}
	path := DevicePath(login.Device, login.Module)
	if !token.Covers(path) {
		return none, ErrTokenResource
	}
	if token.Policy != "" {
		policy, ok := h.Policy(token.Policy)
		if !ok {
			return none, ErrTokenSignature
		}
		if err := policy.Check(&token, path, DeviceConnect); err != nil {
			return none, err
		}
	}
	if login.Module != "" {
		return none, ErrModule
	}
	device, err := h.Handle.Identity(ctx, login.Device)
	if err != nil {
		return none, err
	}
	if checkDevice(&device, &token) != nil {
		if device, err = h.Handle.Device(ctx, login.Device); err != nil {
			return none, err
		}
		if err := checkDevice(&device, &token); err != nil {
			return none, err
		}
	}
	return Admitted{Hub: h, Device: device, Policy: token.Policy, Until: token.Expiry}, nil
}

// sameHub returns nil when the token was made for h, under whichever of its names.
func sameHub(hubs Hubs, h Hub, token *Token, host string) error {
	if token.Host == host {
		return nil
	}
	named, err := hubs.Hub(token.Host)
	switch {
	case err == nil && named.Resource.ID == h.Resource.ID:
		return nil
	case err == nil || tandem.KindOf(err) == tandem.NotFound:
		return ErrTokenResource
	}
	return err
}

// checkDevice reports why a device may not come in with a token that covers it; policies were checked before.
func checkDevice(d *hub.Device, token *Token) error {
	if token.Policy == "" && (d.Auth.Type != hub.AuthSAS || !token.SignedBy(d.Auth.PrimaryKey, d.Auth.SecondaryKey)) {
		return ErrTokenSignature
	}
	if d.Status != hub.Enabled {
		return hub.ErrDeviceDisabled
	}
	return nil
}
