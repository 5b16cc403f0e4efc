package hub

import (
	"sync"
)

// broadcast wakes everybody who waits.
type broadcast struct{ state *broadcastState }

type broadcastState struct {
	mu sync.Mutex
	ch chan struct{}
}

func newBroadcast() broadcast { return broadcast{&broadcastState{ch: make(chan struct{})}} }

// wait returns a channel that the next notify closes.
func (b broadcast) wait() <-chan struct{} {
	b.state.mu.Lock()
	defer b.state.mu.Unlock()
	return b.state.ch
}

func (b broadcast) notify() {
	b.state.mu.Lock()
	defer b.state.mu.Unlock()
	close(b.state.ch)
	b.state.ch = make(chan struct{})
}
