package https_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"tandem"
	"tandem/catalog"
	"tandem/directory"
	"tandem/gateway"
	"tandem/gateway/https"
	"tandem/hub"
)

const host = "fab.hub.test"

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

type stoppedClock struct{ tandem.SystemClock }

func (stoppedClock) Now() time.Time { return now }

// zeros makes keys and tracking ids that golden bodies can hold.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// world is a door over a catalog with two hubs.
type world struct {
	t       *testing.T
	catalog *catalog.Catalog
	hubs    map[tandem.HubID]*fakeHub
	door    *https.Door
	fab     *fakeHub
}

func (w *world) Hub(host string) (gateway.Hub, error) {
	resource, err := w.catalog.Hub(host)
	if err != nil {
		return gateway.Hub{}, err
	}
	return gateway.Hub{Resource: resource, Handle: w.hubs[resource.ID]}, nil
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, hubs: map[tandem.HubID]*fakeHub{}}
	w.catalog = catalog.New(catalog.Options{Directory: directory.NewMemory().Client("one"), Clock: tandem.SystemClock{}, Domain: "hub.test",
		Pairs: []tandem.Pair{{A: "westus2", B: "westcentralus"}}})
	go func() { _ = w.catalog.Run(t.Context()) }()
	<-w.catalog.Ready()
	for _, name := range []tandem.HubName{"fab", "other"} {
		h, err := w.catalog.CreateHub(t.Context(), catalog.Hub{Name: name, Group: "rg", Home: "westus2"})
		if err != nil {
			t.Fatal(err)
		}
		w.hubs[h.ID] = &fakeHub{devices: map[tandem.DeviceID]hub.Device{}}
		if name == "fab" {
			w.fab = w.hubs[h.ID]
		}
	}
	w.door = https.New(https.Options{Hubs: w, Clock: stoppedClock{}, Random: zeros{}})
	return w
}

// token signs for a resource with a policy of hub fab.
func (w *world) token(policy, resource string) string {
	h, err := w.catalog.Hub("fab")
	if err != nil {
		w.t.Fatal(err)
	}
	p, ok := h.Policy(policy)
	if !ok {
		w.t.Fatal("no policy " + policy)
	}
	key, _ := gateway.DecodeKey(p.Primary)
	return gateway.MakeToken(resource, policy, key, now.Add(time.Hour))
}

// do asks with the owner's token unless headers say otherwise ("Name: value").
func (w *world) do(method, path, body string, headers ...string) *http.Response {
	r := httptest.NewRequest(method, "https://"+host+path, strings.NewReader(body))
	r.Header.Set("Authorization", w.token("iothubowner", host))
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
		if value == "" {
			r.Header.Del(name)
		}
	}
	rec := httptest.NewRecorder()
	w.door.ServeHTTP(rec, r)
	return rec.Result()
}

func text(r *http.Response) string {
	b, _ := io.ReadAll(r.Body)
	return string(b)
}

// want checks the status, and the error's code when it is one.
func want(t *testing.T, r *http.Response, status int, code string) string {
	t.Helper()
	body := text(r)
	if r.StatusCode != status || r.Header.Get("iothub-errorcode") != code {
		t.Fatalf("%d %q, want %d %q: %s", r.StatusCode, r.Header.Get("iothub-errorcode"), status, code, body)
	}
	return body
}

const version = "?api-version=2021-04-12"

const goldenDevice = `{"deviceId":"d+1","generationId":"638000000000000001","etag":"AAAA1=","connectionState":"Disconnected","status":"enabled",` +
	`"statusReason":null,"connectionStateUpdatedTime":"0001-01-01T00:00:00","statusUpdatedTime":"2026-01-02T03:04:05.6789000Z",` +
	`"lastActivityTime":"0001-01-01T00:00:00","cloudToDeviceMessageCount":0,"authentication":{"symmetricKey":` +
	`{"primaryKey":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","secondaryKey":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="},` +
	`"x509Thumbprint":{"primaryThumbprint":null,"secondaryThumbprint":null},"type":"sas"},"capabilities":{"iotEdge":false}}`

