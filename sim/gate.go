package sim

import (
	"context"
	"errors"
	"sync"

	"tandem"
)

// A gate stands between one process and everything outside of it. While it is shut (the process is stopped) whatever
// passes waits; once it is dead nothing passes any more.
type gate struct {
	mu     sync.Mutex
	shut   chan struct{} // closed by wake; nil while open
	dead   chan struct{}
	killed bool
}

func newGate() *gate { return &gate{dead: make(chan struct{})} }

var errDead = &tandem.Error{Op: "act", Kind: tandem.Unavailable, Err: errors.New("this process is dead")}

// pass waits until the process goes on. It fails when the process is dead, or with ctx.
func (g *gate) pass(ctx context.Context) error {
	for {
		g.mu.Lock()
		shut, killed := g.shut, g.killed
		g.mu.Unlock()
		if killed {
			return errDead
		}
		if shut == nil {
			return nil
		}
		select {
		case <-shut:
		case <-g.dead:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (g *gate) pause() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut == nil {
		g.shut = make(chan struct{})
	}
}

func (g *gate) wake() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut != nil {
		close(g.shut)
		g.shut = nil
	}
}

func (g *gate) kill() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.killed {
		g.killed = true
		close(g.dead)
	}
}

func (g *gate) isDead() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.killed
}
