package arm_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"tandem"
	"tandem/arm"
	"tandem/catalog"
	"tandem/directory"
	"tandem/failover"
	"tandem/gateway"
	"tandem/hub"
	"tandem/operation"
	"tandem/pairlog"
)

var now = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

type stoppedClock struct{ tandem.SystemClock }

func (stoppedClock) Now() time.Time { return now }

// handle is a hub of which only the counts are asked.
type handle struct{ hub.Handle }

func (handle) Statistics(context.Context) (hub.Statistics, error) {
	return hub.Statistics{Total: 3, Enabled: 2, Disabled: 1, MessagesToday: 7}, nil
}

// world is a door over a real catalog and directory; failovers are noted, not done.
type world struct {
	t         *testing.T
	directory directory.Store
	client    *directory.MemoryClient
	catalog   *catalog.Catalog
	door      *arm.Door
	started   []failover.Request
	forecast  failover.Forecast
	items     []failover.TailItem
	itemsErr  error
}

func (w *world) Hub(name string) (gateway.Hub, error) {
	h, err := w.catalog.Hub(name)
	return gateway.Hub{Resource: h, Handle: handle{}}, err
}

func (w *world) Start(ctx context.Context, r failover.Request) (operation.Operation, error) {
	w.started = append(w.started, r)
	h, err := w.catalog.HubByID(r.Hub)
	if err != nil {
		return operation.Operation{}, err
	}
	return operation.Start(ctx, w.directory, operation.Operation{ID: fmt.Sprintf("%s-%d", r.Hub, len(w.started)), Kind: operation.Failover, Hub: r.Hub, HubName: h.Name,
		From: "westus2", To: "westcentralus", Epoch: 1, Requested: r.Requested, Started: now})
}

func (w *world) Forecast(_ context.Context, r failover.Request) (failover.Forecast, error) {
	f := w.forecast
	f.Forced = f.Forced || r.Forced
	if f.To = r.To; f.To == "" {
		f.To = "westcentralus"
	}
	return f, nil
}

func (w *world) Status(context.Context, tandem.HubID) (map[tandem.RegionName]failover.Side, error) {
	return map[tandem.RegionName]failover.Side{
		"westus2": {}, "westcentralus": {Known: true, Facts: failover.ReplicaFacts{Role: failover.RoleFollower, Epoch: 2}},
	}, nil
}

func (w *world) Items(_ context.Context, _ string, fn func(failover.TailItem) error) error {
	for _, item := range w.items {
		if err := fn(item); err != nil {
			return err
		}
	}
	return w.itemsErr
}

func (w *world) Regions(context.Context) ([]arm.Region, error) {
	return []arm.Region{{Name: "westus2", Self: true, Alive: true, Hubs: []tandem.HubName{"Fab"}, Directory: "ok"}}, nil
}

func newWorld(t *testing.T, o arm.Options) *world {
	client := directory.NewMemory().Client("one")
	w := &world{t: t, directory: client, client: client, forecast: failover.Forecast{Ready: true, Known: true}}
	w.catalog = catalog.New(catalog.Options{Directory: client, Clock: stoppedClock{}, Domain: "hub.test", Subscription: "sub-1", Tenant: "tenant-1",
		Pairs: []tandem.Pair{{A: "westus2", B: "westcentralus"}}, AdminToken: catalog.HashToken("secret")})
	go func() { _ = w.catalog.Run(t.Context()) }()
	<-w.catalog.Ready()
	o.Catalog, o.Directory, o.Hubs, o.Failover, o.Regions, o.Clock = w.catalog, client, w, w, w, stoppedClock{}
	w.door = arm.New(o)
	return w
}

