package arm

import (
	"errors"
	"fmt"
	"net/http"

	"tandem"
	"tandem/catalog"
	"tandem/failover"
	"tandem/operation"
)

// Conditions of this door.
var (
	errNoVersion    = &tandem.Error{Op: "read the api-version", Kind: tandem.Invalid, Hint: "the query needs an api-version, such as 2023-06-30"}
	errSubscription = &tandem.Error{Op: "find the subscription", Kind: tandem.NotFound, Hint: "TANDEM_SUBSCRIPTION in the environment file names it"}
	errNoResource   = &tandem.Error{Op: "find the resource", Kind: tandem.NotFound}
	errMethod       = &tandem.Error{Op: "use this method here", Kind: tandem.Unsupported}
	errBusy         = &tandem.Error{Op: "serve the request", Kind: tandem.Throttled, Hint: "too many requests at once; try again"}
	errLocation     = &tandem.Error{Op: "place the hub", Kind: tandem.Invalid}
	// errLimits: the hub was moved by hand too often or too lately.
	errLimits = &tandem.Error{Op: "fail over", Kind: tandem.Conflict}
)

// An answer is how an error is told: HTTP status and ARM code.
type answer struct {
	status int
	code   string
}

// conditions is the table from exact conditions to answers; the first that matches counts.
var conditions = []struct {
	err    error
	answer answer
}{
	{catalog.ErrToken, answer{401, "InvalidAuthenticationToken"}},
	{catalog.ErrHubNotFound, answer{404, "ResourceNotFound"}},
	{catalog.ErrHubExists, answer{409, "IotHubNameNotAvailable"}},
	{catalog.ErrHubMoving, answer{409, "OperationInProgress"}},
	{catalog.ErrPolicyNotFound, answer{404, "PolicyNotFound"}},
	{operation.ErrBusy, answer{409, "OperationInProgress"}},
	{operation.ErrNotFound, answer{404, "OperationNotFound"}},
	{operation.ErrCommitted, answer{409, "OperationNotCancelable"}},
	{failover.ErrNoReceipt, answer{404, "ReceiptNotFound"}},
	{failover.ErrUnknownHub, answer{404, "ResourceNotFound"}},
	{failover.ErrUnpaired, answer{400, "InvalidFailoverRegion"}},
	{failover.ErrAlreadyThere, answer{409, "AlreadyInRegion"}},
	{failover.ErrNotInSync, answer{409, "NotInSync"}},
	{failover.ErrSourceDark, answer{409, "SourceRegionDark"}},
	{errLimits, answer{409, "IotHubFailoverLimit"}},
	{errNoVersion, answer{400, "MissingApiVersionParameter"}},
	{errSubscription, answer{404, "SubscriptionNotFound"}},
	{errLocation, answer{400, "InvalidResourceLocation"}},
	{errMethod, answer{405, "MethodNotAllowed"}},
}

// kinds are the answers to everything else.
var kinds = map[tandem.Kind]answer{
	tandem.Internal:     {500, "InternalServerError"},
	tandem.Invalid:      {400, "BadRequest"},
	tandem.Unauthorized: {401, "InvalidAuthenticationToken"},
	tandem.Forbidden:    {403, "AuthorizationFailed"},
	tandem.NotFound:     {404, "ResourceNotFound"},
	tandem.Exists:       {409, "Conflict"},
	tandem.Precondition: {412, "PreconditionFailed"},
	tandem.Conflict:     {409, "Conflict"},
	tandem.TooLarge:     {413, "RequestEntityTooLarge"},
	tandem.Throttled:    {429, "TooManyRequests"},
	tandem.Full:         {503, "ServerBusy"},
	tandem.Fenced:       {503, "ServiceUnavailable"},
	tandem.Unavailable:  {503, "ServiceUnavailable"},
	tandem.Timeout:      {503, "ServiceUnavailable"},
	tandem.Damaged:      {500, "InternalServerError"},
	tandem.Unsupported:  {501, "NotSupported"},
}

func answerTo(err error) answer {
	for _, c := range conditions {
		if errors.Is(err, c.err) {
			return c.answer
		}
	}
	return kinds[tandem.KindOf(err)]
}

// An errorBody is ARM's error: code and message, for people and programs.
type errorBody struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// tell is what operators read. They run the installation, so nothing is kept from them.
func tell(err error) string {
	text, hint := err.Error(), tandem.HintOf(err)
	var outer *tandem.Error
	if hint == "" || errors.As(err, &outer) && outer.Hint != "" { // the text has the hint already
		return text
	}
	return fmt.Sprintf("%s (%s)", text, hint)
}

// fail answers with {"error":{code,message}} (specs/wire-facts.md §6.3).
func (d *Door) fail(q *request, err error) {
	a := answerTo(err)
	if a.status == http.StatusInternalServerError {
		d.options.Logger.Error("an operator's request failed", "method", q.Method, "path", q.URL.Path, "err", err)
	}
	h := q.w.Header()
	h.Set("x-ms-error-code", a.code)
	if tandem.KindOf(err).Retriable() {
		h.Set("Retry-After", "1")
	}
	if a.status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="tandem"`)
	}
	_ = q.answer(a.status, map[string]errorBody{"error": {a.code, tell(err)}})
}
