package arm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"tandem"
	"tandem/catalog"
	"tandem/directory"
	"tandem/operation"
	"tandem/pairlog"
)

// hub returns the hub of the path, in the group of the path.
func (d *Door) hub(q *request) (catalog.Hub, error) {
	name := q.names["hub"]
	if catalog.CheckName(tandem.HubName(name)) != nil { // no host names and aliases here
		return catalog.Hub{}, catalog.ErrHubNotFound
	}
	h, err := d.options.Catalog.Hub(name)
	if err != nil {
		return h, fmt.Errorf("hub %s: %w", name, err)
	}
	if group, ok := q.names["group"]; ok && !strings.EqualFold(group, h.Group) {
		return catalog.Hub{}, fmt.Errorf("hub %s in resource group %s: %w", name, group, catalog.ErrHubNotFound)
	}
	return h, nil
}

// facts reads what the directory has about hubs: one, or all with an empty id. A directory without majority gives facts
// that are not known, so that hubs can be looked at all the same.
func (d *Door) facts(ctx context.Context, id tandem.HubID) map[tandem.HubID]hubFacts {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	dir := d.options.Directory
	pens, _, err1 := dir.List(ctx, directory.PenKey(id))
	sets, _, err2 := dir.List(ctx, directory.InSyncKey(id))
	moves, _, err3 := dir.List(ctx, directory.HubOperationKey(id))
	all := map[tandem.HubID]hubFacts{}
	if errors.Join(err1, err2, err3) != nil {
		return all
	}
	for _, h := range d.options.Catalog.Hubs() {
		all[h.ID] = hubFacts{known: true}
	}
	for _, item := range pens {
		id := tandem.HubID(strings.TrimPrefix(item.Key, directory.PenKey("")))
		f := all[id]
		f.known = f.known && json.Unmarshal(item.Value, &f.pen) == nil
		all[id] = f
	}
	for _, item := range sets {
		id := tandem.HubID(strings.TrimPrefix(item.Key, directory.InSyncKey("")))
		f := all[id]
		f.known = f.known && json.Unmarshal(item.Value, &f.inSync) == nil
		all[id] = f
	}
	for _, item := range moves {
		id := tandem.HubID(strings.TrimPrefix(item.Key, directory.HubOperationKey("")))
		f := all[id]
		f.running = &operation.Operation{ID: string(item.Value), Hub: id}
		all[id] = f
	}
	return all
}

func (d *Door) body(q *request, h catalog.Hub) hubBody {
	return newHubBody(h, d.options.Catalog.HostName(h.Name), d.facts(q.Context(), h.ID)[h.ID])
}

func (d *Door) getHub(q *request) error {
	h, err := d.hub(q)
	if err != nil {
		return err
	}
	return q.answer(http.StatusOK, d.body(q, h))
}

func (d *Door) listHubs(q *request) error {
	facts := d.facts(q.Context(), "")
	hubs := []hubBody{}
	for _, h := range d.options.Catalog.Hubs() {
		if group, ok := q.names["group"]; !ok || strings.EqualFold(group, h.Group) {
			hubs = append(hubs, newHubBody(h, d.options.Catalog.HostName(h.Name), facts[h.ID]))
		}
	}
	return q.answer(http.StatusOK, listOf(hubs))
}

// putHub creates a hub (201 and a long-running operation, which ends when the hub's region has opened it) or changes
// one (200).
func (d *Door) putHub(q *request) error {
	var in hubInput
	if err := q.read(&in); err != nil {
		return err
	}
	if err := in.check(); err != nil {
		return err
	}
	_, err := d.hub(q)
	switch {
	case err == nil:
		return d.updateHub(q, &in)
	case !errors.Is(err, catalog.ErrHubNotFound):
		return err
	}
	if match := ifMatch(q); match != "" && match != "*" {
		return catalog.ErrHubEtag
	}
	days, partitions := in.events()
	spec := catalog.Hub{Name: tandem.HubName(q.names["hub"]), Group: q.names["group"], Home: tandem.ParseRegion(in.Location),
		Partitions: partitions, RetentionDays: days}
	in.apply(&spec)
	if in.Location == "" {
		return fmt.Errorf("a new hub needs a location: %w", errLocation)
	}
	h, err := d.options.Catalog.CreateHub(q.Context(), spec)
	if err != nil {
		return err
	}
	q.follow(h, createPrefix+string(h.ID))
	return q.answer(http.StatusCreated, d.body(q, h))
}

func (d *Door) updateHub(q *request, in *hubInput) error {
	h, err := d.options.Catalog.UpdateHub(q.Context(), tandem.HubName(q.names["hub"]), ifMatch(q), func(h *catalog.Hub) error {
		region := tandem.ParseRegion(in.Location)
		if _, ok := h.Pair.Other(region); in.Location != "" && !ok {
			return fmt.Errorf("hub %s runs in %s and %s, and this can't be changed: %w", h.Name, h.Pair.A, h.Pair.B, errLocation)
		}
		if _, n := in.events(); n != 0 && n != h.Partitions {
			return invalid("the number of event partitions can't be changed")
		}
		in.apply(h)
		return nil
	})
	if err != nil {
		return err
	}
	return q.answer(http.StatusOK, d.body(q, h))
}