func TestDeviceLife(t *testing.T) {
	w := newWorld(t)
	r := w.do("PUT", "/devices/d%2B1"+version, `{"deviceId":"d+1","status":"enabled","authentication":{"symmetricKey":{"primaryKey":"","secondaryKey":""}}}`)
	if body := want(t, r, 200, ""); body != goldenDevice {
		t.Errorf("created:\n%s\nwant\n%s", body, goldenDevice)
	}
	if r.Header.Get("ETag") != `"AAAA1="` || !strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		t.Errorf("headers %v", r.Header)
	}
	want(t, w.do("PUT", "/devices/d+1"+version, `{"deviceId":"d+1"}`), 409, "DeviceAlreadyExists")
	if body := want(t, w.do("GET", "/devices/d%2B1/"+version, ""), 200, ""); body != goldenDevice {
		t.Errorf("read: %s", body)
	}
	want(t, w.do("PUT", "/devices/d+1"+version, `{"deviceId":"d+1"}`, `If-Match: "old"`), 412, "PreconditionFailed")
	key := strings.Repeat("QUFB", 8)
	put := fmt.Sprintf(`{"deviceId":"d+1","authentication":{"type":"sas","symmetricKey":{"primaryKey":%q,"secondaryKey":%q}}}`, key, key)
	if body := want(t, w.do("PUT", "/devices/d+1"+version, put, `If-Match: AAAA1=`), 200, ""); !strings.Contains(body, key) {
		t.Errorf("keys were not taken: %s", body)
	}
	body := want(t, w.do("PUT", "/devices/d+1"+version, `{"deviceId":"d+1","status":"disabled","statusReason":"lost"}`, `If-Match: "*"`), 200, "")
	if !strings.Contains(body, key) || !strings.Contains(body, `"status":"disabled","statusReason":"lost"`) {
		t.Errorf("an update without credentials: %s", body)
	}
	list := want(t, w.do("GET", "/devices/"+version+"&top=5", ""), 200, "")
	if !strings.HasPrefix(list, `[{"deviceId":"d+1"`) {
		t.Errorf("list: %s", list)
	}
	want(t, w.do("DELETE", "/devices/d+1"+version, ""), 400, "ArgumentInvalid")
	want(t, w.do("DELETE", "/devices/d+1"+version, "", `If-Match: "*"`), 204, "")
	want(t, w.do("DELETE", "/devices/d+1"+version, "", `If-Match: *`), 404, "DeviceNotFound")
	want(t, w.do("GET", "/devices/d+1"+version, ""), 404, "DeviceNotFound")
}

func TestErrorBody(t *testing.T) {
	w := newWorld(t)
	const golden = `{"Message":"ErrorCode:DeviceNotFound;find the device: not found",` +
		`"ExceptionMessage":"Tracking ID:00000000000000000000000000000000-G:0-TimeStamp:01/02/2026 03:04:05"}`
	if body := want(t, w.do("GET", "/devices/x"+version, ""), 404, "DeviceNotFound"); body != golden {
		t.Errorf("%s\nwant\n%s", body, golden)
	}
	w.fab.fail = hub.ErrMoving
	r := w.do("GET", "/devices/x"+version, "")
	want(t, r, 503, "IotHubRestoring")
	if r.Header.Get("Retry-After") != "1" {
		t.Error("no Retry-After while the hub moves")
	}
	w.fab.fail = errors.New("/var/secret: broken")
	if body := want(t, w.do("GET", "/devices/x"+version, ""), 500, "ServerError"); strings.Contains(body, "secret") {
		t.Errorf("our insides are told: %s", body)
	}
}

