package arm

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"tandem"
	"tandem/catalog"
	"tandem/failover"
	"tandem/operation"
)

// createPrefix begins the operation ids of hubs that are being created: the rest is the hub's id. Nothing is stored
// for them; the pen tells how far they are.
const createPrefix = "create-"

// azureFailover is Azure's manual failover: planned while the holder lives, forced once its lease has lapsed.
func (d *Door) azureFailover(q *request) error {
	h, err := d.hub(q)
	if err != nil {
		return err
	}
	var in struct{ FailoverRegion string }
	if err := q.read(&in); err != nil {
		return err
	}
	to := tandem.ParseRegion(in.FailoverRegion)
	if to == "" {
		return fmt.Errorf("failoverRegion is missing: %w", failover.ErrUnpaired)
	}
	o, err := d.start(q.Context(), h, failover.Request{Hub: h.ID, To: to, ForcedIfLapsed: true})
	if err != nil {
		return err
	}
	q.follow(h, o.ID)
	q.w.WriteHeader(http.StatusAccepted)
	return nil
}

// start begins a move on an operator's behalf, if the limits allow it. Nothing refuses a move off a dark region.
func (d *Door) start(ctx context.Context, h catalog.Hub, r failover.Request) (operation.Operation, error) {
	r.Requested = byOperator
	if !d.options.NoLimits {
		f, err := d.options.Failover.Forecast(ctx, r)
		if err != nil {
			return operation.Operation{}, err
		}
		dark := f.Forced && (!r.Forced || !f.Known)
		if f.Ready && !dark {
			history, err := operation.List(ctx, d.options.Directory, h.ID)
			if err != nil {
				return operation.Operation{}, err
			}
			if err := checkMoves(d.options.Clock.Now(), h.Home, f.To, history); err != nil {
				return operation.Operation{}, err
			}
		}
	}
	return d.options.Failover.Start(ctx, r)
}

// follow sets the headers by which clients wait for a long-running operation: one address tells its status, the other
// answers 202 until it has ended and then the hub (specs/wire-facts.md §13.1).
func (q *request) follow(h catalog.Hub, id string) {
	path := fmt.Sprintf("/subscriptions/%s/providers/Microsoft.Devices/locations/%s/operationResults/%s?api-version=%s",
		h.Subscription, h.Home, id, url.QueryEscape(q.query.Get("api-version")))
	header := q.w.Header()
	header.Set("Azure-AsyncOperation", q.url(path))
	header.Set("Location", q.url(path+"&result=true"))
	header.Set("Retry-After", "1")
}

// A statusBody is ARM's document about a long-running operation.
type statusBody struct {
	ID        string     `json:"id"`
	Name      string     `json:"name"`
	Status    string     `json:"status"`
	StartTime time.Time  `json:"startTime"`
	EndTime   *time.Time `json:"endTime,omitempty"`
	Error     *errorBody `json:"error,omitempty"`
}

// statusWords are ARM's words, by which pollers know the end.
var statusWords = map[operation.Status]string{
	operation.Running: "InProgress", operation.Succeeded: "Succeeded", operation.Failed: "Failed", operation.Canceled: "Canceled",
}

func (d *Door) operationResult(q *request) error {
	h, status, failed, err := d.progress(q, q.names["operation"])
	if err != nil {
		return err
	}
	status.ID, status.Name = q.URL.Path, q.names["operation"]
	if _, result := q.query["result"]; !result {
		if status.Status == "InProgress" {
			q.w.Header().Set("Retry-After", "1")
		}
		return q.answer(http.StatusOK, status)
	}
	switch {
	case status.Status == "InProgress":
		q.w.Header().Set("Location", q.url(q.URL.RequestURI()))
		q.w.Header().Set("Retry-After", "1")
		return q.answer(http.StatusAccepted, status)
	case failed != nil:
		return failed
	}
	return q.answer(http.StatusOK, d.body(q, h))
}

// progress tells how far an operation is; failed is why it did not succeed, when it has ended so.
func (d *Door) progress(q *request, id string) (h catalog.Hub, s statusBody, failed, err error) {
	if hub, ok := strings.CutPrefix(id, createPrefix); ok {
		if h, err = d.options.Catalog.HubByID(tandem.HubID(hub)); err != nil {
			return h, s, nil, err
		}
		s.Status, s.StartTime = "InProgress", h.Created
		if opened(d.facts(q.Context(), h.ID)[h.ID]) {
			s.Status = "Succeeded"
		}
		return h, s, nil, nil
	}
	o, err := operation.Load(q.Context(), d.options.Directory, id)
	if err != nil {
		return h, s, nil, err
	}
	if h, err = d.options.Catalog.HubByID(o.Hub); err != nil {
		return h, s, nil, err
	}
	s.Status, s.StartTime = statusWords[o.Status], o.Started
	if !o.Ended.IsZero() {
		s.EndTime = &o.Ended
	}
	if o.Error != nil {
		failed = failure(o.Error)
		s.Error = &errorBody{answerTo(failed).code, tell(failed)}
	}
	return h, s, failed, nil
}

// failure is a kept error as one again.
func failure(f *operation.Failure) error {
	return &tandem.Error{Kind: f.Kind, Err: textError(strings.TrimSuffix(f.Message, " ("+f.Hint+")")), Hint: f.Hint}
}

type textError string

func (e textError) Error() string { return string(e) }
