// Package client speaks to Tandem from outside, through the same public doors that anybody uses: management over ARM's
// paths and /tandem, the device registry and events over HTTPS, and MQTT as a device does.
//
//	Target ──▶ Client (management) ──Hub──▶ Hub (registry, events)
//	                                └─────▶ Device (MQTT)
//
// It knows every region's address: when one is dark, the next is asked. It holds no rules about what may happen.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"tandem"
)

// A Target says where an installation is and who asks.
type Target struct {
	// URLs are the management base URLs of all regions, "https://127.0.1.1:8443", in order of preference.
	URLs []string
	// DataURLs are the HTTPS doors for devices and services. Empty: the hosts of URLs with the port that belongs to theirs
	// (443 beside 8443, both shifted by the same offset).
	DataURLs []string
	// CA is a PEM file with the authority to trust; empty means the system's.
	CA string
	// Token is the bearer token for management.
	Token                                         string
	Subscription, ResourceGroup, Tenant, Location string
}

// Ports that belong together in every region.
const (
	managementPort = 8443
	httpsPort      = 443
	mqttPort       = 8883
)

// A Client is a Target with its connections. Its methods may be called by many goroutines.
type Client struct {
	target Target
	trust  *x509.CertPool
	http   *http.Client
	alive  atomic.Int32 // index into URLs of the one that answered last
	data   atomic.Int32 // the same for DataURLs
}

// New checks the target and reads its CA. It connects to nothing.
func New(t Target) (*Client, error) {
	const op = "find Tandem"
	if len(t.URLs) == 0 {
		return nil, &tandem.Error{Op: op, Kind: tandem.Invalid, Err: errors.New("no address is known"),
			Hint: "start `tandem dev` here, or give --url and --ca, or set TANDEM_ARM_URL and TANDEM_CA"}
	}
	deriveData := len(t.DataURLs) == 0
	for _, base := range t.URLs {
		u, err := url.Parse(base)
		if err != nil || u.Scheme != "https" || u.Host == "" {
			return nil, &tandem.Error{Op: op, Kind: tandem.Invalid, Err: fmt.Errorf("%q is not an https address", base)}
		}
		if deriveData {
			t.DataURLs = append(t.DataURLs, "https://"+shiftPort(u, httpsPort))
		}
	}
	c := &Client{target: t}
	if t.CA != "" {
		text, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, &tandem.Error{Op: op, Kind: tandem.NotFound, Err: err}
		}
		c.trust = x509.NewCertPool()
		if !c.trust.AppendCertsFromPEM(text) {
			return nil, &tandem.Error{Op: op, Kind: tandem.Invalid, On: t.CA, Err: errors.New("it holds no PEM certificate")}
		}
	}
	dialer := &net.Dialer{Timeout: 3 * time.Second}
	c.http = &http.Client{Transport: &http.Transport{
		TLSClientConfig: c.tls(""), DialContext: dialer.DialContext, MaxIdleConnsPerHost: 16, IdleConnTimeout: time.Minute,
		TLSHandshakeTimeout: 5 * time.Second, ResponseHeaderTimeout: 40 * time.Second, ForceAttemptHTTP2: true,
	}}
	return c, nil
}

// Target is what the client was made with, with DataURLs filled in.
func (c *Client) Target() Target { return c.target }

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func (c *Client) tls(name string) *tls.Config {
	return &tls.Config{RootCAs: c.trust, ServerName: name, MinVersion: tls.VersionTLS12, ClientSessionCache: tls.NewLRUClientSessionCache(64)}
}

// shiftPort is u's host with the port that lies as far from the standard one as u's does from the management port.
func shiftPort(u *url.URL, standard int) string {
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		port = managementPort
	}
	return net.JoinHostPort(u.Hostname(), strconv.Itoa(standard+port-managementPort))
}

// An Answer is a refusal as the server put it. It is the cause within the *tandem.Error that calls return.
type Answer struct {
	Status int    // HTTP
	Code   string // "IotHubFailoverLimit", "DeviceNotFound"; may be empty
	Text   string
	Body   []byte // as it came
}

// Error is the text, or the status when there is none.
func (a *Answer) Error() string {
	if a.Text == "" {
		return "the server answered " + strconv.Itoa(a.Status) + " " + http.StatusText(a.Status)
	}
	return a.Text
}

// A Request is one call. Path begins with '/'; In is sent as JSON unless it is nil; what comes back is decoded into Out.
type Request struct {
	Op     string // what is attempted, for the error
	Method string
	Path   string
	Header map[string]string
	Host   string // for the data doors: the hub's name
	In     any
	Out    any
	Each   func(line []byte) error // in place of Out: the answer is JSON lines, given to it one by one
	Twice  bool                    // asking twice is no harm, as with every GET
}

func (r *Request) twice() bool {
	return r.Twice || r.Method == http.MethodGet
}

// Do calls management. When a region cannot be reached the next one is asked. So it is when one answers that it is not
// ready, or not within a few seconds, unless the call might then happen twice. It returns the answer's header.
func (c *Client) Do(ctx context.Context, r Request) (http.Header, error) {
	header := map[string]string{"Authorization": "Bearer " + c.target.Token}
	for k, v := range r.Header {
		header[k] = v
	}
	r.Header = header
	return c.try(ctx, c.target.URLs, &c.alive, r)
}

// patience is how long one region is waited for while another may be asked.
const patience = 4 * time.Second

