package hub

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"tandem"
	"tandem/pairlog"
)

// serve answers the other region's doors and questions.
func (r *Replica) serve() (stops []func(), err error) {
	stops, err = r.door.listen()
	id := r.o.Info.ID
	receive := func(verb string, fn func(tandem.RegionName, []byte)) {
		if err == nil {
			var stop func()
			if stop, err = r.o.Link.Receive(hubSubject(id, verb), fn); err == nil {
				stops = append(stops, stop)
			}
		}
	}
	receive("commands", r.commands)
	for _, verb := range []string{"announce", "disconnect"} {
		receive(verb, func(_ tandem.RegionName, data []byte) {
			var list sessionList
			if json.Unmarshal(data, &list) == nil {
				r.sessionMessage(verb, list)
			}
		})
	}
	for verb := range questions {
		if err != nil {
			break
		}
		var stop func()
		stop, err = r.o.Link.Serve(hubSubject(id, verb), func(_ context.Context, _ tandem.RegionName, data []byte) ([]byte, error) {
			return r.answer(verb, data)
		})
		if err == nil {
			stops = append(stops, stop)
		}
	}
	return stops, err
}

// commands takes a frame of a door in another region.
func (r *Replica) commands(from tandem.RegionName, data []byte) {
	f, err := decodeCommandFrame(data)
	if err != nil {
		r.o.Logger.Error("command frame refused", "hub", r.o.Info.Name, "from", from, "error", err)
		return
	}
	r.mu.Lock()
	w := r.writer
	r.mu.Unlock()
	if w == nil || w.pen.Epoch != f.Epoch {
		return // the door learns of the move and sends again
	}
	w.remote(f.Door, from).frame(f, len(data))
}

// sessionMessage is what doors tell the holder of their sessions.
func (r *Replica) sessionMessage(verb string, list sessionList) {
	for _, e := range list.Sessions {
		if verb == "disconnect" {
			r.registry.disconnect(e)
			continue
		}
		if loser, newest, conflict := r.registry.announce(e, list.Door, list.Region); conflict {
			r.dropSession(loser, sessionEntry{e.Device, newest})
		}
	}
}

// dropSession ends a session that is older than e's, wherever it is.
func (r *Replica) dropSession(loser registered, e sessionEntry) {
	if loser.door == r.door.id {
		r.door.sessions.end(e.Device, e.Number, ErrSessionTaken)
		return
	}
	data, err := json.Marshal(sessionList{Sessions: []sessionEntry{e}})
	if err != nil {
		panic(err) // plain values
	}
	if err := r.o.Link.Send(loser.region, doorSubject(r.o.Info.ID, loser.door, "drop"), data); err != nil {
		r.o.Logger.Debug("session not dropped", "hub", r.o.Info.Name, "device", e.Device, "error", err)
	}
}

// questions are what a door asks the holder; each decodes its request and answers from the holder's view.
var questions = map[string]func(r *Replica, data []byte) (any, error){
	"connect": func(r *Replica, data []byte) (any, error) {
		var c connectRequest
		if err := json.Unmarshal(data, &c); err != nil {
			return nil, errBadFrame
		}
		device, err := r.view.Device(c.Device)
		if err != nil {
			return nil, err
		}
		if device.Status == Disabled {
			return nil, ErrDeviceDisabled
		}
		n, older, had := r.registry.connect(c)
		if had && (older.door != c.Door) {
			r.dropSession(older, sessionEntry{c.Device, n})
		}
		return connectAnswer{n}, nil
	},
	"device": func(r *Replica, data []byte) (any, error) {
		var id tandem.DeviceID
		if err := json.Unmarshal(data, &id); err != nil {
			return nil, errBadFrame
		}
		return r.view.Device(id)
	},
	"devices": func(r *Replica, data []byte) (any, error) {
		var page devicesRequest
		if err := json.Unmarshal(data, &page); err != nil {
			return nil, errBadFrame
		}
		return r.devicesPage(page)
	},
	"confirm":    (*Replica).confirm,
	"statistics": func(r *Replica, _ []byte) (any, error) { return r.view.Statistics(r.o.Clock.Now()), nil },
	"partitions": func(r *Replica, _ []byte) (any, error) { return r.view.Partitions(), nil },
}