func TestRefusals(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		method, path, body string
		status             int
		code               string
	}{
		{"GET", "/devices/x", "", 400, "InvalidProtocolVersion"},
		{"GET", "/nothing" + version, "", 404, "GenericNotFound"},
		{"PATCH", "/devices/x" + version, "", 405, "GenericMethodNotAllowed"},
		{"GET", "/twins/x" + version, "", 404, "FeatureNotSupported"},
		{"POST", "/devices/query" + version, "{}", 404, "FeatureNotSupported"},
		{"GET", "/devices/x/messages/deviceBound" + version, "", 404, "FeatureNotSupported"},
		{"GET", "/statistics/service" + version, "", 404, "FeatureNotSupported"},
		{"PUT", "/devices/x" + version, "{", 400, "ArgumentInvalid"},
		{"PUT", "/devices/x" + version, `{"deviceId":"y"}`, 400, "ArgumentInvalid"},
		{"PUT", "/devices/x%2F" + version, `{"deviceId":"x/"}`, 400, "ArgumentInvalid"},
		{"PUT", "/devices/x" + version, `{"authentication":{"symmetricKey":{"primaryKey":"AAAA"}}}`, 400, "ArgumentInvalid"},
		{"PUT", "/devices/x" + version, strings.Repeat(" ", 70<<10), 413, "MessageTooLarge"},
		{"GET", "/devices" + version + "&top=2000", "", 400, "ArgumentInvalid"},
		{"GET", "/tandem/hubs/fab/events?partition=9", "", 400, "ArgumentInvalid"},
		{"GET", "/tandem/hubs/fab/events?from=5", "", 400, "ArgumentInvalid"},
		{"GET", "/tandem/hubs/fab/events", "", 503, "IotHubRestoring"},
		{"GET", "/tandem/hubs/other/events", "", 401, "IotHubUnauthorizedAccess"},
		{"GET", "/tandem/hubs/none/events", "", 401, "IotHubNotFound"},
	} {
		t.Run(c.method+" "+c.path, func(t *testing.T) {
			want(t, w.do(c.method, c.path, c.body), c.status, c.code)
		})
	}
}

func TestPolicies(t *testing.T) {
	w := newWorld(t)
	want(t, w.do("PUT", "/devices/d1"+version, `{}`), 200, "")
	get := func(authorization string) *http.Response {
		return w.do("GET", "/devices/d1"+version, "", "Authorization: "+authorization)
	}
	want(t, get(""), 401, "IotHubUnauthorizedAccess")
	want(t, get("Bearer x"), 401, "IotHubUnauthorized")
	want(t, get(w.token("registryRead", host)), 200, "")
	want(t, get(w.token("registryRead", "FAB.hub.test:443/devices")), 200, "")
	want(t, get(w.token("registryRead", host+"/devices/d2")), 401, "IotHubUnauthorizedAccess")
	want(t, get(w.token("service", host)), 401, "IotHubUnauthorizedAccess")
	want(t, get(w.token("registryRead", "other.hub.test")), 401, "IotHubUnauthorizedAccess")
	want(t, get(w.token("registryRead", "none.hub.test")), 401, "IotHubNotFound")
	want(t, w.do("PUT", "/devices/d2"+version, `{}`, "Authorization: "+w.token("registryRead", host)), 401, "IotHubUnauthorizedAccess")
	key := bytes.Repeat([]byte{0}, 32)
	want(t, get(gateway.MakeToken(host+"/devices/d1", "", key, now.Add(time.Hour))), 401, "IotHubUnauthorizedAccess")
	old, err := w.catalog.RollKey(t.Context(), "fab", "registryRead", catalog.PrimaryKey)
	if err != nil {
		t.Fatal(err)
	}
	p, _ := old.Policy("registryRead")
	fresh, _ := gateway.DecodeKey(p.Primary)
	want(t, get(gateway.MakeToken(host, "registryRead", fresh, now.Add(-time.Second))), 401, "IotHubUnauthorized")
	want(t, get(gateway.MakeToken(host, "registryRead", fresh, now.Add(time.Second))), 200, "")
}

