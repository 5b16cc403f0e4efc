package natslog

import (
	"context"
	"encoding/json"
	"errors"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"tandem"
	"tandem/pairlog"
)

const (
	fromHeader  = "F" // the sender's region
	errorHeader = "E" // an answer that is an error, as JSON
	inFlight    = 256
	pingEvery   = 250 * time.Millisecond
	upFor       = 900 * time.Millisecond
	handleTime  = 30 * time.Second
	pingSubject = "tandem.ping"
)

// Link is core NATS on the leafnode: requests and messages under "tandem.<region>.".
type Link struct {
	nc     *nats.Conn
	own    tandem.RegionName
	engine *server.Server
	heard  atomic.Int64 // when the peer last answered a ping, Unix nanoseconds
}

var _ pairlog.Link = (*Link)(nil)

func newLink(nc *nats.Conn, own tandem.RegionName, engine *server.Server) (*Link, error) {
	l := &Link{nc: nc, own: own, engine: engine}
	pong := "tandem.pong." + string(own)
	_, err := nc.Subscribe(pingSubject, func(m *nats.Msg) {
		if from := m.Header.Get(fromHeader); from != "" && from != string(own) && wordPattern.MatchString(from) {
			_ = nc.PublishMsg(&nats.Msg{Subject: "tandem.pong." + from, Header: nats.Header{fromHeader: {string(own)}}})
		}
	})
	if err == nil {
		_, err = nc.Subscribe(pong, func(*nats.Msg) { l.heard.Store(time.Now().UnixNano()) })
	}
	if err == nil {
		err = nc.Flush()
	}
	if err != nil {
		return nil, failed("open the link", err)
	}
	return l, nil
}

func (l *Link) ping() {
	_ = l.nc.PublishMsg(&nats.Msg{Subject: pingSubject, Header: nats.Header{fromHeader: {string(l.own)}}})
}

// Up is Link.Up: the leafnode is connected and the peer answered one of the last pings, which Server.Run sends.
func (l *Link) Up() bool {
	return l.engine.NumLeafNodes() > 0 && time.Since(time.Unix(0, l.heard.Load())) < upFor
}

func subjectOf(region tandem.RegionName, subject string) string {
	return "tandem." + string(region) + "." + subject
}

// wireError is an error as it crosses the link.
type wireError struct {
	Op   string      `json:"op"`
	Kind tandem.Kind `json:"kind"`
	On   string      `json:"on,omitempty"`
	Text string      `json:"text,omitempty"`
	Hint string      `json:"hint,omitempty"`
}

func encodeError(err error) string {
	w := wireError{Kind: tandem.KindOf(err), Hint: tandem.HintOf(err), Text: err.Error()}
	var e *tandem.Error
	if errors.As(err, &e) {
		w.Op, w.On = e.Op, e.On
		if w.Text = ""; e.Err != nil {
			w.Text = e.Err.Error()
		}
	}
	b, _ := json.Marshal(w)
	return string(b)
}

func decodeError(text string) error {
	var w wireError
	if err := json.Unmarshal([]byte(text), &w); err != nil {
		return failed("ask the peer region", err)
	}
	e := &tandem.Error{Op: w.Op, Kind: w.Kind, On: w.On, Hint: w.Hint}
	if w.Text != "" {
		e.Err = errors.New(w.Text)
	}
	return e
}

// Request is Link.Request.
func (l *Link) Request(ctx context.Context, to tandem.RegionName, subject string, data []byte) ([]byte, error) {
	const op = "ask the peer region"
	if len(data) > linkBytes {
		return nil, &tandem.Error{Op: op, Kind: tandem.TooLarge, On: string(to)}
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, handleTime)
		defer cancel()
	}
	m := &nats.Msg{Subject: subjectOf(to, subject), Header: nats.Header{fromHeader: {string(l.own)}}, Data: data}
	answer, err := l.nc.RequestMsgWithContext(ctx, m)
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.Is(err, nats.ErrTimeout):
		return nil, &tandem.Error{Op: op, Kind: tandem.Timeout, On: string(to), Err: err}
	case err != nil:
		return nil, &tandem.Error{Op: op, Kind: tandem.Unavailable, On: string(to), Err: err}
	}
	if text := answer.Header.Get(errorHeader); text != "" {
		return nil, decodeError(text)
	}
	return answer.Data, nil
}

// Serve is Link.Serve.
func (l *Link) Serve(subject string, handle func(context.Context, tandem.RegionName, []byte) ([]byte, error)) (func(), error) {
	room := make(chan struct{}, inFlight)
	sub, err := l.nc.Subscribe(subjectOf(l.own, subject), func(m *nats.Msg) {
		if m.Reply == "" {
			return
		}
		room <- struct{}{}
		go func() {
			defer func() { <-room }()
			ctx, cancel := context.WithTimeout(context.Background(), handleTime)
			defer cancel()
			data, err := handle(ctx, tandem.RegionName(m.Header.Get(fromHeader)), m.Data)
			answer := &nats.Msg{Subject: m.Reply, Data: data}
			if err == nil && len(data) > linkBytes {
				err = &tandem.Error{Op: "answer the peer region", Kind: tandem.TooLarge}
			}
			if err != nil {
				answer.Data, answer.Header = nil, nats.Header{errorHeader: {encodeError(err)}}
			}
			_ = l.nc.PublishMsg(answer) // a lost answer is the asker's timeout
		}()
	})
	if err != nil {
		return nil, failed("serve the peer region", err)
	}
	if err := l.nc.Flush(); err != nil {
		return nil, failed("serve the peer region", err)
	}
	return func() { _ = sub.Unsubscribe() }, nil
}

// Send is Link.Send.
func (l *Link) Send(to tandem.RegionName, subject string, data []byte) error {
	if len(data) > linkBytes {
		return &tandem.Error{Op: "send to the peer region", Kind: tandem.TooLarge, On: string(to)}
	}
	err := l.nc.PublishMsg(&nats.Msg{Subject: subjectOf(to, subject), Header: nats.Header{fromHeader: {string(l.own)}}, Data: data})
	if err != nil {
		return &tandem.Error{Op: "send to the peer region", Kind: tandem.Unavailable, On: string(to), Err: err}
	}
	return nil
}

// Receive is Link.Receive.
func (l *Link) Receive(subject string, receive func(tandem.RegionName, []byte)) (func(), error) {
	sub, err := l.nc.Subscribe(subjectOf(l.own, subject), func(m *nats.Msg) {
		receive(tandem.RegionName(m.Header.Get(fromHeader)), m.Data)
	})
	if err == nil {
		err = l.nc.Flush()
	}
	if err != nil {
		return nil, failed("receive from the peer region", err)
	}
	return func() { _ = sub.Unsubscribe() }, nil
}
