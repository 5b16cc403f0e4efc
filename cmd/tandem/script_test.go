package main

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"tandem": main})
}

// TestScripts runs testdata/*.txtar: command lines and what they print. Each script has a fake installation of its own.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata", Setup: func(e *testscript.Env) error {
		f := newFake()
		dark := httptest.NewTLSServer(nil)
		e.Defer(f.server.Close)
		ca := filepath.Join(e.WorkDir, "ca.pem")
		block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.server.Certificate().Raw})
		e.Setenv("LANG", "C")
		e.Setenv("TANDEM_CA", ca)
		e.Setenv("TANDEM_ARM_URL", f.server.URL)
		e.Setenv("TANDEM_HTTPS_URL", f.server.URL)
		e.Setenv("TANDEM_CLIENT_SECRET", "secret")
		e.Setenv("TANDEM_SUBSCRIPTION", "s1")
		e.Setenv("TANDEM_LOCATION", "westus2")
		e.Setenv("DARK_URL", dark.URL)
		dark.Close()
		return os.WriteFile(ca, block, 0o600)
	}})
}

// fake answers as the management and data doors do, with hubs and devices in memory and a failover that takes two looks.
type fake struct {
	server *httptest.Server

	mu      sync.Mutex
	hubs    map[string]string // name: region
	devices map[string]string // id: body
	looks   int
	to      string
}

func newFake() *fake {
	f := &fake{hubs: map[string]string{"hub-1": "westus2"}, devices: map[string]string{}}
	mux := http.NewServeMux()
	const hubs = "/subscriptions/s1/resourceGroups/tandem-dev/providers/Microsoft.Devices/IotHubs/{hub}"
	mux.HandleFunc("GET /subscriptions/s1/providers/Microsoft.Devices/IotHubs", f.admin(f.listHubs))
	mux.HandleFunc("GET "+hubs, f.admin(f.getHub))
	mux.HandleFunc("PUT "+hubs, f.admin(f.putHub))
	mux.HandleFunc("DELETE "+hubs, f.admin(f.deleteHub))
	mux.HandleFunc("POST "+hubs+"/listkeys", f.admin(func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, `{"value":[{"keyName":"iothubowner","primaryKey":"AAAA","secondaryKey":"BBBB","rights":"RegistryWrite, ServiceConnect"}]}`)
	}))
	mux.HandleFunc("POST /tandem/hubs/{hub}/failover", f.admin(f.move))
	mux.HandleFunc("GET /tandem/hubs/{hub}/forecast", f.admin(forecast))
	mux.HandleFunc("GET /tandem/hubs/{hub}/status", f.admin(func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, twoSides) }))
	mux.HandleFunc("GET /tandem/hubs/{hub}/receipts", f.admin(func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, `{"value":[`+receipts["r2"]+`,`+receipts["r1"]+`]}`)
	}))
	mux.HandleFunc("GET /tandem/receipts/{id}", f.admin(func(w http.ResponseWriter, r *http.Request) {
		if body := receipts[r.PathValue("id")]; body != "" {
			answer(w, 200, body)
			return
		}
		answer(w, 404, `{"error":{"code":"ReceiptNotFound","message":"r9: find the receipt: not found"}}`)
	}))
	mux.HandleFunc("GET /tandem/receipts/{id}/items", f.admin(items))
	mux.HandleFunc("GET /tandem/operations/{id}", f.admin(f.operation))
	mux.HandleFunc("GET /tandem/regions", f.admin(func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, `{"value":[{"name":"westus2","alive":true,"hubs":[],"directory":"ok"},
			{"name":"westcentralus","alive":false,"hubs":["hub-1"],"lagItems":12,"lagSeconds":0.5,"oneMoreLossStops":true}]}`)
	}))
	mux.HandleFunc("POST /devices", f.service(f.bulk))
	mux.HandleFunc("PUT /devices/{id}", f.service(f.putDevice))
	mux.HandleFunc("GET /devices/{id}", f.service(f.getDevice))
	mux.HandleFunc("GET /tandem/hubs/{hub}/events", f.service(func(w http.ResponseWriter, r *http.Request) {
		for i := range 3 {
			fmt.Fprintf(w, `{"partition":1,"number":%d,"enqueuedTime":"2026-01-02T03:04:05Z","deviceId":"press-4","body":"{\"n\":%d}"}`+"\n", i, i)
		}
	}))
	f.server = httptest.NewTLSServer(mux)
	return f
}

