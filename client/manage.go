package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"tandem"
)

const armVersion = "?api-version=2023-06-30"

// Hub is a hub's ARM resource, as far as we read it (specs/arm-iothub-2023-06-30.json, IotHubDescription).
type Hub struct {
	Name          string        `json:"name"`
	ID            string        `json:"id,omitempty"`
	Location      string        `json:"location"`
	ResourceGroup string        `json:"resourcegroup,omitempty"`
	SKU           SKU           `json:"sku"`
	Properties    HubProperties `json:"properties"`
}

// SKU is what a hub would be paid by.
type SKU struct {
	Name     string `json:"name"`
	Capacity int    `json:"capacity"`
}

// HubProperties are the parts of a hub's properties that the commands show.
type HubProperties struct {
	HostName          string     `json:"hostName"`
	State             string     `json:"state"`
	ProvisioningState string     `json:"provisioningState"`
	Locations         []Location `json:"locations"`
	// EventHubEndpoints has one, "events".
	EventHubEndpoints map[string]Events `json:"eventHubEndpoints"`
	Tandem            HubTandem         `json:"tandem"`
}

// Events is how a hub keeps telemetry.
type Events struct {
	RetentionDays int `json:"retentionTimeInDays"`
	Partitions    int `json:"partitionCount"`
}

// Location is one of a hub's two places.
type Location struct {
	Location string `json:"location"`
	Role     string `json:"role"` // primary, secondary
}

// HubTandem is what a hub has beyond Azure's.
type HubTandem struct {
	ID               string   `json:"id,omitempty"`
	Home             string   `json:"home,omitempty"`
	Holder           string   `json:"holder,omitempty"`
	Epoch            uint64   `json:"epoch,omitempty"`
	PenState         string   `json:"penState,omitempty"` // claimed, open
	Replication      string   `json:"replication,omitempty"`
	PlatformFailover string   `json:"platformFailover,omitempty"`
	InSync           []string `json:"inSync,omitempty"`
}

// Key is one shared access policy.
type Key struct {
	KeyName      string `json:"keyName"`
	PrimaryKey   string `json:"primaryKey"`
	SecondaryKey string `json:"secondaryKey"`
	Rights       string `json:"rights"`
}

func (c *Client) hubPath(name string) string {
	return path.Join("/subscriptions", c.target.Subscription, "resourceGroups", c.target.ResourceGroup,
		"providers/Microsoft.Devices/IotHubs", url.PathEscape(name))
}

// Hub returns one hub; raw is the whole document. Kind NotFound when there is none.
func (c *Client) Hub(ctx context.Context, name string) (h Hub, raw json.RawMessage, err error) {
	if _, err = c.Do(ctx, Request{Op: "show the hub", Method: http.MethodGet, Path: c.hubPath(name) + armVersion, Out: &raw}); err != nil {
		return h, nil, err
	}
	return h, raw, decode("show the hub", raw, &h)
}

// Hubs returns all hubs of the subscription; raw is the whole list.
func (c *Client) Hubs(ctx context.Context) (hubs []Hub, raw json.RawMessage, err error) {
	const op = "list the hubs"
	list := path.Join("/subscriptions", c.target.Subscription, "providers/Microsoft.Devices/IotHubs") + armVersion
	if _, err = c.Do(ctx, Request{Op: op, Method: http.MethodGet, Path: list, Out: &raw}); err != nil {
		return nil, nil, err
	}
	var page struct{ Value []Hub }
	err = decode(op, raw, &page)
	return page.Value, raw, err
}

// HubSpec is what a hub is created or updated with; empty fields are left to the server, or as they are.
type HubSpec struct {
	SKU              string // "S1"
	Location         string
	Replication      string // async, sync-available, sync-strict
	PlatformFailover string // operator
}

// PutHub creates or updates a hub and waits until it is there.
func (c *Client) PutHub(ctx context.Context, name string, spec HubSpec) (Hub, error) {
	const op = "create the hub"
	own := map[string]string{}
	if spec.Replication != "" {
		own["replication"] = spec.Replication
	}
	if spec.PlatformFailover != "" {
		own["platformFailover"] = spec.PlatformFailover
	}
	body := map[string]any{"location": spec.Location, "properties": map[string]any{"tandem": own}}
	if spec.SKU != "" {
		body["sku"] = map[string]any{"name": spec.SKU, "capacity": 1}
	}
	header, err := c.Do(ctx, Request{Op: op, Method: http.MethodPut, Path: c.hubPath(name) + armVersion, In: body})
	if err != nil {
		return Hub{}, err
	}
	if err := c.wait(ctx, op, header); err != nil {
		return Hub{}, err
	}
	h, _, err := c.Hub(ctx, name)
	return h, err
}

// DeleteHub deletes a hub with everything in it and waits until it is gone.
func (c *Client) DeleteHub(ctx context.Context, name string) error {
	const op = "delete the hub"
	header, err := c.Do(ctx, Request{Op: op, Method: http.MethodDelete, Path: c.hubPath(name) + armVersion})
	if err != nil {
		return err
	}
	return c.wait(ctx, op, header)
}

// wait follows Azure-AsyncOperation until the operation has ended; without that header it is done already.
func (c *Client) wait(ctx context.Context, op string, header http.Header) error {
	status := header.Get("Azure-AsyncOperation")
	if status == "" {
		return nil
	}
	u, err := url.Parse(status)
	if err != nil {
		return &tandem.Error{Op: op, Err: err}
	}
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		var now struct {
			Status string
			Error  struct{ Code, Message string }
		}
		if _, err := c.Do(ctx, Request{Op: op, Method: http.MethodGet, Path: u.RequestURI(), Out: &now}); err != nil {
			return err
		}
		switch strings.ToLower(now.Status) {
		case "succeeded":
			return nil
		case "failed", "canceled":
			return composed(op, tandem.Internal, &Answer{Code: now.Error.Code, Text: now.Error.Message})
		}
		if err := sleep(ctx, pause); err != nil {
			return &tandem.Error{Op: op, Kind: tandem.Timeout, Err: err}
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Keys returns a hub's shared access policies with their keys.
func (c *Client) Keys(ctx context.Context, name string) ([]Key, error) {
	var page struct{ Value []Key }
	_, err := c.Do(ctx, Request{Op: "list the keys", Method: http.MethodPost, Path: c.hubPath(name) + "/listkeys" + armVersion, Out: &page, Twice: true})
	return page.Value, err
}

// EnsureGroup creates the target's resource group if it is not there.
func (c *Client) EnsureGroup(ctx context.Context) error {
	group := path.Join("/subscriptions", c.target.Subscription, "resourceGroups", c.target.ResourceGroup)
	_, err := c.Do(ctx, Request{Op: "create the resource group", Method: http.MethodPut, Path: group + "?api-version=2021-04-01",
		In: map[string]string{"location": c.target.Location}})
	return err
}

func decode(op string, raw json.RawMessage, out any) error {
	if err := json.Unmarshal(raw, out); err != nil {
		return &tandem.Error{Op: op, Kind: tandem.Internal, Err: err}
	}
	return nil
}
