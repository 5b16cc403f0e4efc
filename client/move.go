package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"time"

	"tandem"
)

// An Operation is a long change with its steps, as /tandem/operations shows it.
type Operation struct {
	ID      string          `json:"id"`
	Kind    string          `json:"kind"`
	HubName string          `json:"hub_name"`
	From    string          `json:"from"`
	To      string          `json:"to"`
	Status  string          `json:"status"` // running, succeeded, failed, canceled
	Started time.Time       `json:"started"`
	Ended   time.Time       `json:"ended,omitzero"`
	Steps   []Step          `json:"steps,omitempty"`
	Error   *OperationError `json:"error,omitempty"`
	Report  json.RawMessage `json:"report,omitempty"`
}

// OperationError is why an operation failed.
type OperationError struct {
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// A Step is one recorded part of an operation.
type Step struct {
	Name    string    `json:"name"`
	Status  string    `json:"status"`
	Start   time.Time `json:"start"`
	End     time.Time `json:"end,omitzero"`
	Details string    `json:"details,omitempty"`
}

// Running reports whether the operation has not ended.
func (o *Operation) Running() bool { return o.Status == "" || strings.EqualFold(o.Status, "running") }

// Failed reports whether the operation ended without doing what it was for.
func (o *Operation) Failed() bool { return !o.Running() && !strings.EqualFold(o.Status, "succeeded") }

// A Move asks for a hub's pen to be moved.
type Move struct {
	To         string `json:"to,omitempty"` // empty: the other region
	Forced     bool   `json:"forced"`
	AcceptLoss bool   `json:"acceptLoss"` // needed by a forced one, in the sync modes, to a region outside the in-sync set
}

// Failover starts a move and returns its operation.
func (c *Client) Failover(ctx context.Context, hub string, m Move) (Operation, json.RawMessage, error) {
	const op = "fail over"
	var raw json.RawMessage
	var o Operation
	_, err := c.Do(ctx, Request{Op: op, Method: http.MethodPost, Path: "/tandem/hubs/" + url.PathEscape(hub) + "/failover", In: m, Out: &raw,
		Twice: true}) // the second is told that one is under way
	if err != nil {
		return o, nil, err
	}
	return o, raw, decode(op, raw, &o)
}

// Forecast says what a move would cost now.
func (c *Client) Forecast(ctx context.Context, hub string, m Move) (f Forecast, raw json.RawMessage, err error) {
	const op = "forecast the failover"
	query := url.Values{}
	if m.To != "" {
		query.Set("to", m.To)
	}
	if m.Forced {
		query.Set("forced", "true")
	}
	if raw, err = c.raw(ctx, op, "/tandem/hubs/"+url.PathEscape(hub)+"/forecast?"+query.Encode()); err != nil {
		return f, nil, err
	}
	return f, raw, decode(op, raw, &f)
}

// Operation returns one operation as it is now.
func (c *Client) Operation(ctx context.Context, id string) (o Operation, raw json.RawMessage, err error) {
	const op = "show the operation"
	if raw, err = c.raw(ctx, op, "/tandem/operations/"+url.PathEscape(id)); err != nil {
		return o, nil, err
	}
	return o, raw, decode(op, raw, &o)
}

// Operations lists operations, of one hub or (empty) of all.
func (c *Client) Operations(ctx context.Context, hub string) (list []Operation, raw json.RawMessage, err error) {
	const op = "list the operations"
	path := "/tandem/operations"
	if hub != "" {
		path += "?hub=" + url.QueryEscape(hub)
	}
	if raw, err = c.raw(ctx, op, path); err != nil {
		return nil, nil, err
	}
	var page struct{ Value []Operation }
	err = decode(op, raw, &page)
	return page.Value, raw, err
}

// Follow polls an operation until it has ended and calls changed whenever it looks different. A region that goes dark
// meanwhile does not end it: it is asked again, anywhere, until ctx ends.
func (c *Client) Follow(ctx context.Context, id string, changed func(Operation)) (Operation, json.RawMessage, error) {
	last := ""
	for {
		o, raw, err := c.Operation(ctx, id)
		if err == nil {
			if text := string(raw); text != last {
				last = text
				changed(o)
			}
			if !o.Running() {
				return o, raw, nil
			}
		} else if !tandem.KindOf(err).Retriable() {
			return o, raw, err
		}
		if sleep(ctx, 100*time.Millisecond) != nil {
			return o, raw, &tandem.Error{Op: "follow the operation", Kind: tandem.Timeout, On: id, Err: context.Cause(ctx),
				Hint: "it goes on; see `tandem failover show " + id + "`"}
		}
	}
}

// Region is one region as /tandem/regions shows it.
type Region struct {
	Name             string   `json:"name"`
	Display          string   `json:"display"`
	Self             bool     `json:"self"`
	Alive            bool     `json:"alive"`
	Nodes            []Node   `json:"nodes"`
	Hubs             []string `json:"hubs"`
	LagItems         uint64   `json:"lagItems"`
	LagSeconds       float64  `json:"lagSeconds"`
	Directory        string   `json:"directory"`
	OneMoreLossStops bool     `json:"oneMoreLossStops"`
}

// A Node is one process of a region.
type Node struct {
	Name    string    `json:"name"`
	Address string    `json:"address"` // of its management door
	Started time.Time `json:"started"`
	Alive   bool      `json:"alive"`
}

// Regions lists the regions as the one that answers sees them.
func (c *Client) Regions(ctx context.Context) (list []Region, raw json.RawMessage, err error) {
	const op = "list the regions"
	if raw, err = c.raw(ctx, op, "/tandem/regions"); err != nil {
		return nil, nil, err
	}
	var page struct{ Value []Region }
	err = decode(op, raw, &page)
	return page.Value, raw, err
}

func (c *Client) raw(ctx context.Context, op, path string) (raw json.RawMessage, err error) {
	_, err = c.Do(ctx, Request{Op: op, Method: http.MethodGet, Path: path, Out: &raw})
	return raw, err
}