func forecast(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("forced") == "true" {
		answer(w, 200, `{"hub":"hub-1","from":"westus2","to":"westcentralus","forced":true,"ready":true,"items_at_risk":12,"bytes_at_risk":3072,
			"seconds_at_risk":0.25,"known":false,"switch_ms":3609.8,"measured":1,"time_to_recover_ms":8609.8,"connections":20,"replication":"async"}`)
		return
	}
	answer(w, 200, `{"hub":"hub-1","from":"westus2","to":"westcentralus","forced":false,"ready":false,"known":true,"switch_ms":25,
		"reason":"fail over: hub hub-1: West US 2 does not answer (force it)","hint":"force it","time_to_recover_ms":25,"replication":"sync-strict"}`)
}

const twoSides = `{"value":[{"region":"westus2","known":false},{"region":"westcentralus","known":true,"role":"follower","epoch":3,
	"end":{"epoch":3,"number":90},"applied":{"epoch":3,"number":88},"lagItems":1,"lagSeconds":1.26,"lagKnown":false,"rootNumber":80}]}`

// Receipts of two forced failovers: the older one complete, the newer one still open.
var receipts = map[string]string{
	"r1": `{"id":"r1","hub_name":"hub-1","epoch":4,"region":"westus2","fork":{"epoch":3,"number":82},"state":"complete","first":83,"last":85,
		"items":3,"bytes":2048,"kinds":{"telemetry":2,"device put":1},"opened":"2026-01-02T03:04:05Z","closed":"2026-01-02T03:05:05Z",
		"oldest":"2026-01-02T03:04:01Z","newest":"2026-01-02T03:04:02.5Z"}`,
	"r2": `{"id":"r2","hub_name":"hub-1","epoch":6,"region":"westcentralus","fork":{"epoch":5,"number":9},"state":"provisional",
		"opened":"2026-01-03T03:04:05Z","heard_items":1,"heard_bytes":10,"heard_age_ms":3764}`,
}

func items(w http.ResponseWriter, r *http.Request) {
	switch r.PathValue("id") {
	case "r1":
		answer(w, 200, `{"time":"2026-01-02T03:04:01Z","kind":"telemetry","device":"press-4","partition":2,"number":17,"message_id":"m-1","bytes":600}
{"time":"2026-01-02T03:04:02Z","kind":"telemetry","device":"press-5","partition":0,"number":4294967296,"bytes":700}
{"time":"2026-01-02T03:04:02.5Z","kind":"device put","device":"press-6","partition":0,"bytes":748}
`)
	case "broken":
		answer(w, 200, `{"time":"2026-01-02T03:04:01Z","kind":"telemetry","device":"press-4","partition":2,"number":17,"bytes":600}
{"error":{"code":"ServiceUnavailable","message":"reach the hub: unavailable"}}
`)
	default:
		answer(w, 412, `{"error":{"code":"PreconditionFailed","message":"list the receipt: r2: it is provisional (the items are known once West Central US has returned)"}}`)
	}
}

func answer(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

func (f *fake) admin(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer secret" {
			answer(w, 401, `{"error":{"code":"AuthenticationFailed","message":"the token is not known"}}`)
			return
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		next(w, r)
	}
}

func (f *fake) service(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.Header.Get("Authorization"), "SharedAccessSignature sr=hub-1.test") || !strings.HasPrefix(r.Host, "hub-1.test") {
			answer(w, 401, `{"Message":"ErrorCode:IotHubUnauthorizedAccess;Unauthorized"}`)
			return
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		next(w, r)
	}
}

func (f *fake) body(name string) string {
	return fmt.Sprintf(`{"name":%q,"location":%q,"properties":{"hostName":"%s.test","state":"Active","locations":[{"location":"West US 2","role":"primary"},
		{"location":"West Central US","role":"secondary"}],"eventHubEndpoints":{"events":{"retentionTimeInDays":1,"partitionCount":4}},
		"tandem":{"home":"westus2","replication":"async","epoch":3,"penState":"open","platformFailover":"operator"}}}`,
		name, f.hubs[name], name)
}

func (f *fake) listHubs(w http.ResponseWriter, _ *http.Request) {
	answer(w, 200, `{"value":[`+f.body("hub-1")+`]}`)
}

func (f *fake) getHub(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("hub")
	if f.hubs[name] == "" {
		answer(w, 404, `{"error":{"code":"ResourceNotFound","message":"there is no hub of this name"}}`)
		return
	}
	answer(w, 200, f.body(name))
}

