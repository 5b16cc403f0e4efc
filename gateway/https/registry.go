package https

import (
	"net/http"
	"strconv"
	"strings"

	"tandem"
	"tandem/hub"
)

// maxList is how many devices one answer lists (Azure: 1000).
const maxList = 1000

func (d *Door) getDevice(q *request) error {
	device, err := q.hub.Handle.Device(q.Context(), tandem.DeviceID(q.path[1]))
	if err != nil {
		return err
	}
	return q.answerDevice(&device)
}

func (q *request) answerDevice(device *hub.Device) error {
	q.w.Header().Set("ETag", `"`+device.Etag+`"`)
	return q.answer(http.StatusOK, newDeviceBody(device))
}

// listDevices answers GET /devices?top=, the oldest form of a list: no paging.
func (d *Door) listDevices(q *request) error {
	top := maxList
	if text := q.query.Get("top"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxList {
			return invalid("top is a number from 1 to 1000")
		}
		top = n
	}
	devices, err := q.hub.Handle.Devices(q.Context(), "", top)
	if err != nil {
		return err
	}
	bodies := make([]deviceBody, len(devices))
	for i := range devices {
		bodies[i] = newDeviceBody(&devices[i])
	}
	return q.answer(http.StatusOK, bodies)
}

func (d *Door) deviceStatistics(q *request) error {
	s, err := q.hub.Handle.Statistics(q.Context())
	if err != nil {
		return err
	}
	return q.answer(http.StatusOK, struct {
		Total    int64 `json:"totalDeviceCount"`
		Enabled  int64 `json:"enabledDeviceCount"`
		Disabled int64 `json:"disabledDeviceCount"`
	}{s.Total, s.Enabled, s.Disabled})
}

// putDevice creates a device, or with If-Match replaces one. The answer is 200 in both cases: SDKs take no other.
func (d *Door) putDevice(q *request) error {
	var body deviceBody
	if err := q.read(&body); err != nil {
		return err
	}
	if body.DeviceID == "" {
		body.DeviceID = q.path[1]
	}
	if body.DeviceID != q.path[1] {
		return invalid("the body's deviceId is not the one in the path")
	}
	change, hasAuth, err := body.change()
	if err != nil {
		return err
	}
	change.Op, change.IfMatch = hub.OpDeviceCreate, ifMatch(q.Header.Get("If-Match"))
	if change.IfMatch != "" {
		change.Op = hub.OpDeviceUpdate
		if !hasAuth {
			return d.updateKeepingAuth(q, change)
		}
	}
	device, err := d.put(q, change)
	if err != nil {
		return err
	}
	return q.answerDevice(device)
}

// updateKeepingAuth replaces a device without touching its credentials: the update holds against the very identity
// they were read from.
func (d *Door) updateKeepingAuth(q *request, change hub.DeviceChange) error {
	wanted := change.IfMatch
	for attempt := 0; ; attempt++ {
		now, err := q.hub.Handle.Device(q.Context(), tandem.DeviceID(change.ID))
		if err != nil {
			return err
		}
		change.Auth = now.Auth
		if wanted == "*" {
			change.IfMatch = now.Etag
		}
		device, err := d.put(q, change)
		switch {
		case err == nil:
			return q.answerDevice(device)
		case wanted != "*" || attempt == 3 || !same(err, hub.ErrEtag):
			return err
		}
	}
}

func (d *Door) put(q *request, change hub.DeviceChange) (*hub.Device, error) {
	if err := fillKeys(&change.Auth, d.options.Random); err != nil {
		return nil, err
	}
	outcome, err := q.hub.Handle.Do(q.Context(), &hub.Command{
		Op: change.Op, Device: tandem.DeviceID(change.ID), IfMatch: change.IfMatch, Body: hub.AppendDeviceChange(nil, &change),
	})
	switch {
	case err != nil:
		return nil, err
	case outcome.Device == nil:
		return nil, &tandem.Error{Op: "read the device back", Kind: tandem.Internal, On: change.ID}
	}
	return outcome.Device, nil
}

func (d *Door) deleteDevice(q *request) error {
	match := ifMatch(q.Header.Get("If-Match"))
	if match == "" {
		return errIfMatch
	}
	if _, err := q.hub.Handle.Do(q.Context(), &hub.Command{
		Op: hub.OpDeviceDelete, Device: tandem.DeviceID(q.path[1]), IfMatch: match,
	}); err != nil {
		return err
	}
	q.w.WriteHeader(http.StatusNoContent)
	return nil
}

// ifMatch is the etag of a header in any of the spellings that clients use: quoted, bare, weak, "*" with quotes.
func ifMatch(header string) string {
	return strings.Trim(strings.TrimPrefix(strings.TrimSpace(header), "W/"), `"`)
}
