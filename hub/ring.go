package hub

// A ring holds a door's numbered commands, oldest first, from base to next-1. Those below sent were handed over, those
// below decided have their outcome: base ≤ decided ≤ sent ≤ next.
type ring struct {
	slots                     []slot // length is a power of two
	base, decided, sent, next uint64
	bytes                     int
}

// A slot is one command and whom to tell.
type slot struct {
	command Command
	waiter  Waiter // nil once told
	tag     uint64
	refused bool   // what was told is that nothing came of it
	record  uint64 // the log record that decided it; 0 when it need not be kept
}

func newRing() ring { return ring{slots: make([]slot, 64), base: 1, decided: 1, sent: 1, next: 1} }

// room reports whether a command with n bytes may come in.
func (r *ring) room(n int) bool {
	waiting := r.next - r.base
	return waiting == 0 || waiting < windowCommands && r.bytes+n <= windowBytes
}

// makeRoom drops decided slots that are only kept in case of a forced move, the oldest first, when n bytes need the
// room, and reports whether they may come in.
func (r *ring) makeRoom(n int) bool {
	for !r.room(n) && r.base < r.decided {
		r.drop()
	}
	return r.room(n)
}

func (r *ring) at(number uint64) *slot { return &r.slots[number&uint64(len(r.slots)-1)] }

func (r *ring) push(s slot) {
	if r.next-r.base == uint64(len(r.slots)) {
		r.grow()
	}
	*r.at(r.next) = s
	r.next++
	r.bytes += len(s.command.Body)
}

func (r *ring) grow() {
	bigger := ring{slots: make([]slot, 2*len(r.slots))}
	for n := r.base; n < r.next; n++ {
		*bigger.at(n) = *r.at(n)
	}
	r.slots = bigger.slots
}

// rewind hands everything that is still kept over again, to another holder: what the last one decided counts as
// undecided until this one has it too. Nobody is told twice, since told slots have no waiter. What was told stays true
// as far as it can: what was refused becomes a command of which nothing comes, and what was applied was sent by a session
// that was the newest then. Changes of devices that were told are sent again only to a holder here, which decides them
// before anything newer; in another region they could undo what was changed since.
func (r *ring) rewind(here bool) {
	for n := r.base; n < r.next; n++ {
		s := r.at(n)
		if s.waiter != nil {
			continue
		}
		if s.refused || !here && s.command.changesDevices() {
			r.bytes -= len(s.command.Body)
			s.command = Command{}
		}
		s.command.Session = SessionNumber{}
	}
	r.decided, r.sent = r.base, r.base
}

// changesDevices reports whether a command changes identities.
func (c *Command) changesDevices() bool { return c.Op >= OpDeviceCreate && c.Op <= OpBulk }

// restart hands numbers from n on over again, but none that is decided.
func (r *ring) restart(n uint64) { r.sent = min(max(n, r.decided), r.next) }

// decide notes that the first undecided number was decided in a record, and returns its slot.
func (r *ring) decide(record uint64) *slot {
	s := r.at(r.decided)
	s.record = record
	r.decided++
	r.sent = max(r.sent, r.decided)
	return s
}

// release drops decided slots from the front whose record is at most acked.
func (r *ring) release(acked uint64) {
	for r.base < r.decided && r.at(r.base).record <= acked {
		r.drop()
	}
}

// drop forgets the oldest slot.
func (r *ring) drop() {
	s := r.at(r.base)
	r.bytes -= len(s.command.Body)
	*s = slot{}
	r.base++
}