func (f *fake) putHub(w http.ResponseWriter, r *http.Request) {
	var spec struct{ Location string }
	_ = json.NewDecoder(r.Body).Decode(&spec)
	f.hubs[r.PathValue("hub")] = spec.Location
	answer(w, 201, f.body(r.PathValue("hub")))
}

func (f *fake) deleteHub(w http.ResponseWriter, r *http.Request) {
	delete(f.hubs, r.PathValue("hub"))
	w.WriteHeader(204)
}

func (f *fake) move(w http.ResponseWriter, r *http.Request) {
	var m struct {
		To                 string
		Forced, AcceptLoss bool
	}
	_ = json.NewDecoder(r.Body).Decode(&m)
	switch {
	case m.To == "westus2":
		answer(w, 409, `{"error":{"code":"AlreadyInRegion","message":"fail over: hub hub-1: it runs in West US 2 already"}}`)
	case m.To == "darkregion":
		answer(w, 409, `{"error":{"code":"SourceRegionDark","message":"fail over: hub hub-1: West US 2 does not answer (use force)"}}`)
	case m.To == "behindregion" && m.Forced && !m.AcceptLoss:
		answer(w, 409, `{"error":{"code":"NotInSync","message":"fail over: hub hub-1: it is not in the in-sync set (accept it)"}}`)
	default:
		f.to = m.To
		answer(w, 202, `{"id":"op1","kind":"failover","hub_name":"hub-1","status":"running"}`)
	}
}

func (f *fake) operation(w http.ResponseWriter, r *http.Request) {
	if r.PathValue("id") != "op1" {
		answer(w, 404, `{"error":{"code":"NotFound","message":"there is no such operation"}}`)
		return
	}
	f.looks++
	if f.looks < 2 {
		answer(w, 200, `{"id":"op1","kind":"failover","hub_name":"hub-1","from":"westus2","to":"westcentralus","status":"running",
			"steps":[{"name":"catch up","status":"running"}]}`)
		return
	}
	status, failure := "succeeded", ""
	if f.to == "brokenregion" {
		status, failure = "failed", `,"error":{"message":"the target is not healthy","hint":"look at tandem region status"}`
	}
	answer(w, 200, fmt.Sprintf(`{"id":"op1","kind":"failover","hub_name":"hub-1","from":"westus2","to":"westcentralus","status":%q%s,
		"started":"2026-01-02T03:04:05Z","ended":"2026-01-02T03:04:05.123Z",
		"steps":[{"name":"catch up","status":"succeeded","start":"2026-01-02T03:04:05Z","end":"2026-01-02T03:04:05.0315Z"},{"name":"open","status":%q}],
		"report":{"pause_ms":21.5,"epoch":4,"connections":20,"lost":{"receipt":"r1","items_at_risk":1,"bytes_at_risk":600,"seconds_at_risk":0.2}}}`,
		status, failure, status))
}

func (f *fake) bulk(w http.ResponseWriter, r *http.Request) {
	var changes []struct{ ID, ImportMode string }
	_ = json.NewDecoder(r.Body).Decode(&changes)
	var refused []string
	for _, c := range changes {
		if f.devices[c.ID] != "" && c.ImportMode == "create" {
			refused = append(refused, fmt.Sprintf(`{"deviceId":%q,"errorCode":"DeviceAlreadyExists","errorStatus":"it exists"}`, c.ID))
			continue
		}
		f.devices[c.ID] = fmt.Sprintf(`{"deviceId":%q}`, c.ID)
	}
	status := 200
	if refused != nil {
		status = 400
	}
	answer(w, status, fmt.Sprintf(`{"isSuccessful":%v,"errors":[%s]}`, refused == nil, strings.Join(refused, ",")))
}

func (f *fake) putDevice(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	f.devices[id] = fmt.Sprintf(`{"deviceId":%q,"status":"enabled","etag":"e1","authentication":{"type":"sas","symmetricKey":{"primaryKey":"S0VZ"}}}`, id)
	answer(w, 200, f.devices[id])
}

func (f *fake) getDevice(w http.ResponseWriter, r *http.Request) {
	if body := f.devices[r.PathValue("id")]; body != "" {
		answer(w, 200, body)
		return
	}
	answer(w, 404, `{"Message":"ErrorCode:DeviceNotFound;there is no such device"}`)
}
