package natslog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"tandem"
	"tandem/pairlog"
)

// The engine's error codes that mean something to us.
const (
	codeWrongSequence = 10071
	codeSealed        = 10109
	codeNoStream      = 10059
	codeResources     = 10023
	codeStorage       = 10047
)

// maxBatch is how many records one direct get gives.
const maxBatch = 1000

// requestTime bounds a request to the engine when the caller's context does not.
const requestTime = 10 * time.Second

// Store keeps each segment as one stream of JetStream: File, R1, no limits of its own.
type Store struct {
	nc  *nats.Conn
	js  jetstream.JetStream
	dir string
	own tandem.RegionName

	mu      sync.Mutex
	senders map[pairlog.SegmentID]*sender

	spaceMu sync.Mutex
	space   pairlog.Space
	spaceAt time.Time
}

// sender is the message that is used again for each append to a segment.
type sender struct {
	mu    sync.Mutex
	msg   *nats.Msg
	after []string
}

var _ pairlog.Store = (*Store)(nil)

func newStore(ctx context.Context, nc *nats.Conn, o Options) (*Store, error) {
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(requestTime))
	if err != nil {
		return nil, failed("open the log engine", err)
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for { // the account's storage is recovered after connections are taken
		if _, err = js.AccountInfo(ctx); err == nil {
			break
		}
		select {
		case <-ctx.Done():
			return nil, failed("open the log engine", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
	return &Store{nc: nc, js: js, dir: o.StoreDir, own: o.Region, senders: make(map[pairlog.SegmentID]*sender)}, nil
}

// streamName is "log-<hub>-<shard>-<epoch>-<part>-<holder>"; the holder is last as it may hold a '-'.
func streamName(id pairlog.SegmentID) string {
	return fmt.Sprintf("log-%s-%d-%d-%d-%s", id.Hub, id.Shard, id.Epoch, id.Part, id.Holder)
}

func parseStreamName(name string) (id pairlog.SegmentID, ok bool) {
	f := strings.SplitN(name, "-", 6)
	if len(f) != 6 || f[0] != "log" {
		return id, false
	}
	shard, err1 := strconv.ParseUint(f[2], 10, 16)
	epoch, err2 := strconv.ParseUint(f[3], 10, 64)
	part, err3 := strconv.ParseUint(f[4], 10, 16)
	if errors.Join(err1, err2, err3) != nil {
		return id, false
	}
	return pairlog.SegmentID{
		Hub: tandem.HubID(f[1]), Shard: uint16(shard), Epoch: tandem.Epoch(epoch), Part: uint16(part), Holder: tandem.RegionName(f[5]),
	}, true
}

func (s *Store) subject(id pairlog.SegmentID) string {
	return "log." + string(s.own) + "." + streamName(id)
}

func (s *Store) config(id pairlog.SegmentID) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: streamName(id), Subjects: []string{s.subject(id)},
		Storage: jetstream.FileStorage, Replicas: 1, Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardNew,
		MaxBytes: -1, MaxMsgs: -1, MaxConsumers: -1, AllowDirect: true, DenyDelete: true, Duplicates: 100 * time.Millisecond,
	}
}

// Create is Store.Create.
func (s *Store) Create(ctx context.Context, id pairlog.SegmentID) error {
	if strings.Contains(string(id.Hub), "-") || !wordPattern.MatchString(string(id.Hub)) || !wordPattern.MatchString(string(id.Holder)) {
		return &tandem.Error{Op: "make a segment", Kind: tandem.Invalid, On: string(id.Hub)}
	}
	_, err := s.js.CreateStream(ctx, s.config(id))
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // as when it is sealed by now
		return nil
	}
	return s.wrap("make a segment", id, err)
}

// pubAnswer is what the engine says to a publish.
type pubAnswer struct {
	Seq   uint64 `json:"seq"`
	Error *struct {
		Code    int    `json:"code"`
		ErrCode int    `json:"err_code"`
		Text    string `json:"description"`
	} `json:"error"`
}

