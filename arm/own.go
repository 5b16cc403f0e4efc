package arm

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"tandem"
	"tandem/failover"
	"tandem/operation"
	"tandem/pairlog"
)

func (d *Door) regions(q *request) error {
	regions, err := d.options.Regions.Regions(q.Context())
	if err != nil {
		return err
	}
	for i := range regions {
		regions[i].Display = regions[i].Name.Display()
		if regions[i].Nodes == nil {
			regions[i].Nodes = []Node{}
		}
		if regions[i].Hubs == nil {
			regions[i].Hubs = []tandem.HubName{}
		}
	}
	return q.answer(http.StatusOK, listOf(regions))
}

// A sideBody is one region's part of a hub. All but the first fields are left out when the region does not answer.
type sideBody struct {
	Region tandem.RegionName `json:"region"`
	Known  bool              `json:"known"`
	*facts
}

type facts struct {
	Role        failover.Role `json:"role"`
	Epoch       tandem.Epoch  `json:"epoch"`
	End         pairlog.Fork  `json:"end"`
	Applied     pairlog.Fork  `json:"applied"`
	LagItems    uint64        `json:"lagItems"`
	LagBytes    uint64        `json:"lagBytes"`
	LagSeconds  float64       `json:"lagSeconds"`
	LagKnown    bool          `json:"lagKnown"`
	ViewLag     uint64        `json:"viewLag"` // in records
	PeerAcked   uint64        `json:"peerAcked"`
	PeerAckMS   float64       `json:"peerAckAgeMs"`
	PeerKnown   bool          `json:"peerKnown"`
	Sessions    int           `json:"sessions"`
	Damaged     string        `json:"damaged,omitempty"`
	NeedsReseed bool          `json:"needsReseed"`
	// Root is the region's own state root at the record RootNumber, the newest that carries the holder's.
	Root        pairlog.Hash `json:"root"`
	RootNumber  uint64       `json:"rootNumber"`
	RootDiffers bool         `json:"rootDiffers"`
}

// status shows what both regions know of a hub's log and view, its home first.
func (d *Door) status(q *request) error {
	h, err := d.hub(q)
	if err != nil {
		return err
	}
	sides, err := d.options.Failover.Status(q.Context(), h.ID)
	if err != nil {
		return err
	}
	bodies := []sideBody{}
	for _, region := range []tandem.RegionName{h.Home, h.Peer()} {
		side, ok := sides[region]
		if !ok {
			continue
		}
		body := sideBody{Region: region, Known: side.Known}
		if f := side.Facts; side.Known {
			body.facts = &facts{
				Role: f.Role, Epoch: f.Epoch, End: f.End, Applied: f.Applied, LagItems: f.Lag.Items, LagBytes: f.Lag.Bytes,
				LagSeconds: f.Lag.Age.Seconds(), LagKnown: f.Lag.Known, ViewLag: f.ViewLag, PeerAcked: f.PeerAcked,
				PeerAckMS: milliseconds(f.PeerAckAge), PeerKnown: f.PeerKnown, Sessions: f.Sessions,
				Damaged: f.Damaged, NeedsReseed: f.NeedsReseed,
				Root: f.Root, RootNumber: f.RootNumber, RootDiffers: f.RootDiffers,
			}
		}
		bodies = append(bodies, body)
	}
	return q.answer(http.StatusOK, listOf(bodies))
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func (d *Door) forecast(q *request) error {
	h, err := d.hub(q)
	if err != nil {
		return err
	}
	r := failover.Request{Hub: h.ID, To: tandem.ParseRegion(q.query.Get("to"))}
	if text := q.query.Get("forced"); text != "" {
		if r.Forced, err = strconv.ParseBool(text); err != nil {
			return invalid("forced is true or false")
		}
	}
	f, err := d.options.Failover.Forecast(q.Context(), r)
	if err != nil {
		return err
	}
	return q.answer(http.StatusOK, f)
}

// failover starts a move and answers its operation, or with dryRun the forecast of it.
func (d *Door) failover(q *request) error {
	h, err := d.hub(q)
	if err != nil {
		return err
	}
	var in struct {
		To                         string
		Forced, AcceptLoss, DryRun bool
	}
	if err := q.read(&in); err != nil {
		return err
	}
	r := failover.Request{Hub: h.ID, To: tandem.ParseRegion(in.To), Forced: in.Forced, AcceptLoss: in.AcceptLoss}
	if in.DryRun {
		f, err := d.options.Failover.Forecast(q.Context(), r)
		if err != nil {
			return err
		}
		return q.answer(http.StatusOK, f)
	}
	o, err := d.start(q.Context(), h, r)
	if err != nil {
		return err
	}
	q.w.Header().Set("Location", q.url("/tandem/operations/"+o.ID))
	q.w.Header().Set("Retry-After", "1")
	return q.answer(http.StatusAccepted, o)
}

func (d *Door) operations(q *request) error {
	var id tandem.HubID
	if name := q.query.Get("hub"); name != "" {
		h, err := d.options.Catalog.Hub(name)
		if err != nil {
			return err
		}
		id = h.ID
	}
	list, err := operation.List(q.Context(), d.options.Directory, id)
	if err != nil {
		return err
	}
	return q.answer(http.StatusOK, listOf(list))
}

func (d *Door) operation(q *request) error {
	o, err := operation.Load(q.Context(), d.options.Directory, q.names["operation"])
	if err != nil {
		return err
	}
	return q.answer(http.StatusOK, o)
}

func (d *Door) cancel(q *request) error {
	o, err := operation.Cancel(q.Context(), d.options.Directory, q.names["operation"])
	if err != nil {
		return err
	}
	return q.answer(http.StatusAccepted, o)
}

func (d *Door) receipts(q *request) error {
	h, err := d.hub(q)
	if err != nil {
		return err
	}
	list, err := failover.ListReceipts(q.Context(), d.options.Directory, h.ID)
	if err != nil {
		return err
	}
	return q.answer(http.StatusOK, listOf(list))
}

func (d *Door) receipt(q *request) error {
	r, err := failover.LoadReceipt(q.Context(), d.options.Directory, q.names["receipt"])
	if err != nil {
		return err
	}
	return q.answer(http.StatusOK, r)
}

func (d *Door) closeReceipt(q *request) error {
	r, err := failover.CloseReceipt(q.Context(), d.options.Directory, q.names["receipt"], d.options.Clock.Now())
	if err != nil {
		return err
	}
	return q.answer(http.StatusOK, r)
}

// items lists what a receipt counts, one JSON document a line. A failure in the middle is a last line {"error":{…}}.
func (d *Door) items(q *request) error {
	control := http.NewResponseController(q.w)
	lines := json.NewEncoder(q.w)
	started := false
	begin := func() {
		if !started {
			started = true
			q.w.Header().Set("Content-Type", "application/x-ndjson; charset=utf-8")
			q.w.WriteHeader(http.StatusOK)
		}
	}
	ctx := q.Context()
	err := d.options.Failover.Items(ctx, q.names["receipt"], func(item failover.TailItem) error {
		begin()
		_ = control.SetWriteDeadline(time.Now().Add(within))
		return lines.Encode(item)
	})
	if err != nil && !started {
		return err
	}
	begin()
	if err != nil && ctx.Err() == nil {
		_ = lines.Encode(map[string]errorBody{"error": {answerTo(err).code, tell(err)}})
	}
	return nil
}
