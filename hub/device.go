package hub

import (
	"time"
)

// Status tells whether a device may connect.
type Status string

// The statuses of a device (specs/iothub-service-dataplane-2021-04-12.json, Device.status).
const (
	Enabled  Status = "enabled"
	Disabled Status = "disabled"
)

// AuthType is how a device proves who it is.
type AuthType string

// The authentication types (specs/iothub-service-dataplane-2021-04-12.json, AuthenticationMechanism.type).
const (
	AuthSAS        AuthType = "sas"
	AuthSelfSigned AuthType = "selfSigned"
	AuthCA         AuthType = "certificateAuthority"
	AuthNone       AuthType = "none"
)

// Auth is a device's credentials. Keys are the decoded bytes; thumbprints are hexadecimal.
type Auth struct {
	Type                                   AuthType
	PrimaryKey, SecondaryKey               []byte
	PrimaryThumbprint, SecondaryThumbprint string
}

// A DeviceChange is what a caller may set of an identity. Keys that are empty with Type AuthSAS were filled in at the
// door (randomness does not belong in Decide).
type DeviceChange struct {
	Op           Op // OpDeviceCreate, OpDeviceUpdate, OpDevicePut or OpDeviceDelete within a bulk
	ID           string
	IfMatch      string
	Status       Status
	StatusReason string // ≤ 128 characters
	Auth         Auth
	EdgeCapable  bool
	DeviceScope  string
	ParentScopes []string
}

// A Device is an identity as the view has it. Etag and Generation come from the position of the entry that wrote them,
// never from a counter.
type Device struct {
	ID                string
	Generation        string
	Etag              string
	Status            Status
	StatusReason      string
	StatusUpdated     time.Time // zero: never
	Auth              Auth
	EdgeCapable       bool
	DeviceScope       string
	ParentScopes      []string
	CloudToDevice     int
	ConnectionUpdated time.Time
	LastActivity      time.Time
}
