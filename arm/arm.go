// Package arm is the door for operators: Azure Resource Manager's paths, versions and long-running answers for
// Microsoft.Devices (specs/wire-facts.md §13), and Tandem's own calls under /tandem/ on the same port.
//
// Every region answers: resources are read from the catalog, pens and operations from the directory. What a failover
// does is package failover's; here is only how it is asked for, how often that may be, and how its progress is told.
package arm

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"tandem"
	"tandem/catalog"
	"tandem/directory"
	"tandem/failover"
	"tandem/gateway"
	"tandem/operation"
)

// Limits of a request.
const (
	maxBody     = 256 << 10
	maxRequests = 128 // at once; more are refused with 429
	within      = 30 * time.Second
	longWithin  = time.Hour
)

// Failover moves hubs and knows what that costs; failover.Controller does it.
type Failover interface {
	Start(ctx context.Context, r failover.Request) (operation.Operation, error)
	Forecast(ctx context.Context, r failover.Request) (failover.Forecast, error)
	Status(ctx context.Context, hub tandem.HubID) (map[tandem.RegionName]failover.Side, error)
	Items(ctx context.Context, receipt string, fn func(failover.TailItem) error) error
}

// Regions tells how the installation's regions are, as this node sees them.
type Regions interface {
	Regions(ctx context.Context) ([]Region, error)
}

// A Region is one region as GET /tandem/regions shows it.
type Region struct {
	Name    tandem.RegionName `json:"name"`
	Display string            `json:"display"` // filled in here
	Self    bool              `json:"self"`
	Alive   bool              `json:"alive"`
	Nodes   []Node            `json:"nodes"`
	// Hubs are the names of the hubs whose pen the region has.
	Hubs []tandem.HubName `json:"hubs"`
	// LagItems and LagSeconds are the largest of the region's copies behind their holders.
	LagItems   uint64  `json:"lagItems"`
	LagSeconds float64 `json:"lagSeconds"`
	// Directory is "ok" or "no majority".
	Directory string `json:"directory"`
	// OneMoreLossStops is true when the directory has a majority and no member to spare.
	OneMoreLossStops bool `json:"oneMoreLossStops"`
}

// A Node is one process of a region.
type Node struct {
	Name    tandem.NodeName `json:"name"`
	Address string          `json:"address"` // of its management door, "host:port"
	Started time.Time       `json:"started"`
	Alive   bool            `json:"alive"`
}

// Options are what a Door works with. Catalog, Directory, Hubs, Failover, Regions and Clock are needed.
type Options struct {
	Catalog   *catalog.Catalog
	Directory directory.Store
	Hubs      gateway.Hubs
	Failover  Failover
	Regions   Regions
	Clock     tandem.Clock
	Logger    *slog.Logger
	// NoLimits lets a hub be moved by hand as often as one likes; else Azure's limits hold.
	NoLimits bool
}

// Door is an http.Handler for operators.
type Door struct {
	options  Options
	requests chan struct{}
}

// New returns a door. It starts nothing.
func New(o Options) *Door {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Door{options: o, requests: make(chan struct{}, maxRequests)}
}

// Server returns a server for the door with its deadlines and limits set; the caller gives it TLS and a listener.
func (d *Door) Server() *http.Server {
	return &http.Server{
		Handler:           d,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       within,
		WriteTimeout:      2 * within,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(d.options.Logger.Handler(), slog.LevelDebug),
	}
}

// A request is one HTTP request on its way: the names that its path holds, decoded once, and its query.
type request struct {
	*http.Request
	w     http.ResponseWriter
	names map[string]string // by the route's {name}
	query url.Values
}

// ServeHTTP answers one request.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := &request{Request: r, w: w, query: r.URL.Query()}
	if err := d.serve(q); err != nil {
		d.fail(q, err)
	}
}

func (d *Door) serve(q *request) error {
	select {
	case d.requests <- struct{}{}:
		defer func() { <-d.requests }()
	default:
		return errBusy
	}
	if err := d.authorize(q); err != nil {
		return err
	}
	route, err := find(q)
	if err != nil {
		return err
	}
	if !route.own {
		if q.query.Get("api-version") == "" {
			return errNoVersion
		}
		if s, ok := q.names["subscription"]; ok && !strings.EqualFold(s, d.options.Catalog.Subscription()) {
			return errSubscription
		}
	}
	q.Body = http.MaxBytesReader(q.w, q.Body, maxBody)
	limit := within
	if route.long {
		limit = longWithin
		_ = http.NewResponseController(q.w).SetReadDeadline(time.Time{}) // the server's would end the list
	}
	ctx, cancel := context.WithTimeout(q.Context(), limit)
	defer cancel()
	q.Request = q.WithContext(ctx)
	return route.serve(d, q)
}

// authorize asks for the administrators' bearer token.
func (d *Door) authorize(q *request) error {
	header := q.Header.Get("Authorization")
	scheme, token, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return catalog.ErrToken
	}
	return d.options.Catalog.CheckToken(strings.TrimSpace(token))
}

// read decodes a JSON body into v; an empty one leaves v as it is.
func (q *request) read(v any) error {
	b, err := io.ReadAll(q.Body)
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return &tandem.Error{Op: "read the request", Kind: tandem.TooLarge}
	case err != nil:
		return &tandem.Error{Op: "read the request", Kind: tandem.Invalid, Err: err}
	case len(b) == 0:
		return nil
	}
	if err := json.Unmarshal(b, v); err != nil {
		return &tandem.Error{Op: "read the request", Kind: tandem.Invalid, Err: err}
	}
	return nil
}

// answer writes v as JSON.
func (q *request) answer(status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return &tandem.Error{Op: "write the answer", Kind: tandem.Internal, Err: err}
	}
	q.w.Header().Set("Content-Type", "application/json; charset=utf-8")
	q.w.Header().Set("Cache-Control", "no-store")
	q.w.WriteHeader(status)
	_, _ = q.w.Write(b) // a client that left is nobody's error
	return nil
}

// list is how ARM and we wrap lists.
type list[T any] struct {
	Value []T `json:"value"`
}

func listOf[T any](items []T) list[T] {
	if items == nil {
		items = []T{}
	}
	return list[T]{items}
}

// url is an absolute address on this door, for a header that clients follow.
func (q *request) url(path string) string {
	scheme := "https"
	if q.TLS == nil {
		scheme = "http"
	}
	return scheme + "://" + q.Host + path
}

func invalid(hint string) error {
	return &tandem.Error{Op: "read the request", Kind: tandem.Invalid, Hint: hint}
}
