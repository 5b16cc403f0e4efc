package mqtt

import (
	"log/slog"

	"tandem"
	"tandem/gateway/mqtt/packet"
)

// Why a session ends by what the device did. MQTT 3.1.1 has no other way to say so than to close the connection.
var (
	ErrNoConnect     = &tandem.Error{Op: "wait for CONNECT", Kind: tandem.Timeout}
	ErrNotConnect    = &tandem.Error{Op: "begin a session: the first packet is not CONNECT", Kind: tandem.Invalid}
	ErrUnexpected    = &tandem.Error{Op: "read a packet that a device may not send now", Kind: tandem.Invalid}
	ErrClientID      = &tandem.Error{Op: "begin a session: the client id is not the device's id", Kind: tandem.Invalid}
	ErrWillTopic     = &tandem.Error{Op: "begin a session: a will may only be telemetry", Kind: tandem.Invalid}
	ErrQoS2          = &tandem.Error{Op: "publish at QoS 2", Kind: tandem.Unsupported, Hint: "use QoS 1"}
	ErrTopic         = &tandem.Error{Op: "publish to an unknown topic", Kind: tandem.Invalid}
	ErrFilter        = &tandem.Error{Op: "subscribe to an unknown topic", Kind: tandem.Invalid}
	ErrSubscriptions = &tandem.Error{Op: "subscribe", Kind: tandem.TooLarge, Hint: "a device may have five subscriptions"}
	ErrSilent        = &tandem.Error{Op: "wait for the device: nothing came within 1.5 times its keep-alive", Kind: tandem.Timeout}
	ErrNoRoom        = &tandem.Error{Op: "publish: what was sent before is still not acknowledged", Kind: tandem.Timeout}
	ErrClosing       = &tandem.Error{Op: "keep the session: this node is stopping", Kind: tandem.Unavailable}
)

// errBye is a DISCONNECT: the end that a device wanted.
var errBye = &tandem.Error{Op: "disconnect", Kind: tandem.Invalid}

// An answer is what a failure means on the wire and in the log. After CONNACK every failure closes the connection, so
// that a device sends again what was not acknowledged.
type answer struct {
	connack packet.ReturnCode
	level   slog.Level
}

// answers has a row per kind. SDKs try again after RefusedUnavailable and give up after the others
// (specs/wire-facts.md §3.1), so what may pass is answered with it.
var answers = map[tandem.Kind]answer{
	tandem.Internal:     {packet.RefusedUnavailable, slog.LevelWarn},
	tandem.Invalid:      {packet.RefusedNotAuthorized, slog.LevelDebug},
	tandem.Unauthorized: {packet.RefusedNotAuthorized, slog.LevelDebug},
	tandem.Forbidden:    {packet.RefusedNotAuthorized, slog.LevelDebug},
	tandem.NotFound:     {packet.RefusedNotAuthorized, slog.LevelDebug},
	tandem.Exists:       {packet.RefusedUnavailable, slog.LevelDebug},
	tandem.Precondition: {packet.RefusedUnavailable, slog.LevelDebug},
	tandem.Conflict:     {packet.RefusedUnavailable, slog.LevelDebug},
	tandem.TooLarge:     {packet.RefusedNotAuthorized, slog.LevelDebug},
	tandem.Throttled:    {packet.RefusedUnavailable, slog.LevelDebug},
	tandem.Full:         {packet.RefusedUnavailable, slog.LevelWarn},
	tandem.Fenced:       {packet.RefusedUnavailable, slog.LevelDebug},
	tandem.Unavailable:  {packet.RefusedUnavailable, slog.LevelDebug},
	tandem.Timeout:      {packet.RefusedUnavailable, slog.LevelDebug},
	tandem.Damaged:      {packet.RefusedUnavailable, slog.LevelWarn},
	tandem.Unsupported:  {packet.RefusedNotAuthorized, slog.LevelDebug},
}

// answerTo returns the row for err. The exact conditions that differ from their kind's row come first.
func answerTo(err error) answer {
	if err == packet.ErrLevel {
		return answer{packet.RefusedProtocol, slog.LevelDebug}
	}
	if err == ErrClientID {
		return answer{packet.RefusedIdentifier, slog.LevelDebug}
	}
	return answers[tandem.KindOf(err)]
}