type devicesRequest struct {
	After tandem.DeviceID `json:"after"`
	Top   int             `json:"top"`
}

type devicesAnswer struct {
	Devices []json.RawMessage `json:"devices"` // each a Device
	More    bool              `json:"more"`
}

// devicesBytes bounds the devices in one answer, which has to fit a message of the link (1 MiB).
const devicesBytes = 512 << 10

// devicesPage lists as many devices as fit an answer.
func (r *Replica) devicesPage(page devicesRequest) (devicesAnswer, error) {
	devices, err := r.view.Devices(page.After, page.Top)
	if err != nil {
		return devicesAnswer{}, err
	}
	var a devicesAnswer
	bytes := 0
	for i := range devices {
		one, err := json.Marshal(&devices[i])
		if err != nil {
			return a, err
		}
		if bytes += len(one) + 1; bytes > devicesBytes && i > 0 {
			a.More = true
			break
		}
		a.Devices = append(a.Devices, one)
	}
	return a, nil
}

// answer answers a question if this region may: it has the pen and its lease.
func (r *Replica) answer(verb string, data []byte) ([]byte, error) {
	if !r.mayAnswer() {
		return nil, ErrMoving
	}
	v, err := questions[verb](r, data)
	if err != nil {
		return nil, err
	}
	if !r.mayAnswer() { // what was read may be of a lost epoch
		return nil, ErrMoving
	}
	return json.Marshal(v)
}

// mayAnswer reports whether this region answers for the hub now.
func (r *Replica) mayAnswer() bool {
	r.mu.Lock()
	w := r.writer
	r.mu.Unlock()
	return w != nil && w.log.Valid()
}

// ask puts a question to the holder, here or there, and tries again while the hub moves, until ctx ends or patience does.
func (d *Door) ask(ctx context.Context, verb string, request, answer any) error {
	data, err := json.Marshal(request)
	if err != nil {
		panic(err) // plain values
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		reply, err := d.askOnce(ctx, verb, data)
		switch {
		case err == nil:
			return json.Unmarshal(reply, answer)
		case !tandem.KindOf(err).Retriable(), tandem.KindOf(err) == tandem.Throttled:
			return sameCondition(err)
		}
		select {
		case <-ctx.Done():
			return &tandem.Error{Op: "ask the holder", Kind: tandem.Unavailable, On: string(d.Info().Name), Err: err, Hint: ErrMoving.Hint}
		case <-d.replica.closing:
			return ErrMoving
		case <-time.After(pause):
		}
	}
}