func TestTelemetry(t *testing.T) {
	w := newWorld(t)
	want(t, w.do("PUT", "/devices/d1"+version, `{}`), 200, "")
	key := w.fab.devices["d1"].Auth.PrimaryKey
	own := "Authorization: " + gateway.MakeToken(host+"/devices/d1", "", key, now.Add(time.Hour))
	send := func(device, body string, headers ...string) *http.Response {
		return w.do("POST", "/devices/"+device+"/messages/events"+version, body, headers...)
	}
	want(t, send("d1", "hello", own, "iothub-messageid: m1", "iothub-app-Colour: red", "iothub-contenttype: text/plain"), 204, "")
	m := w.fab.sent[0]
	if string(m.Body) != "hello" || m.MessageID != "m1" || m.ContentType != "text/plain" || len(m.Properties) != 1 ||
		m.Properties[0] != (hub.Property{Name: "colour", Value: "red"}) {
		t.Errorf("got %+v", m)
	}
	batch := `[{"body":"aGk=","properties":{"iothub-messageid":"a","iothub-app-Colour":"blue","plain":null}},{"body":"hi","base64Encoded":false}]`
	want(t, send("d1", batch, own, "Content-Type: application/vnd.microsoft.iothub.json"), 204, "")
	a, b := w.fab.sent[1], w.fab.sent[2]
	if string(a.Body) != "hi" || a.MessageID != "a" || len(a.Properties) != 2 || a.Properties[0].Name != "Colour" || !a.Properties[1].Null ||
		string(b.Body) != "hi" {
		t.Errorf("got %+v and %+v", a, b)
	}
	want(t, send("d1", "by the hub's policy", "Authorization: "+w.token("device", host+"/devices/d1")), 204, "")
	want(t, send("d1", strings.Repeat("x", hub.MaxMessageSize), own), 204, "")
	want(t, send("d1", strings.Repeat("x", hub.MaxMessageSize+1), own), 413, "MessageTooLarge")
	want(t, send("d1", strings.Repeat("x", 3*hub.MaxMessageSize), own), 413, "MessageTooLarge")
	want(t, send("d2", "x", own), 401, "IotHubUnauthorizedAccess")
	want(t, send("d2", "x"), 404, "DeviceNotFound")
	want(t, send("d1", "x", "Authorization: "+w.token("service", host)), 401, "IotHubUnauthorizedAccess")
	want(t, send("d1", "[]", own, "Content-Type: application/vnd.microsoft.iothub.json"), 400, "ArgumentInvalid")
	disabled := w.fab.devices["d1"]
	disabled.Status = hub.Disabled
	w.fab.devices["d1"] = disabled
	want(t, send("d1", "x", own), 403, "GenericForbidden")
}

func TestBulk(t *testing.T) {
	w := newWorld(t)
	var lines []map[string]any
	for i := range 100 {
		lines = append(lines, map[string]any{"id": fmt.Sprintf("d%02d", i), "importMode": "create"})
	}
	post := func(v any) *http.Response {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return w.do("POST", "/devices"+version, string(b))
	}
	if body := want(t, post(lines), 200, ""); body != `{"isSuccessful":true,"errors":[],"warnings":[]}` {
		t.Error(body)
	}
	if w.fab.commands != 1 || len(w.fab.devices) != 100 {
		t.Errorf("%d commands, %d devices", w.fab.commands, len(w.fab.devices))
	}
	if string(w.fab.devices["d00"].Auth.PrimaryKey) == "" {
		t.Error("no key was made")
	}
	mixed := []map[string]any{{"id": "d00", "importMode": "Delete"}, {"id": "d01"}, {"id": "new", "importMode": "createOrUpdate"},
		{"id": "new"}, {"id": "bad/id"}, {"id": "twin", "importMode": "updateTwin"}, {"id": "d02", "importMode": "deleteIfMatchETag", "eTag": "x"}}
	var result struct {
		IsSuccessful bool
		Errors       []struct{ DeviceID, ErrorCode string }
	}
	if err := json.Unmarshal([]byte(want(t, post(mixed), 400, "BulkRegistryOperationFailure")), &result); err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(result.IsSuccessful, result.Errors)
	if got != "false [{new DeviceDefinedMultipleTimes} {bad/id ArgumentInvalid} {twin FeatureNotSupported} {d01 DeviceAlreadyExists} {d02 PreconditionFailed}]" {
		t.Error(got)
	}
	if _, ok := w.fab.devices["new"]; !ok || len(w.fab.devices) != 100 {
		t.Error("a refusal held up the others")
	}
	want(t, post(append(lines, map[string]any{"id": "one-too-many"})), 413, "TooManyDevices")
}

func TestStatistics(t *testing.T) {
	w := newWorld(t)
	if body := want(t, w.do("GET", "/statistics/devices"+version, ""), 200, ""); body != `{"totalDeviceCount":3,"enabledDeviceCount":2,"disabledDeviceCount":1}` {
		t.Error(body)
	}
}
