package https

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"

	"tandem"
	"tandem/hub"
)

// maxBulkDevices is how many devices one call may change (Azure: 100).
const maxBulkDevices = 100

// A bulkDevice is one line of POST /devices.
type bulkDevice struct {
	ID             string          `json:"id"`
	ModuleID       string          `json:"moduleId"`
	Etag           string          `json:"eTag"`
	ImportMode     string          `json:"importMode"`
	Status         string          `json:"status"`
	StatusReason   *string         `json:"statusReason"`
	Authentication *authBody       `json:"authentication"`
	Tags           json.RawMessage `json:"tags"`
	Properties     json.RawMessage `json:"properties"`
	Capabilities   *capabilities   `json:"capabilities"`
	DeviceScope    string          `json:"deviceScope"`
	ParentScopes   []string        `json:"parentScopes"`
}

type bulkResult struct {
	IsSuccessful bool        `json:"isSuccessful"`
	Errors       []bulkError `json:"errors"`
	Warnings     []struct{}  `json:"warnings"`
}

type bulkError struct {
	DeviceID    string `json:"deviceId"`
	ErrorCode   string `json:"errorCode"`
	ErrorStatus string `json:"errorStatus"`
}

// bulk carries out up to 100 changes as one command. What one device may not does not hold up the others; a call with
// a refusal in it answers 400 with the same body.
func (d *Door) bulk(q *request) error {
	var devices []bulkDevice
	if err := q.read(&devices); err != nil {
		return err
	}
	switch {
	case len(devices) > maxBulkDevices:
		return errTooMany
	case len(devices) == 0:
		return invalid("the list is empty")
	}
	result := bulkResult{Errors: []bulkError{}, Warnings: []struct{}{}}
	refuse := func(id string, err error) {
		result.Errors = append(result.Errors, bulkError{DeviceID: id, ErrorCode: codeOf(err).name, ErrorStatus: tell(err)})
	}
	changes := make([]hub.DeviceChange, 0, len(devices))
	seen := make(map[string]bool, len(devices))
	for i := range devices {
		change, err := devices[i].change()
		if err == nil && seen[change.ID] {
			err = errTwice
		}
		if err == nil && change.Op != hub.OpDeviceDelete {
			err = fillKeys(&change.Auth, d.options.Random)
		}
		if err != nil {
			refuse(devices[i].ID, err)
			continue
		}
		seen[change.ID] = true
		changes = append(changes, change)
	}
	if len(changes) > 0 {
		outcome, err := q.hub.Handle.Do(q.Context(), &hub.Command{Op: hub.OpBulk, Body: hub.AppendBulk(nil, changes)})
		if err != nil {
			return err
		}
		for i, err := range outcome.Bulk {
			if err != nil && i < len(changes) {
				refuse(changes[i].ID, err)
			}
		}
	}
	result.IsSuccessful = len(result.Errors) == 0
	if !result.IsSuccessful {
		q.w.Header().Set("iothub-errorcode", "BulkRegistryOperationFailure")
		return q.answer(http.StatusBadRequest, result)
	}
	return q.answer(http.StatusOK, result)
}

// change is what a line asks for.
func (b *bulkDevice) change() (hub.DeviceChange, error) {
	if b.ModuleID != "" {
		return hub.DeviceChange{}, &tandem.Error{Op: "change a module", Kind: tandem.Unsupported, On: b.ID}
	}
	if given(b.Tags) || given(b.Properties) {
		return hub.DeviceChange{}, &tandem.Error{Op: "import a twin", Kind: tandem.Unsupported, On: b.ID,
			Hint: "leave out tags and properties"}
	}
	body := deviceBody{DeviceID: b.ID, Status: b.Status, StatusReason: b.StatusReason, Authentication: b.Authentication,
		DeviceScope: b.DeviceScope, ParentScopes: b.ParentScopes}
	if b.Capabilities != nil {
		body.Capabilities = *b.Capabilities
	}
	change, hasAuth, err := body.change()
	if err != nil {
		return change, err
	}
	change.IfMatch = ifMatch(b.Etag)
	switch strings.ToLower(b.ImportMode) {
	case "", "create":
		change.Op, change.IfMatch = hub.OpDeviceCreate, ""
	case "createorupdate":
		change.Op, change.IfMatch = hub.OpDevicePut, ""
	case "update":
		change.Op, change.IfMatch = hub.OpDeviceUpdate, "*"
	case "updateifmatchetag":
		change.Op = hub.OpDeviceUpdate
	case "delete":
		return hub.DeviceChange{Op: hub.OpDeviceDelete, ID: b.ID, IfMatch: "*"}, nil
	case "deleteifmatchetag":
		return hub.DeviceChange{Op: hub.OpDeviceDelete, ID: b.ID, IfMatch: change.IfMatch}, needEtag(change.IfMatch)
	case "updatetwin", "updatetwinifmatchetag", "createorupdateifmatchetag":
		return change, &tandem.Error{Op: "import with mode " + b.ImportMode, Kind: tandem.Unsupported, On: b.ID}
	default:
		return change, invalid("there is no importMode " + b.ImportMode)
	}
	if change.Op == hub.OpDeviceUpdate {
		if !hasAuth {
			return change, invalid("an update in bulk replaces the whole device: give its authentication")
		}
		return change, needEtag(change.IfMatch)
	}
	return change, nil
}

func needEtag(etag string) error {
	if etag == "" {
		return invalid("this importMode needs the device's eTag")
	}
	return nil
}

// given reports whether a field holds anything.
func given(raw json.RawMessage) bool {
	switch text := string(bytes.TrimSpace(raw)); text {
	case "", "null", "{}":
		return false
	}
	return true
}
