package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"time"

	"tandem"
)

// A Place is a record in a hub's log.
type Place struct {
	Epoch  uint64 `json:"epoch"`
	Number uint64 `json:"number"`
}

// A Report is what a move did, with its times in milliseconds.
type Report struct {
	Epoch       uint64     `json:"epoch"`
	Fork        Place      `json:"fork"`
	Pause       float64    `json:"pause_ms"`  // 0: not measured, as when the source was dark
	Switch      float64    `json:"switch_ms"` // from when the driver began to the first write that could be taken
	Total       float64    `json:"total_ms"`
	Steps       []StepTime `json:"steps"`
	Lossless    bool       `json:"lossless"`
	Lost        *Lost      `json:"lost"`
	Connections int        `json:"connections"`
	Note        string     `json:"note"`
}

// A StepTime is how long one step took.
type StepTime struct {
	Name    string  `json:"name"`
	Status  string  `json:"status"`
	Took    float64 `json:"ms"`
	Details string  `json:"details"`
}

// Lost is what was known, when a forced failover ended, of what it may have stranded.
type Lost struct {
	Receipt string  `json:"receipt"`
	State   string  `json:"state"`
	Items   uint64  `json:"items_at_risk"`
	Bytes   uint64  `json:"bytes_at_risk"`
	Seconds float64 `json:"seconds_at_risk"`
}

// ReadReport is the operation's report; false when it has none yet.
func (o *Operation) ReadReport() (Report, bool) {
	var r Report
	if len(o.Report) == 0 || string(o.Report) == "null" || json.Unmarshal(o.Report, &r) != nil {
		return Report{}, false
	}
	return r, true
}

// A Forecast is what a move would cost now.
type Forecast struct {
	Hub         string  `json:"hub"`
	From        string  `json:"from"`
	To          string  `json:"to"`
	Forced      bool    `json:"forced"`
	Ready       bool    `json:"ready"` // else Reason and Hint
	Reason      string  `json:"reason"`
	Hint        string  `json:"hint"`
	Items       uint64  `json:"items_at_risk"`
	Bytes       uint64  `json:"bytes_at_risk"`
	Seconds     float64 `json:"seconds_at_risk"`
	Known       bool    `json:"known"` // the figures at risk are of now
	Switch      float64 `json:"switch_ms"`
	Measured    int     `json:"measured"` // moves of which Switch is the median; 0: the design's figure
	Recover     float64 `json:"time_to_recover_ms"`
	Connections int     `json:"connections"`
	InSync      bool    `json:"in_sync"`
	Replication string  `json:"replication"`
}

// A Receipt says what a forced failover left behind in a region.
type Receipt struct {
	ID         string            `json:"id"`
	HubName    string            `json:"hub_name"`
	Epoch      uint64            `json:"epoch"`
	Region     string            `json:"region"`
	Fork       Place             `json:"fork"`
	State      string            `json:"state"` // provisional, complete, closed incomplete
	Opened     time.Time         `json:"opened"`
	Closed     time.Time         `json:"closed"`
	HeardItems uint64            `json:"heard_items"`
	HeardBytes uint64            `json:"heard_bytes"`
	HeardAge   int64             `json:"heard_age_ms"`
	First      uint64            `json:"first"`
	Last       uint64            `json:"last"`
	Items      uint64            `json:"items"`
	Bytes      uint64            `json:"bytes"`
	Kinds      map[string]uint64 `json:"kinds"`
	Oldest     time.Time         `json:"oldest"`
	Newest     time.Time         `json:"newest"`
}

// An Item is one stranded entry of a receipt.
type Item struct {
	Time      time.Time `json:"time"`
	Kind      string    `json:"kind"`
	Device    string    `json:"device"`
	Partition int       `json:"partition"`
	Number    int64     `json:"number"`
	MessageID string    `json:"message_id"`
	Bytes     int64     `json:"bytes"`
}