func (c *Client) try(ctx context.Context, bases []string, alive *atomic.Int32, r Request) (http.Header, error) {
	first := int(alive.Load())
	var lastErr error
	for i := range bases {
		at := (first + i) % len(bases)
		attempt, cancel := ctx, context.CancelFunc(func() {})
		if r.twice() && r.Each == nil && i+1 < len(bases) { // a region that is cut off thinks for long before it says so
			attempt, cancel = context.WithTimeout(ctx, patience)
		}
		response, err := c.send(attempt, bases[at], r)
		if err != nil {
			cancel()
			lastErr = &tandem.Error{Op: r.Op, Kind: tandem.Unavailable, On: bases[at], Err: plain(err),
				Hint: "is Tandem running there? `tandem dev` starts one here"}
			if ctx.Err() != nil || !(r.twice() || notSent(err)) {
				return nil, lastErr
			}
			continue
		}
		header, err := finish(ctx, response, r)
		cancel()
		if err != nil && (attempt.Err() != nil || response.StatusCode == http.StatusServiceUnavailable) && ctx.Err() == nil &&
			r.twice() && i+1 < len(bases) {
			lastErr = err
			continue
		}
		alive.Store(int32(at))
		return header, err
	}
	return nil, lastErr
}

// notSent reports whether the request certainly did not reach a server.
func notSent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// plain drops what url.Error repeats.
func plain(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

func (c *Client) send(ctx context.Context, base string, r Request) (*http.Response, error) {
	var body io.Reader
	if r.In != nil {
		text, err := json.Marshal(r.In)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, r.Method, strings.TrimSuffix(base, "/")+r.Path, body)
	if err != nil {
		return nil, err
	}
	request.Host = r.Host
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", "tandem")
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	for k, v := range r.Header {
		request.Header.Set(k, v)
	}
	return c.http.Do(request)
}

// maxAnswer bounds what is read of one answer; streams are read elsewhere.
const maxAnswer = 64 << 20

func finish(ctx context.Context, response *http.Response, r Request) (http.Header, error) {
	defer response.Body.Close()
	if r.Each != nil && response.StatusCode == http.StatusOK {
		return response.Header, eachLine(ctx, r.Op, response.Body, r.Each)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return nil, &tandem.Error{Op: r.Op, Kind: tandem.Timeout, Err: err}
	}
	if response.StatusCode >= 300 {
		return response.Header, refusal(r.Op, response.StatusCode, body)
	}
	if r.Out == nil || len(bytes.TrimSpace(body)) == 0 {
		return response.Header, nil
	}
	if raw, ok := r.Out.(*json.RawMessage); ok {
		*raw = body
		return response.Header, nil
	}
	if err := json.Unmarshal(body, r.Out); err != nil {
		return response.Header, &tandem.Error{Op: r.Op, Kind: tandem.Internal, Err: fmt.Errorf("the answer is not what was expected: %w", err)}
	}
	return response.Header, nil
}

// refusal reads ARM's {"error":{code,message}}, and the hub's {"Message":"ErrorCode:X;text"} (specs/clients.md §6, §7).
func refusal(op string, status int, body []byte) error {
	var text struct {
		Error struct{ Code, Message string }
		Code  string
		// Message decodes "Message" and "message".
		Message string
	}
	answer := &Answer{Status: status, Body: body}
	if json.Unmarshal(body, &text) == nil {
		answer.Code, answer.Text = text.Error.Code, text.Error.Message
		if answer.Text == "" {
			answer.Code, answer.Text = text.Code, text.Message
			if rest, ok := strings.CutPrefix(text.Message, "ErrorCode:"); ok {
				answer.Code, answer.Text, _ = strings.Cut(rest, ";")
			}
		}
	}
	return composed(op, kindOf(status), answer)
}

// composed is a server's refusal as one error of ours. The server's text may begin with the operation as we name it, and
// ends with its hint in brackets; neither is to be said twice.
func composed(op string, kind tandem.Kind, a *Answer) *tandem.Error {
	e := &tandem.Error{Op: op, Kind: kind, Err: a}
	a.Text, e.Hint = cutHint(a.Text)
	parts := slices.DeleteFunc(strings.Split(a.Text, ": "), func(part string) bool { return part == op })
	if n := len(parts); n > 1 && parts[n-1] == tandem.NotFound.String() && strings.HasPrefix(parts[n-2], "find the ") {
		parts = slices.Delete(parts, n-2, n-1) // "find the hub: not found" says it twice as well
	}
	a.Text = strings.Join(parts, ": ")
	return e
}

// cutHint takes the brackets off the end of a text, as tandem.Error writes a hint; brackets within it stay.
func cutHint(text string) (rest, hint string) {
	if !strings.HasSuffix(text, ")") {
		return text, ""
	}
	depth := 0
	for i := len(text) - 1; i > 0; i-- {
		switch text[i] {
		case ')':
			depth++
		case '(':
			depth--
		}
		if depth == 0 {
			if text[i-1] == ' ' {
				return text[:i-1], text[i+1 : len(text)-1]
			}
			break
		}
	}
	return text, ""
}

func kindOf(status int) tandem.Kind {
	switch status {
	case http.StatusBadRequest:
		return tandem.Invalid
	case http.StatusUnauthorized:
		return tandem.Unauthorized
	case http.StatusForbidden:
		return tandem.Forbidden
	case http.StatusNotFound:
		return tandem.NotFound
	case http.StatusConflict:
		return tandem.Conflict
	case http.StatusPreconditionFailed:
		return tandem.Precondition
	case http.StatusRequestEntityTooLarge:
		return tandem.TooLarge
	case http.StatusTooManyRequests:
		return tandem.Throttled
	case http.StatusBadGateway, http.StatusServiceUnavailable:
		return tandem.Unavailable
	case http.StatusGatewayTimeout:
		return tandem.Timeout
	case http.StatusInsufficientStorage:
		return tandem.Full
	case http.StatusNotImplemented:
		return tandem.Unsupported
	}
	return tandem.Internal
}
