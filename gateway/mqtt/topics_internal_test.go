package mqtt

import (
	"strings"
	"testing"
	"time"
)

func TestClassify(t *testing.T) {
	for _, c := range []struct {
		topic, device string
		kind          topicKind
		rest          string
	}{
		{"devices/d1/messages/events/", "d1", telemetryTopic, ""},
		{"devices/d1/messages/events", "d1", telemetryTopic, ""},
		{"devices/d1/messages/events/%24.mid=1&a=b", "d1", telemetryTopic, "%24.mid=1&a=b"},
		{"devices/a%20#+$/messages/events/x", "a%20#+$", telemetryTopic, "x"},
		{"devices/d1/messages/eventsx", "d1", unknownTopic, ""},
		{"devices/D1/messages/events/", "d1", unknownTopic, ""},
		{"devices/d10/messages/events/", "d1", unknownTopic, ""},
		{"devices/d1/modules/m/messages/events/", "d1", unknownTopic, ""},
		{"devices/d1/messages/devicebound/", "d1", unknownTopic, ""},
		{"devices/d", "d1", unknownTopic, ""},
		{"$iothub/twin/GET/?$rid=7", "d1", twinGet, "7"},
		{"$iothub/twin/GET/?x=1&$rid=a%2Fb", "d1", twinGet, "a%2Fb"},
		{"$iothub/twin/GET/?$rid=", "d1", twinGet, ""},
		{"$iothub/twin/GET/", "d1", unknownTopic, ""},
		{"$iothub/twin/GET/?rid=1", "d1", unknownTopic, ""},
		{"$iothub/twin/GET/?$rid=" + strings.Repeat("x", maxRID+1), "d1", unknownTopic, ""},
		{"$iothub/twin/PATCH/properties/reported/?$rid=1", "d1", twinPatch, "1"},
		{"$iothub/twin/PATCH/properties/desired/?$rid=1", "d1", unknownTopic, ""},
		{"$iothub/methods/res/200/?$rid=1", "d1", methodResult, "1"},
		{"$iothub/methods/res/-1/?$rid=1", "d1", methodResult, "1"},
		{"$iothub/methods/res/ok/?$rid=1", "d1", unknownTopic, ""},
		{"$iothub/methods/res/200", "d1", unknownTopic, ""},
		{"a/b", "d1", unknownTopic, ""},
	} {
		kind, rest := classify([]byte(c.topic), c.device)
		if kind != c.kind || string(rest) != c.rest {
			t.Errorf("%.60s: got %d %q, want %d %q", c.topic, kind, rest, c.kind, c.rest)
		}
	}
}

func TestSubscriptions(t *testing.T) {
	for filter, want := range map[string]subscription{
		"devices/d1/messages/devicebound/#":       toCloudMessages,
		"$iothub/twin/res/#":                      toTwinAnswers,
		"$iothub/twin/PATCH/properties/desired/#": toDesiredChanges,
		"$iothub/methods/POST/#":                  toMethods,
		"devices/d2/messages/devicebound/#":       0,
		"devices/d1/messages/devicebound/+":       0,
		"devices/d1/messages/events/#":            0,
		"#":                                       0,
		"$iothub/#":                               0,
	} {
		if got := subscriptionOf([]byte(filter), "d1"); got != want {
			t.Errorf("%s: got %b, want %b", filter, got, want)
		}
	}
}

func TestSilence(t *testing.T) {
	for keepAlive, want := range map[uint16]time.Duration{0: 1767 * time.Second, 1: 1500 * time.Millisecond, 60: 90 * time.Second,
		1177: 1765500 * time.Millisecond, 1178: 1767 * time.Second, 65535: 1767 * time.Second} {
		if got := silenceOf(keepAlive); got != want {
			t.Errorf("keep-alive %d: %v, want %v", keepAlive, got, want)
		}
	}
}

func TestEveryKindHasAnAnswer(t *testing.T) {
	for kind := range answers {
		if kind.Retriable() != (answers[kind].connack == 3) && kind.Retriable() {
			t.Errorf("%v is retriable, and SDKs would give up", kind)
		}
	}
	if len(answers) != 16 {
		t.Errorf("%d rows, want one for each kind", len(answers))
	}
}
