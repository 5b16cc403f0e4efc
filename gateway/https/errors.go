package https

import (
	"encoding/hex"
	"fmt"
	"io"
	"net/http"

	"tandem"
	"tandem/catalog"
	"tandem/gateway"
	"tandem/hub"
)

// Conditions of this door.
var (
	errNoVersion = &tandem.Error{Op: "read the api-version", Kind: tandem.Invalid, Hint: "the query needs an api-version"}
	errNoToken   = &tandem.Error{Op: "check the request", Kind: tandem.Unauthorized, Hint: "send a SAS token in the Authorization header"}
	errNoPolicy  = &tandem.Error{Op: "check the request", Kind: tandem.Unauthorized,
		Hint: "this needs a token made with a shared access policy (skn=…)"}
	errBusy         = &tandem.Error{Op: "serve the request", Kind: tandem.Throttled, Hint: "too many requests at once; try again"}
	errBodyTooLarge = &tandem.Error{Op: "read the request's body", Kind: tandem.TooLarge}
	errMethod       = &tandem.Error{Op: "use this method here", Kind: tandem.Unsupported}
	errIfMatch      = &tandem.Error{Op: "delete the device", Kind: tandem.Invalid, Hint: "send If-Match with the device's etag, or *"}
	errTwice        = &tandem.Error{Op: "read the device", Kind: tandem.Invalid, Hint: "it is in the list twice"}
	errTooMany      = &tandem.Error{Op: "read the devices", Kind: tandem.TooLarge, Hint: "at most 100 at once"}
)

// A code is what clients are told: the number of specs/wire-facts.md §6.2, whose first three digits are the HTTP
// status, and its name, which SDKs know.
type code struct {
	number int
	name   string
}

func (c code) status() int { return c.number / 1000 }

// conditions is the table from exact conditions to codes; the first that matches counts.
var conditions = []struct {
	err  *tandem.Error
	code code
}{
	{hub.ErrDeviceNotFound, code{404001, "DeviceNotFound"}},
	{hub.ErrDeviceExists, code{409001, "DeviceAlreadyExists"}},
	{hub.ErrDeviceDisabled, code{403000, "GenericForbidden"}}, // 403012 DeviceDisabled is no name that SDKs know
	{hub.ErrEtag, code{412001, "PreconditionFailed"}},
	{hub.ErrQuota, code{403002, "IotHubQuotaExceeded"}},
	{hub.ErrMoving, code{503006, "IotHubRestoring"}},
	{hub.ErrTooManyDevices, code{413002, "TooManyDevices"}},
	{hub.ErrMessageTooLarge, code{413001, "MessageTooLarge"}},
	{catalog.ErrHubNotFound, code{401001, "IotHubNotFound"}},
	{gateway.ErrTokenMalformed, code{401003, "IotHubUnauthorized"}},
	{gateway.ErrTokenExpired, code{401003, "IotHubUnauthorized"}},
	{errNoVersion, code{400001, "InvalidProtocolVersion"}},
	{errBodyTooLarge, code{413001, "MessageTooLarge"}},
	{errMethod, code{405000, "GenericMethodNotAllowed"}},
	{errTwice, code{400011, "DeviceDefinedMultipleTimes"}},
	{errTooMany, code{413002, "TooManyDevices"}},
}

// kinds are the codes of everything else.
var kinds = map[tandem.Kind]code{
	tandem.Internal:     {500001, "ServerError"},
	tandem.Invalid:      {400004, "ArgumentInvalid"},
	tandem.Unauthorized: {401002, "IotHubUnauthorizedAccess"},
	tandem.Forbidden:    {401002, "IotHubUnauthorizedAccess"}, // a policy without the right
	tandem.NotFound:     {404000, "GenericNotFound"},
	tandem.Exists:       {409000, "GenericConflict"},
	tandem.Precondition: {412000, "GenericPreconditionFailed"},
	tandem.Conflict:     {409000, "GenericConflict"},
	tandem.TooLarge:     {413000, "GenericRequestEntityTooLarge"},
	tandem.Throttled:    {429001, "ThrottlingException"},
	tandem.Full:         {503005, "ServerBusy"},
	tandem.Fenced:       {503006, "IotHubRestoring"},
	tandem.Unavailable:  {503001, "ServiceUnavailable"},
	tandem.Timeout:      {503001, "ServiceUnavailable"},
	tandem.Damaged:      {500001, "ServerError"},
	tandem.Unsupported:  {404013, "FeatureNotSupported"},
}

func codeOf(err error) code {
	for _, c := range conditions {
		if same(err, c.err) {
			return c.code
		}
	}
	return kinds[tandem.KindOf(err)]
}

// tell is what people read: the error, but nothing of our insides when it is our own failure.
func tell(err error) string {
	switch tandem.KindOf(err) {
	case tandem.Internal, tandem.Damaged:
		return "something went wrong in the server; its log has the tracking id"
	}
	return err.Error()
}

// fail answers with an error in the shape of specs/wire-facts.md §6.1.
func (d *Door) fail(q *request, err error) {
	c := codeOf(err)
	var id [16]byte
	_, _ = io.ReadFull(d.options.Random, id[:])
	tracking := fmt.Sprintf("%s-G:0-TimeStamp:%s", hex.EncodeToString(id[:]), d.options.Clock.Now().UTC().Format("01/02/2006 15:04:05"))
	if c.status() >= 500 && !tandem.KindOf(err).Retriable() {
		d.options.Logger.Error("an HTTPS request failed", "method", q.Method, "path", q.URL.Path, "tracking", tracking, "err", err)
	}
	h := q.w.Header()
	h.Set("iothub-errorcode", c.name)
	if tandem.KindOf(err).Retriable() {
		h.Set("Retry-After", "1")
	}
	if c.status() == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "SharedAccessSignature")
	}
	_ = q.answer(c.status(), struct {
		Message          string
		ExceptionMessage string
	}{fmt.Sprintf("ErrorCode:%s;%s", c.name, tell(err)), "Tracking ID:" + tracking})
}
