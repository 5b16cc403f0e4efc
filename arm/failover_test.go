package arm_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"tandem"
	"tandem/arm"
	"tandem/directory"
	"tandem/failover"
	"tandem/operation"
	"tandem/pairlog"
)

// record writes an operation as its driver would.
func (w *world) record(o operation.Operation, ended bool) {
	value, err := json.Marshal(o)
	if err != nil {
		w.t.Fatal(err)
	}
	changes := []directory.Change{{Key: directory.OperationKey(o.ID), Value: value}}
	if ended {
		changes = append(changes, directory.Change{Key: directory.HubOperationKey(o.Hub), Delete: true})
	}
	if _, err := w.directory.Commit(w.t.Context(), directory.Txn{Then: changes}); err != nil {
		w.t.Fatal(err)
	}
}

func TestAzureFailover(t *testing.T) {
	w := newWorld(t, arm.Options{})
	want(t, w.do("PUT", hubs+"/fab"+version, create), 201, "")
	w.open("westus2", 1, pairlog.PenOpen)
	want(t, w.do("POST", hubs+"/fab/failover"+version, `{}`), 400, "InvalidFailoverRegion")
	r := w.do("POST", hubs+"/fab/failover"+version, `{"failoverRegion":"West Central US"}`)
	if body := want(t, r, 202, ""); body != "" || r.Header.Get("Retry-After") != "1" {
		t.Errorf("%q, %v", body, r.Header)
	}
	got := w.started[0]
	if got.To != "westcentralus" || got.Forced || !got.ForcedIfLapsed || got.Requested != "operator" {
		t.Errorf("asked for %+v", got)
	}
	trim := func(s string) string { return strings.TrimPrefix(s, "https://127.0.1.1:8443") }
	status, result := trim(r.Header.Get("Azure-AsyncOperation")), trim(r.Header.Get("Location"))
	if body := want(t, w.do("GET", hubs+"/fab"+version, ""), 200, ""); !strings.Contains(body, `"state":"FailingOver"`) {
		t.Errorf("while it moves: %s", body)
	}
	want(t, w.do("POST", hubs+"/fab/failover"+version, `{"failoverRegion":"westcentralus"}`), 409, "OperationInProgress")
	want(t, w.do("DELETE", hubs+"/fab"+version, ""), 409, "OperationInProgress")
	if body := want(t, w.do("GET", status, ""), 200, ""); !strings.Contains(body, `"status":"InProgress","startTime":"2026-01-02T12:00:00Z"}`) {
		t.Errorf("status: %s", body)
	}
	waiting := w.do("GET", result, "")
	if want(t, waiting, 202, ""); waiting.Header.Get("Location") == "" {
		t.Error("a 202 without Location")
	}

	o := operation.Operation{ID: string(got.Hub) + "-1", Hub: got.Hub, Status: operation.Failed, Started: now, Ended: now,
		Error: operation.NewFailure(&tandem.Error{Op: "fail over", Kind: tandem.Unavailable, Hint: "look at the target"})}
	w.record(o, true)
	if body := want(t, w.do("GET", status, ""), 200, ""); !strings.Contains(body, `"status":"Failed"`) ||
		!strings.Contains(body, `"error":{"code":"ServiceUnavailable","message":"fail over: unavailable (look at the target)"}`) {
		t.Errorf("failed: %s", body)
	}
	want(t, w.do("GET", result, ""), 503, "ServiceUnavailable")

	o.Status, o.Error = operation.Succeeded, nil
	w.record(o, true)
	w.open("westcentralus", 2, pairlog.PenOpen)
	if body := want(t, w.do("GET", status, ""), 200, ""); !strings.Contains(body, `"status":"Succeeded"`) {
		t.Errorf("succeeded: %s", body)
	}
	if body := want(t, w.do("GET", result, ""), 200, ""); !strings.Contains(body, `{"location":"West Central US","role":"primary"}`) {
		t.Errorf("result: %s", body)
	}
}

func TestOwnFailover(t *testing.T) {
	w := newWorld(t, arm.Options{NoLimits: true})
	want(t, w.do("PUT", hubs+"/fab"+version, create), 201, "")
	body := want(t, w.do("POST", "/tandem/hubs/fab/failover", `{"dryRun":true,"forced":true}`), 200, "")
	if !strings.Contains(body, `"to":"westcentralus","forced":true,"ready":true`) || len(w.started) != 0 {
		t.Errorf("dry run: %s, started %v", body, w.started)
	}
	want(t, w.do("GET", "/tandem/hubs/fab/forecast?to=West+Central+US&forced=true", ""), 200, "")
	r := w.do("POST", "/tandem/hubs/fab/failover", `{"to":"West Central US","forced":true,"acceptLoss":true}`)
	var o operation.Operation
	if err := json.Unmarshal([]byte(want(t, r, 202, "")), &o); err != nil || o.ID == "" || o.HubName != "fab" {
		t.Errorf("%+v, %v", o, err)
	}
	if got := w.started[0]; !got.Forced || !got.AcceptLoss || got.ForcedIfLapsed || got.To != "westcentralus" {
		t.Errorf("asked for %+v", got)
	}
	want(t, w.do("GET", "/tandem/operations/"+o.ID, ""), 200, "")
	if body := want(t, w.do("GET", "/tandem/operations?hub=FAB", ""), 200, ""); !strings.Contains(body, o.ID) {
		t.Errorf("list: %s", body)
	}
	if body := want(t, w.do("POST", "/tandem/operations/"+o.ID+"/cancel", ""), 202, ""); !strings.Contains(body, `"cancel_asked":true`) {
		t.Errorf("canceled: %s", body)
	}
}

