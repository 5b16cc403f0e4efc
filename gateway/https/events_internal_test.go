package https

import (
	"context"
	"net/http/httptest"
	"testing"
	"time"

	"tandem"
	"tandem/hub"
	"tandem/pairlog"
)

// readerOf gives out events and then fails.
type readerOf struct {
	events []hub.Event
	err    error
}

func (r *readerOf) Poll(context.Context) (hub.Event, bool, error) {
	if len(r.events) == 0 {
		return hub.Event{}, false, nil
	}
	event := r.events[0]
	r.events = r.events[1:]
	return event, true, nil
}

func (r *readerOf) Next(context.Context) (hub.Event, error) { return hub.Event{}, r.err }

func TestEventLines(t *testing.T) {
	events := []hub.Event{
		{Partition: 2, Number: 7, Enqueued: time.Date(2026, 1, 2, 3, 4, 5, 6000000, time.UTC), Device: "d1", Generation: "g",
			Position: pairlog.Position{Epoch: 3, Number: 10, Index: 1},
			Message: hub.Message{MessageID: "m", ContentType: "text/plain", Body: []byte("<hi>"),
				Properties: []hub.Property{{Name: "colour", Value: "red"}, {Name: "alone", Null: true}}}},
		{Device: "d2", Message: hub.Message{Body: []byte{0xff, 0}}},
	}
	const golden = `{"partition":2,"number":7,"enqueuedTime":"2026-01-02T03:04:05.006Z","deviceId":"d1","generationId":"g","position":"e3.10.1",` +
		`"systemProperties":{"content-type":"text/plain","message-id":"m"},"properties":{"alone":null,"colour":"red"},"body":"<hi>"}
{"partition":0,"number":0,"enqueuedTime":"0001-01-01T00:00:00Z","deviceId":"d2","generationId":"","position":"e0.0.0",` +
		`"systemProperties":{},"properties":{},"bodyBase64":"/wA="}
`
	w := httptest.NewRecorder()
	if err := copyEvents(t.Context(), w, &readerOf{events: events}, false); err != nil {
		t.Fatal(err)
	}
	if got := w.Body.String(); got != golden {
		t.Errorf("got\n%swant\n%s", got, golden)
	}
	broken := &tandem.Error{Op: "read", Kind: tandem.Damaged}
	w = httptest.NewRecorder()
	if err := copyEvents(t.Context(), w, &readerOf{events: events, err: broken}, true); err != broken {
		t.Errorf("following: %v", err)
	}
	if w.Body.String() != golden || !w.Flushed {
		t.Error("what there was was not sent before waiting")
	}
}
