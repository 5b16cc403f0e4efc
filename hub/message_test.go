package hub_test

import (
	"encoding/hex"
	"os"
	"reflect"
	"strings"
	"testing"

	"tandem"
	"tandem/hub"
)

func messages() map[string]hub.Message {
	return map[string]hub.Message{
		"empty": {},
		"body":  {Body: []byte("21.5")},
		"full": {MessageID: "m1", CorrelationID: "c1", UserID: "u", ContentType: "application/json", ContentEncoding: "utf-8",
			To: "/devices/d/messages/events", Expiry: "2030-01-01T00:00:00Z", CreationTime: "2026-01-01T00:00:00Z", Component: "thermostat",
			InterfaceID: "dtmi:x;1", Schema: "s", Output: "o", DiagnosticID: "d1", DiagnosticContext: "creationtimeutc=1",
			Properties: []hub.Property{{Name: "level", Value: "warning"}, {Name: "gone", Null: true}, {Name: "", Value: ""}, {Name: "level", Value: "é"}},
			Body:       []byte{0, 1, 2, 255}},
		"one property": {Properties: []hub.Property{{Name: "a", Value: "b"}}},
	}
}

func TestMessageRoundTrip(t *testing.T) {
	for name, m := range messages() {
		t.Run(name, func(t *testing.T) {
			b := hub.AppendMessage([]byte("before"), &m)
			got, err := hub.DecodeMessage(b[len("before"):])
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Body) == 0 && len(m.Body) == 0 {
				got.Body, m.Body = nil, nil
			}
			if !reflect.DeepEqual(got, m) {
				t.Errorf("got %+v\nwant %+v", got, m)
			}
		})
	}
}

// What is on disk has to stay readable: these bytes never change.
func TestMessageEncodingIsGolden(t *testing.T) {
	golden, err := os.ReadFile("testdata/message-v1.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(golden)) {
		name, want, _ := strings.Cut(strings.TrimSpace(line), " = ")
		m, ok := messages()[name]
		if !ok {
			t.Fatalf("the golden file names an unknown message %q", name)
		}
		if got := hex.EncodeToString(hub.AppendMessage(nil, &m)); got != want {
			t.Errorf("%s: got\n%s want\n%s", name, got, want)
		}
	}
}

func TestMessageSizeCountsWhatAzureCounts(t *testing.T) {
	m := hub.Message{Body: make([]byte, 100), MessageID: "12345", Properties: []hub.Property{{Name: "abc", Value: "de"}}}
	if got := m.Size(); got != 110 {
		t.Errorf("got %d, want 110", got)
	}
	m.Body = make([]byte, hub.MaxMessageSize-10)
	if err := m.Check(); err != nil {
		t.Errorf("exactly at the limit: %v", err)
	}
	m.Properties[0].Value += "!"
	if err := m.Check(); tandem.KindOf(err) != tandem.TooLarge {
		t.Errorf("one byte over: %v", err)
	}
	m = hub.Message{Properties: make([]hub.Property, hub.MaxMessageProperties+1)}
	if err := m.Check(); tandem.KindOf(err) != tandem.TooLarge {
		t.Errorf("too many properties: %v", err)
	}
}

func TestDecodeMessageRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		hex  string
		kind tandem.Kind
	}{
		"nothing":            {"", tandem.Damaged},
		"a newer version":    {"0200", tandem.Unsupported},
		"no head length":     {"01", tandem.Damaged},
		"a head too long":    {"0105", tandem.Damaged},
		"a newer property":   {"0103808001", tandem.Unsupported},
		"a text too long":    {"01020109", tandem.Damaged},
		"an empty property":  {"01020100", tandem.Damaged},
		"a name too long":    {"01020005", tandem.Damaged},
		"a value too long":   {"010400016109", tandem.Damaged},
		"a missing value":    {"0103000161", tandem.Damaged},
		"a long form length": {"01050081006100", tandem.Damaged},
	} {
		b, _ := hex.DecodeString(c.hex)
		if _, err := hub.DecodeMessage(b); err == nil || tandem.KindOf(err) != c.kind {
			t.Errorf("%s: got %v, want kind %v", name, err, c.kind)
		}
	}
}

func TestDecodeMessageCopiesOnlyProperties(t *testing.T) {
	plain := hub.AppendMessage(nil, &hub.Message{Body: make([]byte, 10_000)})
	if n := testing.AllocsPerRun(100, func() { _, _ = hub.DecodeMessage(plain) }); n != 0 {
		t.Errorf("%v allocations without properties, want none", n)
	}
	m := messages()["full"]
	dst := make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(100, func() { dst = hub.AppendMessage(dst[:0], &m) }); n != 0 {
		t.Errorf("%v allocations to encode, want none", n)
	}
}

func FuzzDecodeMessage(f *testing.F) {
	for _, m := range messages() {
		f.Add(hub.AppendMessage(nil, &m))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := hub.DecodeMessage(b)
		if err != nil {
			if k := tandem.KindOf(err); k != tandem.Damaged && k != tandem.Unsupported {
				t.Fatalf("kind %v: %v", k, err)
			}
			return
		}
		if m.Size() > len(b) {
			t.Fatalf("%d bytes became a message of %d", len(b), m.Size())
		}
		again := hub.AppendMessage(nil, &m)
		n, err := hub.DecodeMessage(again)
		if err != nil || !reflect.DeepEqual(m, n) {
			t.Fatalf("% x became % x (%v)", b, again, err)
		}
	})
}
