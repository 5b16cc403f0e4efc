package https

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"mime"
	"net/http"
	"slices"
	"strings"
	"sync"

	"tandem"
	"tandem/hub"
)

// maxBatchBody is a batch's JSON: base64 and names make the 256 KB of its messages larger.
const maxBatchBody = 2 * hub.MaxMessageSize

// batchType is the content type of several messages at once (specs/wire-facts.md §4).
const batchType = "application/vnd.microsoft.iothub.json"

// appPrefix begins the name of a header or property that is the sender's own.
const appPrefix = "iothub-app-"

// send takes a device's message, or a batch of them, and answers 204 when all are durable.
func (d *Door) send(q *request) error {
	body, err := q.body()
	if err != nil {
		return err
	}
	var messages []hub.Message
	if kind, _, _ := mime.ParseMediaType(q.Header.Get("Content-Type")); kind == batchType {
		messages, err = readBatch(body)
	} else {
		messages = []hub.Message{readMessage(q.Header, body)}
	}
	if err != nil {
		return err
	}
	total := 0
	for i := range messages {
		if err := messages[i].Check(); err != nil {
			return err
		}
		if total += messages[i].Size(); total > hub.MaxMessageSize {
			return hub.ErrMessageTooLarge
		}
	}
	if err := submit(q.Context(), q.hub.Handle, tandem.DeviceID(q.path[1]), messages); err != nil {
		return err
	}
	q.w.WriteHeader(http.StatusNoContent)
	return nil
}

// system returns where the system property with this header name goes, nil for none.
func system(m *hub.Message, name string) *string {
	switch name {
	case "iothub-messageid":
		return &m.MessageID
	case "iothub-correlationid":
		return &m.CorrelationID
	case "iothub-userid":
		return &m.UserID
	case "iothub-to":
		return &m.To
	case "iothub-expiry":
		return &m.Expiry
	case "iothub-contenttype":
		return &m.ContentType
	case "iothub-contentencoding":
		return &m.ContentEncoding
	case "iothub-creationtimeutc":
		return &m.CreationTime
	case "iothub-messageschema":
		return &m.Schema
	}
	return nil
}

// readMessage makes a message of a request's headers and body. Header names have no case in HTTP: the sender's
// properties come out in lower case, in order of name.
func readMessage(h http.Header, body []byte) hub.Message {
	m := hub.Message{Body: body}
	for name, values := range h {
		name = strings.ToLower(name)
		if into := system(&m, name); into != nil {
			*into = values[0]
		} else if own, ok := strings.CutPrefix(name, appPrefix); ok && own != "" {
			m.Properties = append(m.Properties, hub.Property{Name: own, Value: values[0]})
		}
	}
	slices.SortFunc(m.Properties, func(a, b hub.Property) int { return strings.Compare(a.Name, b.Name) })
	return m
}

// readBatch makes messages of a batch's body.
func readBatch(body []byte) ([]hub.Message, error) {
	var items []struct {
		Body          string             `json:"body"`
		Base64Encoded *bool              `json:"base64Encoded"`
		Properties    map[string]*string `json:"properties"`
	}
	if err := json.Unmarshal(body, &items); err != nil {
		return nil, &tandem.Error{Op: "read the batch", Kind: tandem.Invalid, Err: err}
	}
	if len(items) == 0 {
		return nil, invalid("the batch is empty")
	}
	messages := make([]hub.Message, len(items))
	for i, item := range items {
		m := &messages[i]
		m.Body = []byte(item.Body)
		if item.Base64Encoded == nil || *item.Base64Encoded {
			decoded, err := base64.StdEncoding.DecodeString(item.Body)
			if err != nil {
				return nil, invalid("a body is not base64; say base64Encoded: false when it is text")
			}
			m.Body = decoded
		}
		for name, value := range item.Properties {
			if into := system(m, strings.ToLower(name)); into != nil {
				if value != nil {
					*into = *value
				}
				continue
			}
			if len(name) > len(appPrefix) && strings.EqualFold(name[:len(appPrefix)], appPrefix) {
				name = name[len(appPrefix):]
			}
			p := hub.Property{Name: name, Null: value == nil}
			if value != nil {
				p.Value = *value
			}
			m.Properties = append(m.Properties, p)
		}
		slices.SortFunc(m.Properties, func(a, b hub.Property) int { return strings.Compare(a.Name, b.Name) })
	}
	return messages, nil
}

// submit appends a device's messages in their order and returns when every outcome is known: nil, or the first failure.
func submit(ctx context.Context, handle hub.Handle, device tandem.DeviceID, messages []hub.Message) error {
	if len(messages) == 1 {
		_, err := handle.Do(ctx, &hub.Command{Op: hub.OpTelemetry, Device: device, Body: hub.AppendMessage(nil, &messages[0])})
		return err
	}
	wait := &outcomes{left: len(messages), done: make(chan struct{})}
	var body []byte
	for i := range messages {
		body = hub.AppendMessage(body[:0], &messages[i])
		if err := handle.Submit(ctx, &hub.Command{Op: hub.OpTelemetry, Device: device, Body: body}, wait, uint64(i)); err != nil {
			return err
		}
	}
	select {
	case <-wait.done:
		return wait.err
	case <-ctx.Done():
		return &tandem.Error{Op: "append telemetry", Kind: tandem.Timeout, Err: context.Cause(ctx)}
	}
}

// outcomes is the hub.Waiter of one batch.
type outcomes struct {
	mu   sync.Mutex
	left int
	err  error // set before done is closed
	done chan struct{}
}

// Resolved notes one outcome.
func (o *outcomes) Resolved(_ uint64, outcome *hub.Outcome) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		o.err = outcome.Err
	}
	if o.left--; o.left == 0 {
		close(o.done)
	}
}

// Flush has nothing to write.
func (o *outcomes) Flush() {}