func (d *Door) askOnce(ctx context.Context, verb string, data []byte) ([]byte, error) {
	d.mu.Lock()
	to := d.to
	d.mu.Unlock()
	switch {
	case to.local != nil:
		return d.replica.answer(verb, data)
	case to.region == "":
		return nil, ErrMoving
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return d.link.Request(ctx, to.region, hubSubject(d.Info().ID, verb), data)
}

// sameCondition gives an error that came over the link its identity back.
func sameCondition(err error) error {
	var e *tandem.Error
	if errors.As(err, &e) {
		for _, condition := range namedConditions {
			if e.Op == condition.Op && e.Kind == condition.Kind {
				return condition
			}
		}
	}
	return err
}

// Identity implements Handle.
func (d *Door) Identity(ctx context.Context, id tandem.DeviceID) (Device, error) {
	if device, err := d.replica.view.Device(id); err == nil {
		return device, nil
	}
	return d.Device(ctx, id)
}

// Device implements Handle.
func (d *Door) Device(ctx context.Context, id tandem.DeviceID) (Device, error) {
	var device Device
	err := d.ask(ctx, "device", id, &device)
	return device, err
}

// Devices implements Handle.
func (d *Door) Devices(ctx context.Context, after tandem.DeviceID, top int) ([]Device, error) {
	if top < 1 || top > 1000 {
		top = 1000
	}
	var page []Device
	for len(page) < top {
		if len(page) > 0 {
			after = tandem.DeviceID(page[len(page)-1].ID)
		}
		var part devicesAnswer
		if err := d.ask(ctx, "devices", devicesRequest{after, top - len(page)}, &part); err != nil {
			return nil, err
		}
		for _, one := range part.Devices {
			var device Device
			if err := json.Unmarshal(one, &device); err != nil {
				return nil, err
			}
			page = append(page, device)
		}
		if !part.More {
			break
		}
	}
	return page, nil
}

// Statistics implements Handle.
func (d *Door) Statistics(ctx context.Context) (Statistics, error) {
	var s Statistics
	err := d.ask(ctx, "statistics", nil, &s)
	return s, err
}

// Partitions implements Handle.
func (d *Door) Partitions(ctx context.Context) ([]PartitionState, error) {
	var states []PartitionState
	err := d.ask(ctx, "partitions", nil, &states)
	return states, err
}

// Events implements Handle.
func (d *Door) Events(ctx context.Context, from EventStart) (*EventReader, error) {
	r := d.replica
	if from.Partition >= r.o.Info.Partitions {
		return nil, &tandem.Error{Op: "read events", Kind: tandem.NotFound, On: string(r.o.Info.Name), Err: errors.New("there is no such partition")}
	}
	reader := &EventReader{log: r.log, readable: r.readable, partition: from.Partition, number: from.Number, time: from.Time}
	if err := r.readable(); err != nil {
		return nil, err
	}
	branches := r.log.Branches() // before the record is looked for: the log may be cut meanwhile
	var record uint64
	var err error
	switch {
	case !from.Time.IsZero():
		record, err = r.view.FindTime(from.Time)
	case from.Number < 0:
		reader.number, record = 0, r.log.Visible()+1
	case from.Partition >= 0:
		record, err = r.view.FindEvent(from.Partition, from.Number)
	}
	if err != nil {
		return nil, err
	}
	if record = max(record, r.log.Begins().Number+1); record > 1 { // older ones are gone
		reader.done = pairlog.Fork{Epoch: epochAt(branches, record-1), Number: record - 1}
		reader.shown = reader.done
	}
	return reader, nil
}

// readable tells whether this region may show events: not while it is fenced, since its log may end in a tail.
func (r *Replica) readable() error {
	switch r.Role() {
	case RoleHolder:
		if !r.mayAnswer() {
			return ErrMoving
		}
		return nil
	case RoleFollower, RoleClosed:
		return nil
	}
	return ErrMoving
}

// currentDevice is the device in this region's view; nil when it is not there.
func (r *Replica) currentDevice(id tandem.DeviceID) *Device {
	device, err := r.view.Device(id)
	if err != nil {
		return nil
	}
	return &device
}

// Facts are what a driver of a move, an operator and a metric want to know of a replica.
type Facts struct {
	Region      tandem.RegionName `json:"region"`
	Role        Role              `json:"role"`
	Epoch       tandem.Epoch      `json:"epoch"` // newest of which this region holds the first record
	End         pairlog.Fork      `json:"end"`   // of the copy, durable
	Applied     pairlog.Fork      `json:"applied"`
	Lag         pairlog.Lag       `json:"lag"`
	ViewLag     uint64            `json:"view_lag"` // records durable here and not folded yet
	PeerAcked   uint64            `json:"peer_acked"`
	PeerAckAge  time.Duration     `json:"peer_ack_age"`
	PeerKnown   bool              `json:"peer_known"`
	Sessions    int               `json:"sessions"`
	Damaged     string            `json:"damaged,omitempty"`
	NeedsReseed bool              `json:"needs_reseed,omitempty"`
	Full        bool              `json:"full,omitempty"`    // the holder refuses writes for want of room
	NoRoom      bool              `json:"no_room,omitempty"` // this region's disk has no room to begin an epoch
	Statistics  Statistics        `json:"statistics"`
	RootCheck   RootCheck         `json:"root_check"`
}

// Facts reads them; it is cheap.
func (r *Replica) Facts() Facts {
	r.mu.Lock()
	f := Facts{Region: r.o.Region, Role: r.role, Damaged: r.damage, NeedsReseed: r.reseed}
	w := r.writer
	r.mu.Unlock()
	f.Epoch, f.End, f.Applied, f.Lag = r.log.Epoch(), r.log.End(), r.view.Applied(), r.log.Lag()
	if f.End.Number > f.Applied.Number {
		f.ViewLag = f.End.Number - f.Applied.Number
	}
	if w != nil {
		f.PeerAcked, f.PeerAckAge, f.PeerKnown = w.log.PeerAcked()
	}
	f.Sessions, f.Full, f.Statistics = r.door.sessionCount(), r.door.full.Load(), r.view.Statistics(r.o.Clock.Now())
	f.RootCheck = r.view.LastRootCheck()
	space := r.o.Store.Space()
	f.NoRoom = space.Total > 0 && space.Free < leastRoom
	return f
}

// leastRoom is what must be free before a region begins an epoch: an engine without room does not answer.
const leastRoom = 16 << 20

// A TailItem is one entry that only this region has: what a loss receipt lists.
type TailItem struct {
	Position  pairlog.Position `json:"position"`
	Kind      string           `json:"kind"` // telemetry, device put, device delete
	Device    tandem.DeviceID  `json:"device,omitempty"`
	Partition int              `json:"partition"`
	Number    int64            `json:"number,omitempty"`
	MessageID string           `json:"message_id,omitempty"`
	Time      time.Time        `json:"time"`
	Bytes     int              `json:"bytes"`
}

// TailItems calls fn for each entry of this region's tail of an epoch that means something to users, oldest first. What
// its door has sent again since, and the log has, is left out: it is not missing.
func (r *Replica) TailItems(ctx context.Context, epoch tandem.Epoch, fn func(TailItem) error) error {
	tail := func(fn func(pairlog.Record) error) error { return r.log.Tail(ctx, epoch, fn) }
	sent, err := r.sentAgain(ctx, tail)
	if err != nil {
		return err
	}
	return tail(func(rec pairlog.Record) error {
		there, err := sent.of(&rec)
		if err != nil {
			return err
		}
		for index, entry := range rec.Entries() {
			if there(index) {
				continue
			}
			item := TailItem{
				Position: pairlog.Position{Epoch: rec.Header.Epoch, Number: rec.Header.Number, Index: index},
				Time:     rec.Header.Time, Bytes: len(entry.Data),
			}
			switch entry.Kind {
			case KindTelemetry:
				t, err := DecodeTelemetry(entry.Data)
				if err != nil {
					return err
				}
				item.Kind, item.Device, item.Partition, item.Number = "telemetry", tandem.DeviceID(t.Device), t.Partition, t.Number
				if m, err := DecodeMessage(t.Message); err == nil {
					item.MessageID = m.MessageID
				}
			case KindDevicePut, KindDeviceDelete:
				d, err := DecodeDeviceEntry(entry.Kind, entry.Data)
				if err != nil {
					return err
				}
				item.Kind, item.Device = "device put", d.Device
				if entry.Kind == KindDeviceDelete {
					item.Kind = "device delete"
				}
			default:
				continue
			}
			if err := fn(item); err != nil {
				return err
			}
		}
		return nil
	})
}

// PeerAcked is how far the other region's copy is known to be, while this one writes; false when it does not.
func (r *Replica) PeerAcked() (epoch tandem.Epoch, number uint64, age time.Duration, ok bool) {
	r.mu.Lock()
	w := r.writer
	r.mu.Unlock()
	if w == nil {
		return 0, 0, 0, false
	}
	number, age, known := w.log.PeerAcked()
	return w.pen.Epoch, number, age, known
}
