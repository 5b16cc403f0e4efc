package gateway_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"tandem/gateway"
	"tandem/hub"
)

func TestBags(t *testing.T) {
	p := func(pairs ...hub.Property) []hub.Property { return pairs }
	for _, c := range []struct {
		bag  string
		want hub.Message
	}{
		{"", hub.Message{}},
		{"?", hub.Message{}},
		{"a=b", hub.Message{Properties: p(hub.Property{Name: "a", Value: "b"})}},
		{"?a=b&c=", hub.Message{Properties: p(hub.Property{Name: "a", Value: "b"}, hub.Property{Name: "c"})}},
		{"a", hub.Message{Properties: p(hub.Property{Name: "a", Null: true})}},
		{"a=b=c", hub.Message{Properties: p(hub.Property{Name: "a", Value: "b=c"})}},
		{"a+b=1+2", hub.Message{Properties: p(hub.Property{Name: "a+b", Value: "1+2"})}},
		{"a=%zz&b=%ff&c=%", hub.Message{Properties: p(hub.Property{Name: "a", Value: "%zz"}, hub.Property{Name: "b", Value: "%ff"}, hub.Property{Name: "c", Value: "%"})}},
		{"&&a=1&/", hub.Message{Properties: p(hub.Property{Name: "a", Value: "1"})}},
		{"%24.mid=m%2F1&%24.cid=c&%24.ct=application%2Fjson&%24.ce=utf-8&level=%C3%A9%20",
			hub.Message{MessageID: "m/1", CorrelationID: "c", ContentType: "application/json", ContentEncoding: "utf-8", Properties: p(hub.Property{Name: "level", Value: "é "})}},
		{"$.uid=u&$.to=t&$.exp=2030&$.ctime=2026&$.sub=s&$.ifid=i&$.schema=x&$.on=o&$.diagid=d&$.diagctx=e",
			hub.Message{UserID: "u", To: "t", Expiry: "2030", CreationTime: "2026", Component: "s", InterfaceID: "i", Schema: "x", Output: "o", DiagnosticID: "d", DiagnosticContext: "e"}},
		{"$.new=1&$.mid", hub.Message{Properties: p(hub.Property{Name: "$.new", Value: "1"})}},
		{"iothub-ack=full", hub.Message{Properties: p(hub.Property{Name: "iothub-ack", Value: "full"})}},
	} {
		var got hub.Message
		if err := gateway.ParseBag(c.bag, &got); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v\ngot  %+v\nwant %+v", c.bag, err, got, c.want)
		}
	}
}

func TestBagOnTheWire(t *testing.T) {
	m := hub.Message{MessageID: "m", ContentType: "application/json",
		Properties: []hub.Property{{Name: "a b", Value: "é/"}, {Name: "none", Null: true}, {Name: "empty"}}}
	want := "%24.mid=m&%24.ct=application%2Fjson&a%20b=%C3%A9%2F&none&empty="
	if got := string(gateway.AppendBag([]byte("x/"), &m)); got != "x/"+want {
		t.Errorf("got  %s\nwant x/%s", got, want)
	}
}

func TestBagHasALimit(t *testing.T) {
	var m hub.Message
	if err := gateway.ParseBag(strings.Repeat("a&", hub.MaxMessageProperties), &m); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	if err := gateway.ParseBag("one=more", &m); !errors.Is(err, hub.ErrMessageTooLarge) {
		t.Errorf("over the limit: %v", err)
	}
}

func FuzzBag(f *testing.F) {
	f.Add("%24.mid=m%2F1&%24.ct=application%2Fjson&level=%C3%A9%20&a&b=&c=%zz")
	f.Add("?$.new=1&%24.mid&=&%2f/")
	f.Fuzz(func(t *testing.T, bag string) {
		if !utf8.ValidString(bag) {
			return // the codec lets no such topic through
		}
		var m, again hub.Message
		if gateway.ParseBag(bag, &m) != nil {
			return
		}
		if m.Size() > len(bag) {
			t.Fatalf("%q grew to %d bytes", bag, m.Size())
		}
		text := string(gateway.AppendBag(nil, &m))
		if err := gateway.ParseBag(text, &again); err != nil || !reflect.DeepEqual(m, again) {
			t.Fatalf("%q became %q (%v)\n%+v\n%+v", bag, text, err, m, again)
		}
	})
}
