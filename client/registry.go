package client

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"tandem"
	"tandem/gateway"
)

const serviceVersion = "api-version=2021-04-12"

// Service is a hub's service side: its device registry and its events, with the rights of one policy.
type Service struct {
	c      *Client
	host   string // the hub's name, which requests carry whatever address they go to
	policy string
	key    []byte
}

// Service opens a hub's service side with the first of its policies that may do everything.
func (c *Client) Service(ctx context.Context, hub string) (*Service, error) {
	h, _, err := c.Hub(ctx, hub)
	if err != nil {
		return nil, err
	}
	keys, err := c.Keys(ctx, hub)
	if err != nil {
		return nil, err
	}
	for _, key := range keys {
		if key.KeyName == "iothubowner" || strings.Contains(key.Rights, "RegistryWrite") && strings.Contains(key.Rights, "ServiceConnect") {
			return c.ServiceWith(h.Properties.HostName, key.KeyName, key.PrimaryKey)
		}
	}
	return nil, &tandem.Error{Op: "open the hub", Kind: tandem.Forbidden, On: hub, Hint: "no policy has RegistryWrite and ServiceConnect"}
}

// ServiceWith opens a hub's service side with a policy's key as connection strings carry it.
func (c *Client) ServiceWith(host, policy, key string) (*Service, error) {
	decoded, err := gateway.DecodeKey(key)
	if err != nil {
		return nil, err
	}
	return &Service{c: c, host: host, policy: policy, key: decoded}, nil
}

// Host is the hub's host name.
func (s *Service) Host() string { return s.host }

func (s *Service) authorization() string {
	return gateway.MakeToken(s.host, s.policy, s.key, time.Now().Add(time.Hour))
}

func (s *Service) do(ctx context.Context, r Request) (http.Header, error) {
	header := map[string]string{"Authorization": s.authorization()}
	for k, v := range r.Header {
		header[k] = v
	}
	r.Header, r.Host = header, s.host
	return s.c.try(ctx, s.c.target.DataURLs, &s.c.data, r)
}

// Device is an identity as the registry shows it (specs/iothub-service-dataplane-2021-04-12.json, Device).
type Device struct {
	DeviceID       string          `json:"deviceId"`
	GenerationID   string          `json:"generationId,omitempty"`
	Etag           string          `json:"etag,omitempty"`
	Status         string          `json:"status,omitempty"`
	StatusReason   string          `json:"statusReason,omitempty"`
	Authentication *Authentication `json:"authentication,omitempty"`
}

// Authentication is a device's credentials.
type Authentication struct {
	Type         string        `json:"type,omitempty"`
	SymmetricKey *SymmetricKey `json:"symmetricKey,omitempty"`
}

// SymmetricKey holds keys in base64.
type SymmetricKey struct {
	PrimaryKey   string `json:"primaryKey"`
	SecondaryKey string `json:"secondaryKey"`
}

// Key is the device's primary key in base64; empty when it has none.
func (d *Device) Key() string {
	if d.Authentication == nil || d.Authentication.SymmetricKey == nil {
		return ""
	}
	return d.Authentication.SymmetricKey.PrimaryKey
}

// CreateDevice makes a device; keys that are not given are made by the server. Kind Conflict when it exists.
func (s *Service) CreateDevice(ctx context.Context, d Device) (made Device, err error) {
	_, err = s.do(ctx, Request{Op: "create the device", Method: http.MethodPut, Path: devicePath(d.DeviceID), In: d, Out: &made})
	return made, err
}

// Device returns one device. Kind NotFound.
func (s *Service) Device(ctx context.Context, id string) (d Device, raw json.RawMessage, err error) {
	if _, err = s.do(ctx, Request{Op: "show the device", Method: http.MethodGet, Path: devicePath(id), Out: &raw}); err != nil {
		return d, nil, err
	}
	return d, raw, decode("show the device", raw, &d)
}

// DeleteDevice deletes a device, whatever its etag.
func (s *Service) DeleteDevice(ctx context.Context, id string) error {
	_, err := s.do(ctx, Request{Op: "delete the device", Method: http.MethodDelete, Path: devicePath(id), Header: map[string]string{"If-Match": `"*"`}})
	return err
}

// Devices lists up to top devices.
func (s *Service) Devices(ctx context.Context, top int) (list []Device, raw json.RawMessage, err error) {
	const op = "list the devices"
	if _, err = s.do(ctx, Request{Op: op, Method: http.MethodGet, Path: "/devices?top=" + strconv.Itoa(top) + "&" + serviceVersion, Out: &raw}); err != nil {
		return nil, nil, err
	}
	return list, raw, decode(op, raw, &list)
}

func devicePath(id string) string { return "/devices/" + url.PathEscape(id) + "?" + serviceVersion }

// BulkLimit is how many changes one Bulk may carry.
const BulkLimit = 100

// A BulkError is one change of a bulk that was refused.
type BulkError struct {
	DeviceID    string `json:"deviceId"`
	ErrorCode   any    `json:"errorCode"` // a number or a word
	ErrorStatus string `json:"errorStatus"`
}

// Bulk sends up to BulkLimit changes, each a JSON object of the registry's import form (id, importMode, status,
// authentication). It returns those that were refused; an error means that none is known to have been applied.
func (s *Service) Bulk(ctx context.Context, changes []json.RawMessage) ([]BulkError, error) {
	var result struct {
		IsSuccessful bool
		Errors       []BulkError
	}
	_, err := s.do(ctx, Request{Op: "change devices in bulk", Method: http.MethodPost, Path: "/devices?" + serviceVersion, In: changes, Out: &result})
	var answer *Answer
	if errors.As(err, &answer) && answer.Status == http.StatusBadRequest && json.Unmarshal(answer.Body, &result) == nil && len(result.Errors) > 0 {
		return result.Errors, nil // what was refused is listed, the rest was applied
	}
	return result.Errors, err
}

// EventQuery says which events to read.
type EventQuery struct {
	Partition string // empty: all
	From      string // a number; empty: from Time, or from now on
	Time      time.Time
	Follow    bool
}

// Events streams events as JSON lines to each, from the region's own copy, until the stream ends, each returns an error
// or ctx ends. Each may keep nothing of line.
func (s *Service) Events(ctx context.Context, hub string, q EventQuery, each func(line []byte) error) error {
	const op = "read the events"
	query := url.Values{"follow": {strconv.FormatBool(q.Follow)}}
	if q.Partition != "" {
		query.Set("partition", q.Partition)
	}
	if q.From != "" {
		query.Set("from", q.From)
	}
	if !q.Time.IsZero() {
		query.Set("time", q.Time.UTC().Format(time.RFC3339Nano))
	}
	r := Request{Op: op, Method: http.MethodGet, Host: s.host, Path: "/tandem/hubs/" + url.PathEscape(hub) + "/events?" + query.Encode(),
		Header: map[string]string{"Authorization": s.authorization(), "Accept": "application/x-ndjson"}}
	response, err := s.stream(ctx, r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	return eachLine(ctx, op, response.Body, each)
}

func (s *Service) stream(ctx context.Context, r Request) (*http.Response, error) {
	var last error
	for _, base := range s.c.target.DataURLs {
		response, err := s.c.send(ctx, base, r)
		if err != nil {
			last = &tandem.Error{Op: r.Op, Kind: tandem.Unavailable, On: base, Err: plain(err)}
			continue
		}
		if response.StatusCode == http.StatusOK {
			return response, nil
		}
		_, last = finish(ctx, response, r)
		if response.StatusCode != http.StatusServiceUnavailable {
			break
		}
	}
	return nil, last
}