// A Side is what one region knows of its copy of a hub. Only Region is set when the region does not answer.
type Side struct {
	Region      string  `json:"region"`
	Known       bool    `json:"known"`
	Role        string  `json:"role"` // holder, follower, closed, fenced
	Epoch       uint64  `json:"epoch"`
	End         Place   `json:"end"`
	Applied     Place   `json:"applied"`
	LagItems    uint64  `json:"lagItems"`
	LagBytes    uint64  `json:"lagBytes"`
	LagSeconds  float64 `json:"lagSeconds"`
	LagKnown    bool    `json:"lagKnown"`
	ViewLag     uint64  `json:"viewLag"`
	PeerAcked   uint64  `json:"peerAcked"`
	PeerAckMS   float64 `json:"peerAckAgeMs"`
	PeerKnown   bool    `json:"peerKnown"`
	Sessions    int     `json:"sessions"`
	Damaged     string  `json:"damaged"`
	NeedsReseed bool    `json:"needsReseed"`
	RootNumber  uint64  `json:"rootNumber"`
	RootDiffers bool    `json:"rootDiffers"`
}

// Receipts lists a hub's loss receipts, newest first.
func (c *Client) Receipts(ctx context.Context, hub string) (list []Receipt, raw json.RawMessage, err error) {
	const op = "list the receipts"
	if raw, err = c.raw(ctx, op, "/tandem/hubs/"+url.PathEscape(hub)+"/receipts"); err != nil {
		return nil, nil, err
	}
	var page struct{ Value []Receipt }
	err = decode(op, raw, &page)
	return page.Value, raw, err
}

// Receipt returns one loss receipt.
func (c *Client) Receipt(ctx context.Context, id string) (r Receipt, raw json.RawMessage, err error) {
	const op = "show the receipt"
	if raw, err = c.raw(ctx, op, receiptPath(id)); err != nil {
		return r, nil, err
	}
	return r, raw, decode(op, raw, &r)
}

// CloseReceipt declares the stranded items of a receipt gone for good.
func (c *Client) CloseReceipt(ctx context.Context, id string) error {
	_, err := c.Do(ctx, Request{Op: "close the receipt", Method: http.MethodPost, Path: receiptPath(id) + "/close"})
	return err
}

func receiptPath(id string) string { return "/tandem/receipts/" + url.PathEscape(id) }

// Items gives each stranded item of a complete receipt to each, oldest first, as a line of JSON and read, until one call
// fails. Kind Precondition while the receipt is not complete. Each may keep nothing of line.
func (c *Client) Items(ctx context.Context, id string, each func(line []byte, item Item) error) error {
	const op = "list the receipt"
	_, err := c.Do(ctx, Request{Op: op, Method: http.MethodGet, Path: receiptPath(id) + "/items", Each: func(line []byte) error {
		var item Item
		if err := decode(op, line, &item); err != nil {
			return err
		}
		return each(line, item)
	}})
	return err
}

// HubStatus is what both regions know of a hub's log and view, its home first.
func (c *Client) HubStatus(ctx context.Context, hub string) (sides []Side, raw json.RawMessage, err error) {
	const op = "show the hub's status"
	if raw, err = c.raw(ctx, op, "/tandem/hubs/"+url.PathEscape(hub)+"/status"); err != nil {
		return nil, nil, err
	}
	var page struct{ Value []Side }
	err = decode(op, raw, &page)
	return page.Value, raw, err
}

// maxLine bounds a line of a stream; a message of 256 KiB in base64 fits.
const maxLine = 512 << 10

// eachLine reads JSON lines until the stream ends or each fails. A line {"error":…} is how a stream says that it broke
// after it had begun. An error of each comes back as it is.
func eachLine(ctx context.Context, op string, body io.Reader, each func(line []byte) error) error {
	lines := bufio.NewReaderSize(body, maxLine)
	for {
		line, err := lines.ReadSlice('\n')
		if bytes.HasPrefix(line, []byte(`{"error":`)) {
			return refusal(op, http.StatusServiceUnavailable, line)
		}
		if len(line) > 1 {
			if err := each(line); err != nil {
				return err
			}
		}
		switch {
		case err == nil:
		case err == io.EOF || ctx.Err() != nil:
			return nil
		default:
			return &tandem.Error{Op: op, Kind: tandem.Unavailable, Err: err}
		}
	}
}
