package mqtt

import (
	"bytes"
	"strconv"
	"strings"
)

// A topicKind is what publishing to a topic means (specs/wire-facts.md §3.2).
type topicKind uint8

const (
	unknownTopic   topicKind = iota
	telemetryTopic           // devices/{d}/messages/events/{bag}
	twinGet                  // $iothub/twin/GET/?$rid={rid}
	twinPatch                // $iothub/twin/PATCH/properties/reported/?$rid={rid}
	methodResult             // $iothub/methods/res/{status}/?$rid={rid}
)

// maxRID is the longest request id that is answered; SDKs send up to 36 characters.
const maxRID = 1024

// classify says what a topic means when a device publishes to it, and returns the bag of telemetry or the request id of
// the others. Ids are compared as they stand: SDKs do not encode them.
func classify(topic []byte, device string) (topicKind, []byte) {
	if rest, ok := bytes.CutPrefix(topic, []byte("devices/")); ok {
		if len(rest) < len(device) || string(rest[:len(device)]) != device {
			return unknownTopic, nil
		}
		rest, ok = bytes.CutPrefix(rest[len(device):], []byte("/messages/events"))
		if !ok || len(rest) > 0 && rest[0] != '/' {
			return unknownTopic, nil
		}
		return telemetryTopic, bytes.TrimPrefix(rest, []byte("/"))
	}
	if rest, ok := bytes.CutPrefix(topic, []byte("$iothub/twin/GET/")); ok {
		return withRID(twinGet, rest)
	}
	if rest, ok := bytes.CutPrefix(topic, []byte("$iothub/twin/PATCH/properties/reported/")); ok {
		return withRID(twinPatch, rest)
	}
	if rest, ok := bytes.CutPrefix(topic, []byte("$iothub/methods/res/")); ok {
		status, query, ok := bytes.Cut(rest, []byte("/"))
		if _, err := strconv.ParseInt(string(status), 10, 32); ok && err == nil {
			return withRID(methodResult, query)
		}
	}
	return unknownTopic, nil
}

// withRID finds $rid in a topic's query: "?$rid=7&x=y".
func withRID(kind topicKind, query []byte) (topicKind, []byte) {
	query, ok := bytes.CutPrefix(query, []byte("?"))
	for ok && len(query) > 0 {
		var piece []byte
		piece, query, _ = bytes.Cut(query, []byte("&"))
		if rid, found := bytes.CutPrefix(piece, []byte("$rid=")); found && len(rid) <= maxRID {
			return kind, rid
		}
	}
	return unknownTopic, nil
}

// A subscription is one of the filters that a device may subscribe to, as a bit of a set.
type subscription uint8

const (
	toCloudMessages subscription = 1 << iota
	toTwinAnswers
	toDesiredChanges
	toMethods
)

// maxSubscriptions is how many a device may hold (specs/wire-facts.md §3.2). There are fewer filters than that for a
// device; the limit is on what one SUBSCRIBE may name.
const maxSubscriptions = 5

// subscriptionOf returns the bit of a documented filter, or 0.
func subscriptionOf(filter []byte, device string) subscription {
	switch string(filter) {
	case "$iothub/twin/res/#":
		return toTwinAnswers
	case "$iothub/twin/PATCH/properties/desired/#":
		return toDesiredChanges
	case "$iothub/methods/POST/#":
		return toMethods
	}
	rest, ok := strings.CutPrefix(string(filter), "devices/"+device)
	if ok && rest == "/messages/devicebound/#" {
		return toCloudMessages
	}
	return 0
}