// Append is Store.Append.
func (s *Store) Append(ctx context.Context, id pairlog.SegmentID, after uint64, record []byte) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, requestTime)
		defer cancel()
	}
	to := s.sender(id)
	to.mu.Lock()
	defer to.mu.Unlock()
	to.after[0] = strconv.FormatUint(after, 10)
	to.msg.Data = record
	answer, err := s.nc.RequestMsgWithContext(ctx, to.msg)
	to.msg.Data = nil
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		if _, err := s.State(ctx, id); errors.Is(err, pairlog.ErrNoSegment) {
			return pairlog.ErrNoSegment
		}
		return unanswered(id, err)
	case err != nil:
		return unanswered(id, err)
	}
	var a pubAnswer
	if err := json.Unmarshal(answer.Data, &a); err != nil {
		return unanswered(id, err)
	}
	if a.Error == nil {
		if a.Seq != after+1 {
			return &tandem.Error{Op: "append", Kind: tandem.Damaged, On: string(id.Hub), Err: fmt.Errorf("stored at sequence %d instead of %d", a.Seq, after+1)}
		}
		return nil
	}
	switch a.Error.ErrCode {
	case codeWrongSequence:
		return pairlog.ErrSequence
	case codeSealed:
		return pairlog.ErrSealed
	case codeNoStream:
		return pairlog.ErrNoSegment
	case codeResources, codeStorage:
		return &tandem.Error{Op: "append", Kind: tandem.Full, On: string(id.Hub), Err: errors.New(a.Error.Text), Hint: pairlog.ErrFull.Hint}
	}
	return unanswered(id, errors.New(a.Error.Text))
}

// unanswered says that an append may or may not be stored.
func unanswered(id pairlog.SegmentID, err error) error {
	return &tandem.Error{Op: "append", Kind: tandem.Timeout, On: string(id.Hub), Err: err}
}

func (s *Store) sender(id pairlog.SegmentID) *sender {
	s.mu.Lock()
	defer s.mu.Unlock()
	to := s.senders[id]
	if to == nil {
		to = &sender{msg: nats.NewMsg(s.subject(id)), after: make([]string, 1)}
		to.msg.Header[nats.ExpectedLastSeqHdr] = to.after
		s.senders[id] = to
	}
	return to
}

// Read is Store.Read, by batched direct gets.
func (s *Store) Read(ctx context.Context, id pairlog.SegmentID, from uint64, maxBytes int, fn func(uint64, []byte) error) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, requestTime)
		defer cancel()
	}
	from = max(from, 1)
	batch := 1
	request := fmt.Sprintf(`{"seq":%d,"batch":1}`, from)
	if maxBytes > pairlog.MaxRecordBytes+4<<10 {
		batch = maxBatch
		request = fmt.Sprintf(`{"seq":%d,"batch":%d,"max_bytes":%d}`, from, batch, min(maxBytes, 16<<20))
	}
	inbox := s.nc.NewInbox()
	messages := make(chan *nats.Msg, batch+1) // and the end mark: it never fills up
	sub, err := s.nc.ChanSubscribe(inbox, messages)
	if err != nil {
		return s.wrap("read a segment", id, err)
	}
	defer sub.Unsubscribe()
	if err := s.nc.PublishRequest("$JS.API.DIRECT.GET."+streamName(id), inbox, []byte(request)); err != nil {
		return s.wrap("read a segment", id, err)
	}
	for given := 0; ; {
		var msg *nats.Msg
		select {
		case msg = <-messages:
		case <-ctx.Done():
			return s.wrap("read a segment", id, ctx.Err())
		}
		switch status := msg.Header.Get("Status"); status {
		case "":
		case "204", "404": // the end of the batch; nothing there
			return nil
		default:
			return s.unread(ctx, id, fmt.Errorf("the engine says %s %s", status, msg.Header.Get("Description")))
		}
		at, err := strconv.ParseUint(msg.Header.Get(nats.JSSequence), 10, 64)
		if err != nil || at != from {
			return &tandem.Error{Op: "read the log", Kind: tandem.Damaged, On: string(id.Hub),
				Err: errors.Join(pairlog.ErrDamaged, fmt.Errorf("segment %s: sequence %d is missing", streamName(id), from))}
		}
		if given > 0 && given+len(msg.Data) > maxBytes { // the engine gives one more than it was asked for
			return nil
		}
		given += len(msg.Data)
		if err := fn(at, msg.Data); err != nil {
			return err
		}
		from++
	}
}

