// Package https is the door for HTTPS: the identity registry and telemetry as Azure IoT Hub offers them over REST
// (specs/wire-facts.md §4 and §5), and Tandem's own stream of a hub's events as JSON lines.
//
//	request ─▶ route ─▶ authorize (SAS) ─▶ hub.Command ─▶ hub.Handle.Do ─▶ body as the SDKs read it
//
// What Azure offers here and Tandem has not built answers 404013 FeatureNotSupported and says what it is.
package https

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"tandem"
	"tandem/gateway"
)

// Limits of a request. Bodies are read whole, so that requests × MaxBulk bounds what they take.
const (
	maxDevice   = 64 << 10
	maxBulk     = 1 << 20
	maxRequests = 256 // at once; more are refused with 429
	maxStreams  = 64  // event streams at once
	within      = 30 * time.Second
)

// Options are what a Door works with. Hubs and Clock are needed.
type Options struct {
	Hubs   gateway.Hubs
	Clock  tandem.Clock
	Logger *slog.Logger
	// Random makes device keys and tracking ids; nil is crypto/rand.
	Random io.Reader
	// WebSocket serves /$iothub/websocket and /$servicebus/websocket; nil means they are not offered.
	WebSocket http.Handler
}

// Door is an http.Handler for the hub's host names.
type Door struct {
	options  Options
	requests chan struct{}
	streams  chan struct{}
}

// New returns a door over the hubs of o. It starts nothing.
func New(o Options) *Door {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Random == nil {
		o.Random = rand.Reader
	}
	return &Door{options: o, requests: make(chan struct{}, maxRequests), streams: make(chan struct{}, maxStreams)}
}

// Server returns a server for the door with its deadlines and limits set; the caller gives it TLS and a listener.
func (d *Door) Server() *http.Server {
	return &http.Server{
		Handler:           d,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       within,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(d.options.Logger.Handler(), slog.LevelDebug),
	}
}

// A request is one HTTP request on its way: its path taken apart, and who asks for what.
type request struct {
	*http.Request
	w       http.ResponseWriter
	path    []string // segments, decoded once, without a trailing empty one
	query   url.Values
	hub     gateway.Hub
	expires time.Time // of the token
}

// ServeHTTP answers one request.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if d.options.WebSocket != nil && (r.URL.Path == "/$iothub/websocket" || r.URL.Path == "/$servicebus/websocket") {
		d.options.WebSocket.ServeHTTP(w, r)
		return
	}
	q := &request{Request: r, w: w, query: r.URL.Query()}
	if err := d.serve(q); err != nil {
		d.fail(q, err)
	}
}

func (d *Door) serve(q *request) error {
	var err error
	if q.path, err = segments(q.URL); err != nil {
		return err
	}
	route, err := find(q.Method, q.path)
	if err != nil {
		return err
	}
	slots := d.requests
	if route.stream {
		slots = d.streams
	} else {
		if q.query.Get("api-version") == "" {
			return errNoVersion
		}
		ctx, cancel := context.WithTimeout(q.Context(), within)
		defer cancel()
		q.Request = q.WithContext(ctx)
		_ = http.NewResponseController(q.w).SetWriteDeadline(time.Now().Add(2 * within))
	}
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
	default:
		return errBusy
	}
	if err := d.authorize(q, route); err != nil {
		return err
	}
	if route.maxBody > 0 {
		q.Body = http.MaxBytesReader(q.w, q.Body, route.maxBody)
	}
	return route.serve(d, q)
}

// segments splits a path and decodes each part once; a trailing slash does not matter.
func segments(u *url.URL) ([]string, error) {
	path := strings.Split(strings.Trim(u.EscapedPath(), "/"), "/")
	for i, part := range path {
		decoded, err := url.PathUnescape(part)
		if err != nil {
			return nil, invalid("the path is not percent-encoded as it should be")
		}
		path[i] = decoded
	}
	return path, nil
}

// read decodes a JSON body into v.
func (q *request) read(v any) error {
	b, err := q.body()
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return &tandem.Error{Op: "read the request", Kind: tandem.Invalid, Err: err}
	}
	return nil
}

func (q *request) body() ([]byte, error) {
	b, err := io.ReadAll(q.Body)
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, errBodyTooLarge
	case err != nil:
		return nil, &tandem.Error{Op: "read the request", Kind: tandem.Invalid, Err: err}
	}
	return b, nil
}

// answer writes v as JSON.
func (q *request) answer(status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return &tandem.Error{Op: "write the answer", Kind: tandem.Internal, Err: err}
	}
	q.w.Header().Set("Content-Type", "application/json; charset=utf-8")
	q.w.WriteHeader(status)
	_, _ = q.w.Write(b) // a client that left is nobody's error
	return nil
}

func invalid(hint string) error {
	return &tandem.Error{Op: "read the request", Kind: tandem.Invalid, Hint: hint}
}