// patchHub changes tags, as Azure's PATCH does.
func (d *Door) patchHub(q *request) error {
	if _, err := d.hub(q); err != nil {
		return err
	}
	var in hubInput
	if err := q.read(&in); err != nil {
		return err
	}
	h, err := d.options.Catalog.UpdateHub(q.Context(), tandem.HubName(q.names["hub"]), ifMatch(q), func(h *catalog.Hub) error {
		if in.Tags != nil {
			h.Tags = *in.Tags
		}
		return nil
	})
	if err != nil {
		return err
	}
	return q.answer(http.StatusOK, d.body(q, h))
}

// deleteHub removes a hub; it is gone when the answer arrives. A hub that is not there is deleted already.
func (d *Door) deleteHub(q *request) error {
	_, err := d.hub(q)
	if err == nil {
		err = d.options.Catalog.DeleteHub(q.Context(), tandem.HubName(q.names["hub"]), ifMatch(q))
	}
	if err != nil && !errors.Is(err, catalog.ErrHubNotFound) {
		return err
	}
	q.w.WriteHeader(http.StatusNoContent)
	return nil
}

func (d *Door) listKeys(q *request) error {
	h, err := d.hub(q)
	if err != nil {
		return err
	}
	policies := make([]policyBody, len(h.Policies))
	for i, p := range h.Policies {
		policies[i] = newPolicyBody(p)
	}
	return q.answer(http.StatusOK, listOf(policies))
}

func (d *Door) getKey(q *request) error {
	h, err := d.hub(q)
	if err != nil {
		return err
	}
	p, ok := h.Policy(q.names["key"])
	if !ok {
		return catalog.ErrPolicyNotFound
	}
	return q.answer(http.StatusOK, newPolicyBody(p))
}

func (d *Door) hubStats(q *request) error {
	h, err := d.hub(q)
	if err != nil {
		return err
	}
	open, err := d.options.Hubs.Hub(string(h.Name))
	if err != nil {
		return err
	}
	s, err := open.Handle.Statistics(q.Context())
	if err != nil {
		return err
	}
	return q.answer(http.StatusOK, map[string]int64{"totalDeviceCount": s.Total, "enabledDeviceCount": s.Enabled, "disabledDeviceCount": s.Disabled})
}

func (d *Door) quotaMetrics(q *request) error {
	h, err := d.hub(q)
	if err != nil {
		return err
	}
	open, err := d.options.Hubs.Hub(string(h.Name))
	if err != nil {
		return err
	}
	s, err := open.Handle.Statistics(q.Context())
	if err != nil {
		return err
	}
	type metric struct {
		Name         string `json:"name"`
		CurrentValue int64  `json:"currentValue"`
		MaxValue     int64  `json:"maxValue"`
	}
	return q.answer(http.StatusOK, listOf([]metric{
		{"TotalMessages", s.MessagesToday, h.DailyMessages()}, {"TotalDeviceCount", s.Total, 1_000_000},
	}))
}

// skus lists what a hub could be changed to.
func (d *Door) skus(q *request) error {
	h, err := d.hub(q)
	if err != nil {
		return err
	}
	var skus []any
	for _, name := range []string{"S1", "S2", "S3"} {
		most := 200
		if name == "S3" {
			most = 10
		}
		skus = append(skus, map[string]any{
			"resourceType": "Microsoft.Devices/IotHubs",
			"sku":          map[string]any{"name": name, "tier": "Standard"},
			"capacity":     map[string]any{"minimum": 1, "maximum": most, "default": h.SKU.Capacity, "scaleType": "Manual"},
		})
	}
	return q.answer(http.StatusOK, listOf(skus))
}

func (d *Door) checkName(q *request) error {
	var in struct{ Name string }
	if err := q.read(&in); err != nil {
		return err
	}
	out := struct {
		Available bool   `json:"nameAvailable"`
		Reason    string `json:"reason,omitempty"`
		Message   string `json:"message,omitempty"`
	}{Available: true}
	if err := catalog.CheckName(tandem.HubName(in.Name)); err != nil {
		out.Available, out.Reason, out.Message = false, "Invalid", tell(err)
	} else if _, err := d.options.Catalog.Hub(in.Name); err == nil {
		out.Available, out.Reason, out.Message = false, "AlreadyExists", "the hub name "+in.Name+" is taken"
	} else if !errors.Is(err, catalog.ErrHubNotFound) {
		return err
	}
	return q.answer(http.StatusOK, out)
}

var quoted = regexp.MustCompile(`'IF-MATCH':\s*'([^']*)'`)

// ifMatch is the etag of the request's header, without quotes. az sends a dictionary turned to text (specs/wire-facts.md §13).
func ifMatch(q *request) string {
	header := q.Header.Get("If-Match")
	if m := quoted.FindStringSubmatch(header); m != nil {
		return m[1]
	}
	return strings.Trim(strings.TrimPrefix(strings.TrimSpace(header), "W/"), `"`)
}

// opened reports whether a hub that was created has been opened by its region.
func opened(f hubFacts) bool { return f.known && (f.pen.Epoch > 1 || f.pen.State == pairlog.PenOpen) }
