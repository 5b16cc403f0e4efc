package compat

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A refusal is an answer of 300 and above.
type refusal struct {
	status int
	text   string
}

func (r *refusal) Error() string { return fmt.Sprintf("%d: %s", r.status, r.text) }

// bases are the addresses of one door in both regions, first the front door.
func (s *system) bases(port int) []string {
	var list []string
	for _, host := range []string{"127.0.0.1", "127.0.1.1", "127.0.2.1"} {
		list = append(list, fmt.Sprintf("https://%s:%d", host, port+s.offset))
	}
	return list
}

// call tries each address until one answers, first the one that did so last; a refusal is an answer, unless it is 503.
func (s *system) call(bases []string, method, path, authorization, host string, in, out any) error {
	var last error
	first := int(s.answered.Load())
	for i := range bases {
		at := (first + i) % len(bases)
		base := bases[at]
		var body io.Reader
		if in != nil {
			text, err := json.Marshal(in)
			if err != nil {
				return err
			}
			body = bytes.NewReader(text)
		}
		request, err := http.NewRequest(method, base+path, body)
		if err != nil {
			return err
		}
		request.Host = host
		request.Header.Set("Authorization", authorization)
		request.Header.Set("Content-Type", "application/json")
		response, err := s.http.Do(request)
		if err != nil {
			last = err
			continue
		}
		text, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if err != nil {
			last = err
			continue
		}
		if response.StatusCode >= 300 {
			last = &refusal{response.StatusCode, string(text)}
			if response.StatusCode == http.StatusServiceUnavailable {
				continue
			}
			return last
		}
		if len(bases) > 1 {
			s.answered.Store(int32(at))
		}
		if out == nil || len(text) == 0 {
			return nil
		}
		return json.Unmarshal(text, out)
	}
	return last
}

// arm calls management.
func (s *system) arm(method, path string, in, out any) error {
	return s.call(s.bases(8443), method, path, "Bearer "+s.env()["TANDEM_CLIENT_SECRET"], "", in, out)
}

// armAt calls management of one region only.
func (s *system) armAt(region, method, path string, in, out any) error {
	base := s.bases(8443)[1]
	if region == regions[1] {
		base = s.bases(8443)[2]
	}
	return s.call([]string{base}, method, path, "Bearer "+s.env()["TANDEM_CLIENT_SECRET"], "", in, out)
}

type connectionString struct{ host, policy, key string }

func (s *system) owner() connectionString {
	var c connectionString
	for part := range strings.SplitSeq(s.env()["TANDEM_HUB_CONNECTION_STRING"], ";") {
		name, value, _ := strings.Cut(part, "=")
		switch name {
		case "HostName":
			c.host, _, _ = strings.Cut(value, ":")
		case "SharedAccessKeyName":
			c.policy = value
		case "SharedAccessKey":
			c.key = value
		}
	}
	return c
}

func (c connectionString) token() string {
	key, _ := base64.StdEncoding.DecodeString(c.key)
	sr, se := url.QueryEscape(c.host), strconv.FormatInt(time.Now().Add(time.Hour).Unix(), 10)
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(sr + "\n" + se))
	sig := url.QueryEscape(base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	return "SharedAccessSignature sr=" + sr + "&sig=" + sig + "&se=" + se + "&skn=" + c.policy
}

// register makes a device and returns its key.
func (s *system) register(id string) (string, error) {
	c := s.owner()
	var made struct {
		Authentication struct {
			SymmetricKey struct{ PrimaryKey string }
		}
	}
	err := s.call(s.bases(443), http.MethodPut, "/devices/"+id+"?api-version=2021-04-12", c.token(), c.host, map[string]any{"deviceId": id}, &made)
	return made.Authentication.SymmetricKey.PrimaryKey, err
}

// An event is one line of the event stream.
type event struct {
	Partition    int
	Number       int64
	EnqueuedTime time.Time
	DeviceID     string
	Position     string
	Properties   map[string]*string
	Body         string
	Error        *struct{ Code, Message string }
}

// message is the number that load.js gave the message; 0 when another program sent it.
func (e *event) message() int {
	if p := e.Properties["n"]; p != nil {
		n, _ := strconv.Atoi(*p)
		return n
	}
	return 0
}

// events reads everything that is kept, through the given region's door ("" is the front door).
func (s *system) events(region string) ([]event, error) {
	bases := s.bases(443)
	base := bases[0]
	for i, r := range regions {
		if r == region {
			base = bases[i+1]
		}
	}
	c := s.owner()
	request, err := http.NewRequest(http.MethodGet, base+"/tandem/hubs/"+s.hub()+"/events?from=0", nil)
	if err != nil {
		return nil, err
	}
	request.Host = c.host
	request.Header.Set("Authorization", c.token())
	response, err := s.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(response.Body)
		return nil, &refusal{response.StatusCode, string(text)}
	}
	var list []event
	lines := bufio.NewReader(response.Body)
	for d := json.NewDecoder(lines); ; {
		var e event
		switch err := d.Decode(&e); {
		case errors.Is(err, io.EOF):
			return list, nil
		case err != nil:
			return list, err
		case e.Error != nil:
			return list, fmt.Errorf("the event stream ended with %s: %s", e.Error.Code, e.Error.Message)
		}
		list = append(list, e)
	}
}

// An operation is a long change as /tandem/operations shows it.
type operation struct {
	ID, Status string
	Steps      []struct{ Name, Status string }
	Error      *struct{ Code, Message string }
	Report     json.RawMessage
}

