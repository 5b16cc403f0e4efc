package hub

import (
	"bytes"
	"context"
	"encoding/json"
	"sync"

	"tandem"
)

// A device has one session in both regions together: the newest. The holder's registry gives out session numbers and
// refuses the commands of older sessions; each door keeps the sessions of its own connections and drops them when told.
// Neither is logged: after a move doors announce their sessions to the new holder.

// sessions are those of one door.
type sessions struct {
	mu     sync.Mutex
	open   map[tandem.DeviceID]*session
	closed bool
}

type session struct {
	number SessionNumber
	drop   func(error)
	auth   Auth // at connect
}

// connectRequest asks the holder for a session number.
type connectRequest struct {
	Device tandem.DeviceID   `json:"device"`
	Door   DoorID            `json:"door"`
	Region tandem.RegionName `json:"region"`
}

type connectAnswer struct {
	Number SessionNumber `json:"number"`
}

// Connect implements Handle.
func (d *Door) Connect(ctx context.Context, id tandem.DeviceID, drop func(error)) (SessionNumber, error) {
	device, err := d.Identity(ctx, id)
	if err != nil {
		return SessionNumber{}, err
	}
	if device.Status == Disabled {
		return SessionNumber{}, ErrDeviceDisabled
	}
	var answer connectAnswer
	request := connectRequest{Device: id, Door: d.id, Region: d.replica.o.Region}
	if err := d.ask(ctx, "connect", request, &answer); err != nil {
		return SessionNumber{}, err
	}
	d.sessions.mu.Lock()
	if d.sessions.open == nil {
		d.sessions.open = make(map[tandem.DeviceID]*session)
	}
	if d.sessions.closed {
		d.sessions.mu.Unlock()
		return SessionNumber{}, ErrMoving
	}
	older := d.sessions.open[id]
	if older != nil && answer.Number.Before(older.number) {
		d.sessions.mu.Unlock()
		return SessionNumber{}, ErrSessionTaken
	}
	d.sessions.open[id] = &session{number: answer.Number, drop: drop, auth: device.Auth}
	d.sessions.mu.Unlock()
	if older != nil {
		older.drop(ErrSessionTaken)
	}
	d.mu.Lock()
	moved := d.to.epoch != answer.Number.Epoch
	d.mu.Unlock()
	if moved { // the new holder did not hear of it when the others were announced
		d.tellHolder("announce", sessionList{Door: d.id, Region: request.Region, Sessions: []sessionEntry{{id, answer.Number}}})
	}
	if now := d.replica.currentDevice(id); now != nil { // it may have changed between the two steps
		d.deviceChanged(id, now)
	}
	return answer.Number, nil
}

// Disconnect implements Handle.
func (d *Door) Disconnect(id tandem.DeviceID, n SessionNumber) {
	d.sessions.mu.Lock()
	s := d.sessions.open[id]
	mine := s != nil && s.number == n
	if mine {
		delete(d.sessions.open, id)
	}
	d.sessions.mu.Unlock()
	if mine {
		d.tellHolder("disconnect", sessionList{Door: d.id, Sessions: []sessionEntry{{id, n}}})
	}
}

// sessionCount is the number of devices connected to this node.
func (d *Door) sessionCount() int {
	d.sessions.mu.Lock()
	defer d.sessions.mu.Unlock()
	return len(d.sessions.open)
}

// end drops this node's session of a device if it is older than before, or any when before is zero.
func (s *sessions) end(id tandem.DeviceID, before SessionNumber, reason error) {
	s.mu.Lock()
	found := s.open[id]
	if found == nil || before != (SessionNumber{}) && !found.number.Before(before) {
		s.mu.Unlock()
		return
	}
	delete(s.open, id)
	s.mu.Unlock()
	found.drop(reason)
}

// endAll drops all sessions, and lets none come.
func (s *sessions) endAll(reason error) {
	s.mu.Lock()
	open := s.open
	s.open, s.closed = nil, true
	s.mu.Unlock()
	for _, one := range open {
		one.drop(reason)
	}
}

// deviceChanged drops a session whose device may no longer use it.
func (d *Door) deviceChanged(id tandem.DeviceID, device *Device) {
	switch {
	case device == nil:
		d.sessions.end(id, SessionNumber{}, ErrDeviceNotFound)
	case device.Status == Disabled:
		d.sessions.end(id, SessionNumber{}, ErrDeviceDisabled)
	default:
		d.sessions.mu.Lock()
		s := d.sessions.open[id]
		changed := s != nil && !s.auth.accepts(device.Auth)
		d.sessions.mu.Unlock()
		if changed {
			d.sessions.end(id, SessionNumber{}, ErrKeysChanged)
		}
	}
}

