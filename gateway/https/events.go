package https

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"

	"tandem"
	"tandem/hub"
)

// An eventReader is what a stream reads from: a hub.EventReader.
type eventReader interface {
	Next(ctx context.Context) (hub.Event, error)
	Poll(ctx context.Context) (hub.Event, bool, error)
}

// An eventLine is one line of GET /tandem/hubs/{hub}/events. Of properties whose names repeat the last one is shown;
// null is a property that came as a name alone.
type eventLine struct {
	Partition        int                `json:"partition"`
	Number           int64              `json:"number"`
	EnqueuedTime     time.Time          `json:"enqueuedTime"`
	DeviceID         string             `json:"deviceId"`
	GenerationID     string             `json:"generationId"`
	Position         string             `json:"position"`
	SystemProperties map[string]string  `json:"systemProperties"`
	Properties       map[string]*string `json:"properties"`
	Body             *string            `json:"body,omitempty"` // when it is UTF-8
	BodyBase64       []byte             `json:"bodyBase64,omitempty"`
}

func newEventLine(e *hub.Event) eventLine {
	m := &e.Message
	line := eventLine{
		Partition: e.Partition, Number: e.Number, EnqueuedTime: e.Enqueued.UTC(), DeviceID: string(e.Device), GenerationID: e.Generation,
		Position: e.Position.String(), SystemProperties: map[string]string{}, Properties: map[string]*string{},
	}
	for _, p := range []struct{ name, value string }{
		{"message-id", m.MessageID}, {"correlation-id", m.CorrelationID}, {"user-id", m.UserID}, {"content-type", m.ContentType},
		{"content-encoding", m.ContentEncoding}, {"to", m.To}, {"absolute-expiry-time", m.Expiry},
		{"iothub-creation-time-utc", m.CreationTime}, {"dt-subject", m.Component}, {"iothub-interface-id", m.InterfaceID},
		{"iothub-message-schema", m.Schema}, {"output-name", m.Output}, {"Diagnostic-Id", m.DiagnosticID},
		{"Correlation-Context", m.DiagnosticContext},
	} {
		if p.value != "" {
			line.SystemProperties[p.name] = p.value
		}
	}
	for i := range m.Properties {
		p := &m.Properties[i]
		if p.Null {
			line.Properties[p.Name] = nil
			continue
		}
		line.Properties[p.Name] = &p.Value
	}
	if text := string(m.Body); utf8.ValidString(text) {
		line.Body = &text
	} else {
		line.BodyBase64 = m.Body
	}
	return line
}

// streamEvents answers with a hub's events, one JSON document a line: partition= picks one, from= a first number, time=
// (RFC 3339) a first time. Without these it is everything kept, or with follow=true what comes from now on. With
// follow=true the answer goes on until the client leaves or its token ends. A failure in the middle is a last line
// {"error":{…}}.
func (d *Door) streamEvents(q *request) error {
	start, follow, err := eventStart(q)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithDeadline(q.Context(), q.expires)
	defer cancel()
	reader, err := q.hub.Handle.Events(ctx, start)
	if err != nil {
		return err
	}
	_ = http.NewResponseController(q.w).SetReadDeadline(time.Time{}) // the server's would end the stream
	q.w.Header().Set("Content-Type", "application/x-ndjson; charset=utf-8")
	q.w.Header().Set("Cache-Control", "no-store")
	q.w.WriteHeader(http.StatusOK)
	if err := copyEvents(ctx, q.w, reader, follow); err != nil && ctx.Err() == nil {
		c := codeOf(err)
		_ = json.NewEncoder(q.w).Encode(map[string]any{"error": map[string]string{"code": c.name, "message": tell(err)}})
	}
	return nil
}

func eventStart(q *request) (start hub.EventStart, follow bool, err error) {
	start = hub.EventStart{Partition: -1, Number: -1}
	if text := q.query.Get("follow"); text != "" {
		if follow, err = strconv.ParseBool(text); err != nil {
			return start, false, invalid("follow is true or false")
		}
	}
	if text := q.query.Get("partition"); text != "" {
		start.Partition, err = strconv.Atoi(text)
		if err != nil || start.Partition < 0 || start.Partition >= q.hub.Resource.Partitions {
			return start, false, invalid("there is no such partition")
		}
	}
	from, since := q.query.Get("from"), q.query.Get("time")
	switch {
	case from != "" && since != "":
		return start, false, invalid("give from or time, not both")
	case from != "":
		start.Number, err = strconv.ParseInt(from, 10, 64)
		if err != nil || start.Number < 0 {
			return start, false, invalid("from is an event's number, 0 for the first")
		}
		if start.Partition < 0 && start.Number > 0 {
			return start, false, invalid("numbers belong to a partition: give partition too")
		}
	case since != "":
		if start.Time, err = time.Parse(time.RFC3339, since); err != nil {
			return start, false, invalid("time looks like 2026-01-31T12:00:00Z")
		}
	case !follow:
		start.Number = 0
	}
	return start, follow, nil
}

// copyEvents writes what there is, then what comes if follow is set. Every write has a deadline, so that a client that
// stops reading does not hold the stream for ever.
func copyEvents(ctx context.Context, w http.ResponseWriter, reader eventReader, follow bool) error {
	control := http.NewResponseController(w)
	lines := json.NewEncoder(w)
	lines.SetEscapeHTML(false)
	for {
		event, ok, err := reader.Poll(ctx)
		if err == nil && !ok {
			if err := flush(control); err != nil || !follow {
				return err
			}
			event, err = reader.Next(ctx)
		}
		if err != nil {
			return err
		}
		_ = control.SetWriteDeadline(time.Now().Add(within))
		if err := lines.Encode(newEventLine(&event)); err != nil {
			return &tandem.Error{Op: "write events", Kind: tandem.Unavailable, Err: err}
		}
	}
}

func flush(control *http.ResponseController) error {
	_ = control.SetWriteDeadline(time.Now().Add(within))
	if err := control.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return &tandem.Error{Op: "write events", Kind: tandem.Unavailable, Err: err}
	}
	return nil
}