// unread is why a read got no answer: the segment is not there, or the engine is not well.
func (s *Store) unread(ctx context.Context, id pairlog.SegmentID, cause error) error {
	if _, err := s.State(ctx, id); err != nil {
		return err
	}
	return failed("read a segment", cause)
}

// Seal is Store.Seal.
func (s *Store) Seal(ctx context.Context, id pairlog.SegmentID) error {
	stream, err := s.js.Stream(ctx, streamName(id))
	if err != nil {
		return s.wrap("seal a segment", id, err)
	}
	config := stream.CachedInfo().Config
	if config.Sealed {
		return nil
	}
	config.Sealed = true
	_, err = s.js.UpdateStream(ctx, config)
	return s.wrap("seal a segment", id, err)
}

// State is Store.State.
func (s *Store) State(ctx context.Context, id pairlog.SegmentID) (pairlog.SegmentState, error) {
	stream, err := s.js.Stream(ctx, streamName(id))
	if err != nil {
		return pairlog.SegmentState{}, s.wrap("look at a segment", id, err)
	}
	info := stream.CachedInfo()
	st := pairlog.SegmentState{First: info.State.FirstSeq, Last: info.State.LastSeq, Bytes: int64(info.State.Bytes), Sealed: info.Config.Sealed}
	if info.State.Msgs == 0 {
		st.First = st.Last + 1
	}
	return st, nil
}

// Segments is Store.Segments.
func (s *Store) Segments(ctx context.Context, hub tandem.HubID) ([]pairlog.SegmentID, error) {
	var ids []pairlog.SegmentID
	names := s.js.StreamNames(ctx)
	for name := range names.Name() {
		if id, ok := parseStreamName(name); ok && (hub == "" || id.Hub == hub) {
			ids = append(ids, id)
		}
	}
	if err := names.Err(); err != nil {
		return nil, failed("list the segments", err)
	}
	return ids, nil
}

// Trim is Store.Trim.
func (s *Store) Trim(ctx context.Context, id pairlog.SegmentID, first uint64) error {
	stream, err := s.js.Stream(ctx, streamName(id))
	if err != nil {
		return s.wrap("trim a segment", id, err)
	}
	info := stream.CachedInfo()
	switch {
	case info.Config.Sealed:
		return &tandem.Error{Op: "trim a segment", Kind: tandem.Unsupported, On: string(id.Hub), Err: errors.New("it is sealed")}
	case first <= info.State.FirstSeq:
		return nil
	}
	return s.wrap("trim a segment", id, stream.Purge(ctx, jetstream.WithPurgeSequence(min(first, info.State.LastSeq+1))))
}

// Delete is Store.Delete.
func (s *Store) Delete(ctx context.Context, id pairlog.SegmentID) error {
	err := s.js.DeleteStream(ctx, streamName(id))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		err = nil
	}
	if err == nil {
		s.mu.Lock()
		delete(s.senders, id)
		s.mu.Unlock()
	}
	return s.wrap("delete a segment", id, err)
}

// Space is Store.Space: the file system's, at most 100 ms old.
func (s *Store) Space() pairlog.Space {
	s.spaceMu.Lock()
	defer s.spaceMu.Unlock()
	if now := time.Now(); now.Sub(s.spaceAt) > 100*time.Millisecond {
		s.space, s.spaceAt = diskSpace(s.dir), now
	}
	return s.space
}

// wrap gives the engine's error our kind.
func (s *Store) wrap(op string, id pairlog.SegmentID, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return pairlog.ErrNoSegment
	}
	kind := tandem.Unavailable
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) || errors.Is(err, context.Canceled) {
		kind = tandem.Timeout
	}
	return &tandem.Error{Op: op, Kind: kind, On: string(id.Hub), Err: err}
}
