package hub

import "testing"

// A door may see the pen before its new holder has opened: what it announces then must be known afterwards.
func TestAnnouncedBeforeOpening(t *testing.T) {
	var r registry
	old, newer := SessionNumber{1, 4}, SessionNumber{1, 9}
	r.announce(sessionEntry{"d", newer}, "door-b", "b")
	r.begin(2)
	if loser, newest, conflict := r.announce(sessionEntry{"d", old}, "door-a", "a"); !conflict || loser.number != old || newest != newer {
		t.Errorf("the older session stays: loser %v, newest %v, conflict %v", loser.number, newest, conflict)
	}
	if r.allows("d", old) || !r.allows("d", newer) {
		t.Error("the older session may write, or the newer may not")
	}
}