func (w *world) do(method, path, body string, headers ...string) *http.Response {
	r := httptest.NewRequest(method, "https://127.0.1.1:8443"+path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer secret")
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	rec := httptest.NewRecorder()
	w.door.ServeHTTP(rec, r)
	return rec.Result()
}

// want checks the status, and ARM's code when it is an error, and returns the body.
func want(t *testing.T, r *http.Response, status int, code string) string {
	t.Helper()
	b, _ := io.ReadAll(r.Body)
	var e struct {
		Error struct{ Code, Message string }
	}
	_ = json.Unmarshal(b, &e)
	if r.StatusCode != status || code != "" && (e.Error.Code != code || e.Error.Message == "" || r.Header.Get("x-ms-error-code") != code) {
		t.Fatalf("%d %q, want %d %q: %s", r.StatusCode, e.Error.Code, status, code, b)
	}
	return string(b)
}

const (
	group   = "/subscriptions/sub-1/resourceGroups/rg"
	hubs    = group + "/providers/Microsoft.Devices/IotHubs"
	version = "?api-version=2023-06-30"
	create  = `{"location":"West US 2","sku":{"name":"S1","capacity":1},"tags":{"a":"b"},"properties":{}}`
)

// open gives hub Fab a pen, as its region would.
func (w *world) open(region tandem.RegionName, epoch tandem.Epoch, state pairlog.PenState) {
	h, err := w.catalog.Hub("fab")
	if err != nil {
		w.t.Fatal(err)
	}
	pen, _ := json.Marshal(pairlog.Pen{Hub: h.ID, Epoch: epoch, Region: region, State: state})
	set, _ := json.Marshal(pairlog.InSyncSet{Regions: []tandem.RegionName{region}})
	if _, err := w.directory.Commit(w.t.Context(), directory.Txn{Then: []directory.Change{
		{Key: directory.PenKey(h.ID), Value: pen}, {Key: directory.InSyncKey(h.ID), Value: set}}}); err != nil {
		w.t.Fatal(err)
	}
}

const goldenHub = `{"id":"/subscriptions/sub-1/resourceGroups/rg/providers/Microsoft.Devices/IotHubs/Fab","name":"Fab","type":"Microsoft.Devices/IotHubs",` +
	`"location":"westcentralus","tags":{"a":"b"},"resourcegroup":"rg","subscriptionid":"sub-1","etag":"AAAAAAAAAAE=","properties":{` +
	`"locations":[{"location":"West Central US","role":"primary"},{"location":"West US 2","role":"secondary"}],"state":"Active",` +
	`"provisioningState":"Succeeded","ipFilterRules":[],"hostName":"Fab.hub.test","eventHubEndpoints":{"events":{"retentionTimeInDays":1,` +
	`"partitionCount":4,"partitionIds":["0","1","2","3"],"path":"fab","endpoint":"sb://Fab.hub.test/"}},"routing":{"endpoints":{"eventHubs":[],` +
	`"serviceBusQueues":[],"serviceBusTopics":[],"storageContainers":[]},"routes":[],"fallbackRoute":{"name":"$fallback","source":"DeviceMessages",` +
	`"condition":"true","endpointNames":["events"],"isEnabled":true}},"storageEndpoints":{"$default":{"sasTtlAsIso8601":"PT1H",` +
	`"connectionString":"","containerName":""}},"messagingEndpoints":{"fileNotifications":{"lockDurationAsIso8601":"PT1M","ttlAsIso8601":"PT1H",` +
	`"maxDeliveryCount":10}},"enableFileUploadNotifications":false,"cloudToDevice":{"maxDeliveryCount":10,"defaultTtlAsIso8601":"PT1H","feedback":` +
	`{"lockDurationAsIso8601":"PT1M","ttlAsIso8601":"PT1H","maxDeliveryCount":10}},"features":"None","disableLocalAuth":false,` +
	`"enableDataResidency":false,"tandem":{"id":"ID","home":"westus2","holder":"westcentralus","epoch":2,"penState":"open","replication":"async",` +
	`"platformFailover":"operator","inSync":["westcentralus"]}},"sku":{"name":"S1","tier":"Standard","capacity":1}}`

func TestHubLife(t *testing.T) {
	w := newWorld(t, arm.Options{})
	want(t, w.do("GET", hubs+"/Fab"+version, ""), 404, "ResourceNotFound")
	r := w.do("PUT", hubs+"/Fab"+version, create)
	if body := want(t, r, 201, ""); !strings.Contains(body, `"provisioningState":"Activating"`) {
		t.Errorf("created: %s", body)
	}
	status, result := r.Header.Get("Azure-AsyncOperation"), r.Header.Get("Location")
	if !strings.HasPrefix(status, "https://127.0.1.1:8443/subscriptions/sub-1/providers/Microsoft.Devices/locations/westus2/operationResults/create-") ||
		r.Header.Get("Retry-After") != "1" {
		t.Fatalf("headers %v", r.Header)
	}
	path := func(u string) string { return strings.TrimPrefix(u, "https://127.0.1.1:8443") }
	if body := want(t, w.do("GET", path(status), ""), 200, ""); !strings.Contains(body, `"status":"InProgress"`) {
		t.Errorf("status: %s", body)
	}
	want(t, w.do("GET", path(result), ""), 202, "")
	w.open("westus2", 1, pairlog.PenOpen)
	if body := want(t, w.do("GET", path(status), ""), 200, ""); !strings.Contains(body, `"status":"Succeeded"`) {
		t.Errorf("status: %s", body)
	}
	want(t, w.do("GET", path(result), ""), 200, "")

	w.open("westcentralus", 2, pairlog.PenOpen)
	id := regexp.MustCompile(`"tandem":\{"id":"[0-9a-f]{16}"`)
	get := func(url string) string {
		return id.ReplaceAllString(want(t, w.do("GET", url, ""), 200, ""), `"tandem":{"id":"ID"`)
	}
	if body := get(strings.ToUpper(hubs) + "/fab/" + version); body != goldenHub {
		t.Errorf("got\n%s\nwant\n%s", body, goldenHub)
	}
	for _, list := range []string{hubs, "/subscriptions/SUB-1/providers/microsoft.devices/iothubs"} {
		if body := get(list + version); body != `{"value":[`+goldenHub+`]}` {
			t.Errorf("%s: %s", list, body)
		}
	}
	if body := get("/subscriptions/sub-1/resourceGroups/other/providers/Microsoft.Devices/IotHubs" + version); body != `{"value":[]}` {
		t.Errorf("another group: %s", body)
	}
	want(t, w.do("GET", "/subscriptions/sub-1/resourceGroups/other/providers/Microsoft.Devices/IotHubs/Fab"+version, ""), 404, "ResourceNotFound")
	want(t, w.do("PUT", "/subscriptions/sub-1/resourceGroups/other/providers/Microsoft.Devices/IotHubs/fab"+version, create), 409, "IotHubNameNotAvailable")

	// What was read may be written back, with az's broken header too.
	back := want(t, w.do("PUT", hubs+"/fab"+version, goldenHub, "If-Match: {'IF-MATCH': 'AAAAAAAAAAE='}"), 200, "")
	if strings.Contains(back, `"etag":"AAAAAAAAAAE="`) {
		t.Error("the etag did not change")
	}
	want(t, w.do("PUT", hubs+"/fab"+version, goldenHub, `If-Match: "AAAAAAAAAAE="`), 412, "PreconditionFailed")
	body := want(t, w.do("PATCH", hubs+"/fab"+version, `{"tags":{"c":"d"}}`), 200, "")
	if !strings.Contains(body, `"tags":{"c":"d"}`) {
		t.Errorf("patched: %s", body)
	}
	want(t, w.do("DELETE", hubs+"/fab"+version, ""), 204, "")
	want(t, w.do("DELETE", hubs+"/fab"+version, ""), 204, "")
	want(t, w.do("GET", hubs+"/fab"+version, ""), 404, "ResourceNotFound")
}

func TestSettings(t *testing.T) {
	w := newWorld(t, arm.Options{})
	for body, code := range map[string]string{
		`{"location":"mars","sku":{"name":"S1","capacity":1}}`:                                                                      "BadRequest",
		`{"sku":{"name":"S1","capacity":1}}`:                                                                                        "InvalidResourceLocation",
		`{"location":"westus2","sku":{"name":"S9","capacity":1}}`:                                                                   "BadRequest",
		`{"location":"westus2","sku":{"name":"S1","capacity":0}}`:                                                                   "BadRequest",
		`{"location":"westus2","properties":{"tandem":{"replication":"twice"}}}`:                                                    "BadRequest",
		`{"location":"westus2","properties":{"eventHubEndpoints":{"events":{"partitionCount":99}}}}`:                                "BadRequest",
		`{"location":"westus2","properties":{"authorizationPolicies":[{"keyName":"x","rights":"Everything"}]}}`:                     "BadRequest",
		`{"location":"westus2","properties":{"authorizationPolicies":[{"keyName":"x","rights":"DeviceConnect","primaryKey":"x"}]}}`: "BadRequest",
		`{`: "BadRequest",
	} {
		t.Run(body, func(t *testing.T) { want(t, w.do("PUT", hubs+"/fab"+version, body), 400, code) })
	}
	for _, setting := range []string{
		`"disableLocalAuth":true`, `"ipFilterRules":[{}]`, `"routing":{"routes":[{}]}`, `"routing":{"endpoints":{"eventHubs":[{}]}}`,
		`"routing":{"fallbackRoute":{"isEnabled":false}}`, `"cloudToDevice":{"maxDeliveryCount":5}`, `"enableDataResidency":true`,
		`"storageEndpoints":{"$default":{"connectionString":"x"}}`, `"minTlsVersion":"1.3"`,
	} {
		t.Run(setting, func(t *testing.T) {
			want(t, w.do("PUT", hubs+"/fab"+version, `{"location":"westus2","properties":{`+setting+`}}`), 501, "NotSupported")
		})
	}
	want(t, w.do("PUT", hubs+"/123"+version, create), 400, "BadRequest")
	body := want(t, w.do("PUT", hubs+"/fab"+version, `{"location":"westus2","sku":{"name":"s2","capacity":3},"properties":{"eventHubEndpoints":`+
		`{"events":{"partitionCount":8,"retentionTimeInDays":3}},"tandem":{"replication":"sync-strict"}}}`), 201, "")
	for _, part := range []string{`"partitionCount":8`, `"retentionTimeInDays":3`, `"replication":"sync-strict"`, `"name":"S2","tier":"Standard","capacity":3`} {
		if !strings.Contains(body, part) {
			t.Errorf("%s is missing in %s", part, body)
		}
	}
	body = want(t, w.do("PUT", hubs+"/fab"+version, `{"location":"West Central US","properties":{"tandem":{"replication":"async"}}}`), 200, "")
	if !strings.Contains(body, `"replication":"async"`) || !strings.Contains(body, `"retentionTimeInDays":3`) {
		t.Errorf("updated: %s", body)
	}
	want(t, w.do("PUT", hubs+"/fab"+version, `{"location":"eastus"}`), 400, "InvalidResourceLocation")
}

func TestKeys(t *testing.T) {
	w := newWorld(t, arm.Options{})
	want(t, w.do("PUT", hubs+"/fab"+version, create), 201, "")
	type policy struct{ KeyName, PrimaryKey, SecondaryKey, Rights string }
	keys := func() []policy {
		var page struct{ Value []policy }
		if err := json.Unmarshal([]byte(want(t, w.do("POST", hubs+"/fab/ListKeys"+version, ""), 200, "")), &page); err != nil {
			t.Fatal(err)
		}
		return page.Value
	}
	before := keys()
	if len(before) != 5 || before[0].KeyName != "iothubowner" || before[0].Rights != "RegistryRead, RegistryWrite, ServiceConnect, DeviceConnect" ||
		before[4].Rights != "RegistryRead, RegistryWrite" || before[0].PrimaryKey == "" {
		t.Fatalf("keys %+v", before)
	}
	one := want(t, w.do("POST", hubs+"/fab/IotHubKeys/SERVICE/listkeys"+version, ""), 200, "")
	if !strings.Contains(one, before[1].PrimaryKey) {
		t.Errorf("one: %s", one)
	}
	want(t, w.do("POST", hubs+"/fab/IotHubKeys/nobody/listkeys"+version, ""), 404, "PolicyNotFound")
	key := strings.Repeat("QUFB", 8)
	want(t, w.do("PUT", hubs+"/fab"+version, `{"location":"westus2","properties":{"authorizationPolicies":[{"keyName":"service","rights":"ServiceConnect"},`+
		`{"keyName":"own","rights":"deviceconnect","primaryKey":"`+key+`"}]}}`), 200, "")
	after := keys()
	if len(after) != 2 || after[0] != before[1] || after[1].PrimaryKey != key || after[1].SecondaryKey == "" || after[1].Rights != "DeviceConnect" {
		t.Errorf("after %+v", after)
	}
}

func TestDoor(t *testing.T) {
	w := newWorld(t, arm.Options{})
	want(t, w.do("PUT", hubs+"/fab"+version, create), 201, "")
	for _, token := range []string{"", "Bearer", "Bearer wrong", "Basic secret"} {
		r := w.do("GET", hubs+version, "", "Authorization: "+token)
		want(t, r, 401, "InvalidAuthenticationToken")
		if r.Header.Get("WWW-Authenticate") == "" {
			t.Error("no challenge")
		}
	}
	for _, c := range []struct {
		method, path string
		status       int
		code         string
	}{
		{"GET", hubs, 400, "MissingApiVersionParameter"},
		{"GET", "/subscriptions/other/providers/Microsoft.Devices/IotHubs" + version, 404, "SubscriptionNotFound"},
		{"GET", "/nothing" + version, 404, "ResourceNotFound"},
		{"POST", hubs + "/fab" + version, 405, "MethodNotAllowed"},
		{"GET", hubs + "/fab/certificates" + version, 501, "NotSupported"},
		{"PUT", hubs + "/fab/eventHubEndpoints/events/ConsumerGroups/g" + version, 501, "NotSupported"},
		{"GET", group + "/providers/Microsoft.RecoveryServices/vaults/v" + version, 501, "NotSupported"},
		{"GET", "/subscriptions/sub-1/providers/Microsoft.Devices/locations/x/operationResults/none" + version, 404, "OperationNotFound"},
		{"GET", "/tandem/receipts/none", 404, "ReceiptNotFound"},
		{"GET", "/tandem/operations/none", 404, "OperationNotFound"},
		{"GET", "/tandem/hubs/none/status", 404, "ResourceNotFound"},
		{"GET", "/tandem/operations?hub=none", 404, "ResourceNotFound"},
		{"GET", "/tandem/hubs/fab/forecast?forced=perhaps", 400, "BadRequest"},
	} {
		t.Run(c.method+" "+c.path, func(t *testing.T) { want(t, w.do(c.method, c.path, ""), c.status, c.code) })
	}
	for path, golden := range map[string]string{
		"/subscriptions" + version:          `{"value":[{"displayName":"Tandem","id":"/subscriptions/sub-1","state":"Enabled","subscriptionId":"sub-1","tenantId":"tenant-1"}]}`,
		hubs + "/fab/IotHubStats" + version: `{"disabledDeviceCount":1,"enabledDeviceCount":2,"totalDeviceCount":3}`,
		hubs + "/fab/quotaMetrics" + version: `{"value":[{"name":"TotalMessages","currentValue":7,"maxValue":400000},` +
			`{"name":"TotalDeviceCount","currentValue":3,"maxValue":1000000}]}`,
		"/tandem/regions": `{"value":[{"name":"westus2","display":"West US 2","self":true,"alive":true,"nodes":[],"hubs":["Fab"],"lagItems":0,` +
			`"lagSeconds":0,"directory":"ok","oneMoreLossStops":false}]}`,
		"/tandem/operations":        `{"value":[]}`,
		"/tandem/hubs/fab/receipts": `{"value":[]}`,
	} {
		if body := want(t, w.do("GET", path, ""), 200, ""); body != golden {
			t.Errorf("%s: got\n%s\nwant\n%s", path, body, golden)
		}
	}
	body := want(t, w.do("GET", "/tandem/hubs/fab/status", ""), 200, "")
	if !strings.HasPrefix(body, `{"value":[{"region":"westus2","known":false},{"region":"westcentralus","known":true,"role":"follower","epoch":2,`) {
		t.Errorf("status: %s", body)
	}
	want(t, w.do("HEAD", "/subscriptions/sub-1/resourcegroups/rg"+version, ""), 204, "")
	want(t, w.do("PUT", group+version, `{"location":"westus2"}`), 200, "")
	name := "/subscriptions/sub-1/providers/Microsoft.Devices/checkNameAvailability" + version
	for in, golden := range map[string]string{
		`{"name":"FAB"}`: `{"nameAvailable":false,"reason":"AlreadyExists","message":"the hub name FAB is taken"}`,
		`{"name":"new"}`: `{"nameAvailable":true}`,
	} {
		if body := want(t, w.do("POST", name, in), 200, ""); body != golden {
			t.Errorf("%s: %s", in, body)
		}
	}
	w.client.Cut()
	if body := want(t, w.do("GET", hubs+"/fab"+version, ""), 200, ""); !strings.Contains(body, `"state":"Unknown"`) {
		t.Errorf("without the directory: %s", body)
	}
	r := w.do("PUT", hubs+"/fab"+version, create)
	want(t, r, 503, "ServiceUnavailable")
	if r.Header.Get("Retry-After") != "1" {
		t.Error("no Retry-After")
	}
}
