package https

import (
	"encoding/base64"
	"encoding/hex"
	"io"
	"strings"
	"time"

	"tandem"
	"tandem/hub"
)

// The bodies of the identity registry (specs/iothub-service-dataplane-2021-04-12.json, Device and ExportImportDevice).
type (
	deviceBody struct {
		DeviceID                   string       `json:"deviceId"`
		GenerationID               string       `json:"generationId"`
		Etag                       string       `json:"etag"`
		ConnectionState            string       `json:"connectionState"`
		Status                     string       `json:"status"`
		StatusReason               *string      `json:"statusReason"`
		ConnectionStateUpdatedTime string       `json:"connectionStateUpdatedTime"`
		StatusUpdatedTime          string       `json:"statusUpdatedTime"`
		LastActivityTime           string       `json:"lastActivityTime"`
		CloudToDeviceMessageCount  int          `json:"cloudToDeviceMessageCount"`
		Authentication             *authBody    `json:"authentication"`
		Capabilities               capabilities `json:"capabilities"`
		DeviceScope                string       `json:"deviceScope,omitempty"`
		ParentScopes               []string     `json:"parentScopes,omitempty"`
	}
	authBody struct {
		SymmetricKey   *keyPair     `json:"symmetricKey"`
		X509Thumbprint *thumbprints `json:"x509Thumbprint"`
		Type           string       `json:"type"`
	}
	keyPair struct {
		PrimaryKey   *string `json:"primaryKey"`
		SecondaryKey *string `json:"secondaryKey"`
	}
	thumbprints struct {
		PrimaryThumbprint   *string `json:"primaryThumbprint"`
		SecondaryThumbprint *string `json:"secondaryThumbprint"`
	}
	capabilities struct {
		IotEdge bool `json:"iotEdge"`
	}
)

// newDeviceBody is the device as clients read it. Connections are not part of the registry: the state is always
// Disconnected, as for a device that was never seen.
func newDeviceBody(d *hub.Device) deviceBody {
	auth := &authBody{SymmetricKey: &keyPair{}, Type: string(d.Auth.Type)}
	if d.Auth.Type == hub.AuthSAS {
		auth.SymmetricKey = &keyPair{PrimaryKey: keyText(d.Auth.PrimaryKey), SecondaryKey: keyText(d.Auth.SecondaryKey)}
	}
	auth.X509Thumbprint = &thumbprints{optional(d.Auth.PrimaryThumbprint), optional(d.Auth.SecondaryThumbprint)}
	return deviceBody{
		DeviceID: d.ID, GenerationID: d.Generation, Etag: d.Etag, ConnectionState: "Disconnected", Status: string(d.Status),
		StatusReason: optional(d.StatusReason), ConnectionStateUpdatedTime: timeText(d.ConnectionUpdated),
		StatusUpdatedTime: timeText(d.StatusUpdated), LastActivityTime: timeText(d.LastActivity),
		CloudToDeviceMessageCount: d.CloudToDevice, Authentication: auth, Capabilities: capabilities{d.EdgeCapable},
		DeviceScope: d.DeviceScope, ParentScopes: d.ParentScopes,
	}
}

func keyText(key []byte) *string { return optional(base64.StdEncoding.EncodeToString(key)) }

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// timeText is ISO 8601 as the registry writes it; never is year 1 without a zone (specs/wire-facts.md §5).
func timeText(t time.Time) string {
	if t.IsZero() {
		return "0001-01-01T00:00:00"
	}
	return t.UTC().Format("2006-01-02T15:04:05.0000000Z")
}

// change is what a body asks for. hasAuth is false when it says nothing about credentials.
func (b *deviceBody) change() (c hub.DeviceChange, hasAuth bool, err error) {
	c = hub.DeviceChange{ID: b.DeviceID, DeviceScope: b.DeviceScope, ParentScopes: b.ParentScopes, EdgeCapable: b.Capabilities.IotEdge}
	switch strings.ToLower(b.Status) {
	case "", "enabled":
		c.Status = hub.Enabled
	case "disabled":
		c.Status = hub.Disabled
	default:
		return c, false, invalid("a device's status is enabled or disabled")
	}
	if b.StatusReason != nil {
		c.StatusReason = *b.StatusReason
	}
	if c.Auth, err = b.Authentication.auth(); err != nil {
		return c, false, err
	}
	return c, b.Authentication != nil, c.Check()
}

// auth reads credentials; keys that were left empty stay so, for fillKeys.
func (a *authBody) auth() (hub.Auth, error) {
	auth := hub.Auth{Type: hub.AuthSAS}
	if a == nil {
		return auth, nil
	}
	if t := a.X509Thumbprint; t != nil {
		for i, text := range []*string{t.PrimaryThumbprint, t.SecondaryThumbprint} {
			if text == nil || *text == "" {
				continue
			}
			if b, err := hex.DecodeString(*text); err != nil || len(b) != 20 && len(b) != 32 {
				return auth, invalid("a thumbprint is a SHA-1 or SHA-256 in hexadecimal")
			}
			*[]*string{&auth.PrimaryThumbprint, &auth.SecondaryThumbprint}[i] = strings.ToUpper(*text)
		}
	}
	switch strings.ToLower(a.Type) {
	case "sas":
		auth.PrimaryThumbprint, auth.SecondaryThumbprint = "", ""
	case "":
		if auth.PrimaryThumbprint+auth.SecondaryThumbprint != "" {
			auth.Type = hub.AuthSelfSigned
		}
	case "selfsigned":
		auth.Type = hub.AuthSelfSigned
	case "certificateauthority":
		auth.Type = hub.AuthCA
	case "none":
		auth.Type = hub.AuthNone
	default:
		return auth, invalid("authentication.type is sas, selfSigned, certificateAuthority or none")
	}
	if auth.Type == hub.AuthSelfSigned && auth.PrimaryThumbprint == "" {
		return auth, invalid("a self-signed device needs a primary thumbprint")
	}
	if auth.Type != hub.AuthSAS || a.SymmetricKey == nil {
		return auth, nil
	}
	for i, text := range []*string{a.SymmetricKey.PrimaryKey, a.SymmetricKey.SecondaryKey} {
		if text == nil || *text == "" {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(*text)
		if err != nil || len(key) < 16 || len(key) > 64 {
			return auth, invalid("a device's key is base64 of 16 to 64 bytes")
		}
		*[]*[]byte{&auth.PrimaryKey, &auth.SecondaryKey}[i] = key
	}
	if (auth.PrimaryKey == nil) != (auth.SecondaryKey == nil) {
		return auth, invalid("give both keys, or neither to have them made")
	}
	return auth, nil
}

// fillKeys makes the keys that a device with SAS lacks.
func fillKeys(auth *hub.Auth, random io.Reader) error {
	if auth.Type != hub.AuthSAS || auth.PrimaryKey != nil {
		return nil
	}
	keys := make([]byte, 64)
	if _, err := io.ReadFull(random, keys); err != nil {
		return &tandem.Error{Op: "make a key", Kind: tandem.Internal, Err: err}
	}
	auth.PrimaryKey, auth.SecondaryKey = keys[:32:32], keys[32:]
	return nil
}