func (o *operation) running() bool {
	switch strings.ToLower(o.Status) {
	case "succeeded", "failed", "canceled", "superseded", "done":
		return false
	}
	return true
}

func (o *operation) succeeded() bool { return strings.EqualFold(o.Status, "succeeded") }

// step names the last step that began.
func (o *operation) step() string {
	if len(o.Steps) == 0 {
		return "(none yet)"
	}
	return o.Steps[len(o.Steps)-1].Name
}

func (o *operation) String() string {
	text := o.ID + " " + o.Status + " at " + o.step()
	if o.Error != nil {
		text += ": " + o.Error.Code + " " + o.Error.Message
	}
	return text
}

type move struct {
	To         string `json:"to,omitempty"`
	Forced     bool   `json:"forced"`
	AcceptLoss bool   `json:"acceptLoss"`
}

// failover asks the target for a move and returns its operation: the source may be dead, or deaf.
func (s *system) failover(m move) (operation, error) {
	var o operation
	err := s.armAt(m.To, http.MethodPost, "/tandem/hubs/"+s.hub()+"/failover", m, &o)
	s.answered.Store(int32(1 + slices.Index(regions[:], m.To))) // and go on asking there
	return o, err
}

// follow polls an operation until it has ended, whoever drives it.
func (s *system) follow(id string, limit time.Duration) (operation, error) {
	var o operation
	var last error
	for began := time.Now(); time.Since(began) < limit; time.Sleep(10 * time.Millisecond) {
		var now operation
		if last = s.arm(http.MethodGet, "/tandem/operations/"+id, nil, &now); last == nil {
			o = now
			if !o.running() {
				return o, nil
			}
		}
	}
	return o, fmt.Errorf("operation %s has not ended after %v (last answer: %v)", o.String(), limit, last)
}

// holder is the region that has the hub's pen.
func (s *system) holder() (string, error) {
	var hub struct {
		Properties struct {
			Tandem struct{ Holder, Replication string }
		}
	}
	err := s.arm(http.MethodGet, s.hubPath(), nil, &hub)
	if err == nil && hub.Properties.Tandem.Holder == "" {
		err = errors.New("the hub has no holder")
	}
	return hub.Properties.Tandem.Holder, err
}

func (s *system) hubPath() string {
	env := s.env()
	return fmt.Sprintf("/subscriptions/%s/resourceGroups/%s/providers/Microsoft.Devices/IotHubs/%s?api-version=2023-06-30",
		env["TANDEM_SUBSCRIPTION"], env["TANDEM_RESOURCE_GROUP"], env["TANDEM_HUB_NAME"])
}

// replicate sets the hub's replication mode.
func (s *system) replicate(mode string) error {
	var hub map[string]any
	if err := s.arm(http.MethodGet, s.hubPath(), nil, &hub); err != nil {
		return err
	}
	properties, _ := hub["properties"].(map[string]any)
	if properties == nil {
		return errors.New("the hub has no properties")
	}
	properties["tandem"] = map[string]any{"replication": mode}
	return s.arm(http.MethodPut, s.hubPath(), hub, nil)
}

// status is what the hub's regions say of themselves, as it comes.
func (s *system) status() (any, error) {
	var v any
	err := s.arm(http.MethodGet, "/tandem/hubs/"+s.hub()+"/status", nil, &v)
	return v, err
}

// A receipt is a loss receipt with its items.
type receipt struct {
	ID, State string
	Items     uint64
	list      []receiptItem
}

type receiptItem struct {
	Kind      string
	Device    string
	Partition int
	Number    int64
	MessageID string `json:"message_id"`
}

// receipts returns the hub's receipts with the items of those that are complete.
func (s *system) receipts() ([]receipt, error) {
	var page struct{ Value []receipt }
	if err := s.arm(http.MethodGet, "/tandem/hubs/"+s.hub()+"/receipts", nil, &page); err != nil {
		return nil, err
	}
	for i := range page.Value {
		r := &page.Value[i]
		if r.State != "complete" {
			continue
		}
		var raw rawLines
		if err := s.lines("/tandem/receipts/"+url.PathEscape(r.ID)+"/items", &raw); err != nil {
			return nil, fmt.Errorf("items of receipt %s: %w", r.ID, err)
		}
		for _, line := range raw {
			var item receiptItem
			if err := json.Unmarshal(line, &item); err != nil {
				return nil, fmt.Errorf("items of receipt %s: %w", r.ID, err)
			}
			r.list = append(r.list, item)
		}
	}
	return page.Value, nil
}

type rawLines []json.RawMessage

func (s *system) lines(path string, out *rawLines) error {
	var last error
	for _, base := range s.bases(8443) {
		request, err := http.NewRequest(http.MethodGet, base+path, nil)
		if err != nil {
			return err
		}
		request.Header.Set("Authorization", "Bearer "+s.env()["TANDEM_CLIENT_SECRET"])
		response, err := s.http.Do(request)
		if err != nil {
			last = err
			continue
		}
		text, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if err != nil || response.StatusCode != http.StatusOK {
			last = errors.Join(err, &refusal{response.StatusCode, string(text)})
			continue
		}
		for line := range bytes.Lines(text) {
			if line = bytes.TrimSpace(line); len(line) > 0 {
				*out = append(*out, bytes.Clone(line))
			}
		}
		return nil
	}
	return last
}

// waitFor asks until ok, and returns the last reason when it does not come within limit.
func waitFor(ctx context.Context, limit time.Duration, ok func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := ok()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not within %v: %w", limit, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
