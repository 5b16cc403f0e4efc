package hub

// A ring holds a door's numbered commands, oldest first, from base to next-1. Those below sent were handed over.
type ring struct {
	slots            []slot // length is a power of two
	base, sent, next uint64
	bytes            int
}

// A slot is one command and whom to tell.
type slot struct {
	command  Command
	waiter   Waiter // nil once told
	tag      uint64
	answered bool
	record   uint64 // the log record that decided it; 0 when it need not be kept
}

func newRing() ring { return ring{slots: make([]slot, 64), base: 1, sent: 1, next: 1} }

// room reports whether a command with n bytes may come in.
func (r *ring) room(n int) bool {
	waiting := r.next - r.base
	return waiting == 0 || waiting < windowCommands && r.bytes+n <= windowBytes
}

func (r *ring) at(number uint64) *slot { return &r.slots[number&uint64(len(r.slots)-1)] }

// find returns the slot of a number that was handed over and is still kept, else nil.
func (r *ring) find(number uint64) *slot {
	if number < r.base || number >= r.next {
		return nil
	}
	return r.at(number)
}

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

// rewind hands everything that is still kept over again, to another holder: what the last one answered counts as
// undecided until this one has it too. Nobody is told twice, since told slots have no waiter.
func (r *ring) rewind() {
	r.sent = r.base
	for n := r.base; n < r.next; n++ {
		r.at(n).answered = false
	}
}

// restart hands numbers from n on over again.
func (r *ring) restart(n uint64) { r.sent = min(max(n, r.base), r.next) }

// undecided is the first number without an outcome.
func (r *ring) undecided() uint64 {
	n := r.base
	for n < r.next && r.at(n).answered {
		n++
	}
	return n
}

// release drops answered slots from the front whose record is at most acked, and reports whether any went.
func (r *ring) release(acked uint64) bool {
	before := r.base
	for r.base < r.next {
		s := r.at(r.base)
		if !s.answered || s.record > acked {
			break
		}
		r.bytes -= len(s.command.Body)
		*s = slot{}
		r.base++
	}
	r.sent = max(r.sent, r.base)
	return r.base > before
}