// accepts reports whether a session that began under a may live on under now: every credential it may have used still
// stands.
func (a Auth) accepts(now Auth) bool {
	return a.Type == now.Type && bytes.Equal(a.PrimaryKey, now.PrimaryKey) && bytes.Equal(a.SecondaryKey, now.SecondaryKey) &&
		a.PrimaryThumbprint == now.PrimaryThumbprint && a.SecondaryThumbprint == now.SecondaryThumbprint
}

// sessionList travels in announce, disconnect and drop.
type sessionList struct {
	Door     DoorID            `json:"door"`
	Region   tandem.RegionName `json:"region"`
	Sessions []sessionEntry    `json:"sessions"`
}

type sessionEntry struct {
	Device tandem.DeviceID `json:"device"`
	Number SessionNumber   `json:"number"`
}

// announceSessions tells the present holder which sessions live here.
func (d *Door) announceSessions() {
	const most = 1000
	d.sessions.mu.Lock()
	list := sessionList{Door: d.id, Region: d.replica.o.Region}
	var lists []sessionList
	for id, s := range d.sessions.open {
		if list.Sessions = append(list.Sessions, sessionEntry{id, s.number}); len(list.Sessions) == most {
			lists, list.Sessions = append(lists, list), nil
		}
	}
	d.sessions.mu.Unlock()
	if len(list.Sessions) > 0 {
		lists = append(lists, list)
	}
	for _, l := range lists {
		d.tellHolder("announce", l)
	}
}

// tellHolder sends a list to the holder, at most once.
func (d *Door) tellHolder(verb string, list sessionList) {
	d.mu.Lock()
	to := d.to
	d.mu.Unlock()
	if to.local != nil {
		d.replica.sessionMessage(verb, list)
		return
	}
	if to.region == "" {
		return
	}
	data, err := json.Marshal(list)
	if err != nil {
		panic(err) // plain values
	}
	if err := d.link.Send(to.region, hubSubject(d.Info().ID, verb), data); err != nil {
		d.logger.Debug("sessions not told", "hub", d.Info().Name, "verb", verb, "error", err)
	}
}

// dropped takes the holder's word that sessions here are older than others.
func (d *Door) dropped(_ tandem.RegionName, data []byte) {
	var list sessionList
	if json.Unmarshal(data, &list) != nil {
		return
	}
	for _, e := range list.Sessions {
		d.sessions.end(e.Device, e.Number, ErrSessionTaken)
	}
}

// registry is the holder's knowledge of who is connected where.
type registry struct {
	mu      sync.Mutex
	epoch   tandem.Epoch
	counter uint64
	newest  map[tandem.DeviceID]registered
}

type registered struct {
	number SessionNumber
	door   DoorID
	region tandem.RegionName
}

// begin starts a tenure. What is known stays: doors may announce their sessions a moment before the new holder has
// opened, and what is left of an older tenure is older than any session that lives.
func (r *registry) begin(epoch tandem.Epoch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.epoch, r.counter = epoch, 0
}

// set notes a device's newest session. Called with mu held.
func (r *registry) set(id tandem.DeviceID, s registered) {
	if r.newest == nil {
		r.newest = make(map[tandem.DeviceID]registered)
	}
	r.newest[id] = s
}

// connect gives out the next session number and returns the session it ends, if there was one.
func (r *registry) connect(c connectRequest) (SessionNumber, registered, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counter++
	n := SessionNumber{r.epoch, r.counter}
	older, had := r.newest[c.Device]
	r.set(c.Device, registered{n, c.Door, c.Region})
	return n, older, had
}

// announce takes a session of before the move. It returns the one that must end, if two claim the device.
func (r *registry) announce(e sessionEntry, door DoorID, region tandem.RegionName) (loser registered, newest SessionNumber, conflict bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	mine := registered{e.Number, door, region}
	have, ok := r.newest[e.Device]
	switch {
	case !ok || have.number == e.Number:
		r.set(e.Device, mine)
		return registered{}, e.Number, false
	case have.number.Before(e.Number):
		r.set(e.Device, mine)
		return have, e.Number, true
	default:
		return mine, have.number, true
	}
}

func (r *registry) disconnect(e sessionEntry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if have, ok := r.newest[e.Device]; ok && have.number == e.Number {
		delete(r.newest, e.Device)
	}
}

// allows reports whether a command of session n of a device may be applied: no newer session is known.
func (r *registry) allows(id tandem.DeviceID, n SessionNumber) bool {
	if n == (SessionNumber{}) {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	have, ok := r.newest[id]
	return !ok || !n.Before(have.number)
}