func TestLimits(t *testing.T) {
	hour := time.Hour
	at := func(ago time.Duration, to tandem.RegionName) operation.Operation {
		return operation.Operation{Kind: operation.Failover, To: to, Status: operation.Succeeded, Requested: "operator", Started: now, Ended: now.Add(-ago)}
	}
	failed, automatic := at(0, "westcentralus"), at(0, "westcentralus")
	failed.Status, automatic.Requested = operation.Failed, "region"
	for name, c := range map[string]struct {
		history  []operation.Operation
		forecast failover.Forecast
		body     string
		status   int
	}{
		"first":                   {status: 202},
		"within the hour":         {history: []operation.Operation{at(59*time.Minute, "westus2")}, status: 409},
		"after the hour":          {history: []operation.Operation{at(61*time.Minute, "westus2")}, status: 202},
		"third of the day":        {history: []operation.Operation{at(3*hour, "westcentralus"), at(5*hour, "westcentralus")}, status: 409},
		"failbacks count apart":   {history: []operation.Operation{at(3*hour, "westus2"), at(5*hour, "westus2"), at(7*hour, "westcentralus")}, status: 202},
		"yesterday":               {history: []operation.Operation{at(13*hour, "westcentralus"), at(14*hour, "westcentralus")}, status: 202},
		"others do not count":     {history: []operation.Operation{failed, automatic}, status: 202},
		"off a dark region":       {history: []operation.Operation{at(0, "westus2")}, forecast: failover.Forecast{Ready: true, Forced: true}, status: 202},
		"forced, source is alive": {history: []operation.Operation{at(0, "westus2")}, body: `{"forced":true}`, status: 409},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, arm.Options{})
			want(t, w.do("PUT", hubs+"/fab"+version, create), 201, "")
			h, err := w.catalog.Hub("fab")
			if err != nil {
				t.Fatal(err)
			}
			for i, o := range c.history {
				o.ID, o.Hub = string(h.ID)+"-h"+string(rune('a'+i)), h.ID
				w.record(o, false)
			}
			if c.forecast.Ready {
				w.forecast = c.forecast
			}
			code := ""
			if c.status == 409 {
				code = "IotHubFailoverLimit"
			}
			want(t, w.do("POST", "/tandem/hubs/fab/failover", c.body), c.status, code)
		})
	}
}

func TestReceipts(t *testing.T) {
	w := newWorld(t, arm.Options{})
	want(t, w.do("PUT", hubs+"/fab"+version, create), 201, "")
	h, err := w.catalog.Hub("fab")
	if err != nil {
		t.Fatal(err)
	}
	receipt := failover.Receipt{ID: string(h.ID) + "-e2", Hub: h.ID, Epoch: 2, Region: "westus2", State: failover.Provisional, Opened: now}
	value, _ := json.Marshal(receipt)
	if _, err := w.directory.Commit(t.Context(), directory.Txn{Then: []directory.Change{
		{Key: directory.ReceiptKey(h.ID, receipt.ID), Value: value}}}); err != nil {
		t.Fatal(err)
	}
	if body := want(t, w.do("GET", "/tandem/hubs/fab/receipts", ""), 200, ""); !strings.Contains(body, receipt.ID) {
		t.Errorf("list: %s", body)
	}
	want(t, w.do("GET", "/tandem/receipts/"+receipt.ID, ""), 200, "")
	w.itemsErr = &tandem.Error{Op: "list the receipt", Kind: tandem.Precondition}
	want(t, w.do("GET", "/tandem/receipts/"+receipt.ID+"/items", ""), 412, "PreconditionFailed")
	w.items = []failover.TailItem{{Kind: "telemetry", Device: "d1", Number: 7, Time: now, Bytes: 3}, {Kind: "telemetry", Device: "d2", Time: now}}
	lines := strings.Split(strings.TrimSpace(want(t, w.do("GET", "/tandem/receipts/"+receipt.ID+"/items", ""), 200, "")), "\n")
	if len(lines) != 3 || !strings.Contains(lines[0], `"device":"d1"`) || !strings.HasPrefix(lines[2], `{"error":{"code":"PreconditionFailed"`) {
		t.Errorf("items: %q", lines)
	}
	if body := want(t, w.do("POST", "/tandem/receipts/"+receipt.ID+"/close", ""), 200, ""); !strings.Contains(body, `"state":"closed incomplete"`) {
		t.Errorf("closed: %s", body)
	}
}
