package gateway

import (
	"strings"

	"tandem"
)

// ErrUsername is a user name that names no host and device. Kind Unauthorized: to a device it is a refused log-in.
var ErrUsername = &tandem.Error{Op: "read user name", Kind: tandem.Unauthorized,
	Hint: "a user name is host/device[/module]/?api-version=…"}

// maxID is the length of the longest device or module id.
const maxID = 128

// A Username is what a device tells in MQTT's CONNECT (specs/wire-facts.md §3.1).
type Username struct {
	Host       string // as sent, perhaps with a port; see Host
	Device     tandem.DeviceID
	Module     string // empty for a device
	APIVersion string // may be empty: older behaviour
	Agent      string // DeviceClientType, decoded
	ModelID    string
	AuthChain  string
}

// ParseUsername reads every form that clients send: with "?" before the query, without it, without a query, and with
// "/" in place of "&". Ids are taken as they stand, since SDKs do not encode them; query values are decoded.
func ParseUsername(s string) (Username, error) {
	var u Username
	host, rest, _ := strings.Cut(s, "/")
	device, rest, _ := strings.Cut(rest, "/")
	query := ""
	if i := strings.Index(device, "?api-version="); i > 0 { // seen without the slash
		device, query = device[:i], device[i:]
		if rest != "" {
			query += "/" + rest
		}
		rest = ""
	}
	if rest != "" && !isQuery(rest) {
		u.Module, query, _ = strings.Cut(rest, "/")
	} else if rest != "" {
		query = rest
	}
	if host == "" || !validID(device) || u.Module != "" && !validID(u.Module) || len(host) > 255 {
		return Username{}, ErrUsername
	}
	u.Host, u.Device = host, tandem.DeviceID(device)
	u.parseQuery(strings.TrimPrefix(query, "?"))
	return u, nil
}

func isQuery(s string) bool {
	return s[0] == '?' || strings.HasPrefix(s, "api-version=") || strings.HasPrefix(s, "DeviceClientType=")
}

func validID(s string) bool { return s != "" && len(s) <= maxID }

func (u *Username) parseQuery(query string) {
	for query != "" {
		var piece string
		piece, query, _ = strings.Cut(query, "&")
		name, value, _ := strings.Cut(piece, "=")
		if before, after, ok := strings.Cut(value, "/"); ok && name == "api-version" {
			value = before
			query = strings.TrimSuffix(strings.TrimPrefix(after, "?")+"&"+query, "&")
		}
		value, _ = unescape(value)
		switch name {
		case "api-version":
			u.APIVersion = value
		case "DeviceClientType":
			u.Agent = value
		case "model-id":
			u.ModelID = value
		case "auth-chain":
			u.AuthChain = value
		}
	}
}
