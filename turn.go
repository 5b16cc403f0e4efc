package tandem

import "sync"

// A Turn is a lock for what takes long: a disk, the directory or the other region is waited for while it is held. It
// differs from sync.Mutex in how others wait for it, on a channel: time that is simulated (testing/synctest) passes
// meanwhile, and so whatever the one who has it waits for can come about. The zero Turn is free; it must not be copied.
type Turn struct {
	mu    sync.Mutex
	taken bool
	freed chan struct{} // closed at the next Unlock; nil when nobody waits
}

// Lock returns when the turn is the caller's.
func (t *Turn) Lock() {
	t.mu.Lock()
	for t.taken {
		if t.freed == nil {
			t.freed = make(chan struct{})
		}
		freed := t.freed
		t.mu.Unlock()
		<-freed
		t.mu.Lock()
	}
	t.taken = true
	t.mu.Unlock()
}

// Unlock gives the turn back. It panics when nobody has it.
func (t *Turn) Unlock() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.taken {
		panic("tandem: Unlock of a free Turn")
	}
	t.taken = false
	if t.freed != nil {
		close(t.freed)
		t.freed = nil
	}
}
