package sim

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// weather is how long things take at the moment and how much gets lost.
type weather struct {
	mu     sync.Mutex
	rng    *rand.Rand
	link   time.Duration // most that one way over the link takes
	lose   float64       // share of messages that get lost; requests never do
	flying sync.WaitGroup
}

const (
	fairLink = 2 * time.Millisecond
	diskMost = 2 * time.Millisecond
	dirMost  = 3 * time.Millisecond
)

func newWeather(seed uint64) *weather {
	return &weather{rng: rand.New(rand.NewPCG(seed, 1)), link: fairLink}
}

func (w *weather) set(link time.Duration, lose float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.link, w.lose = link, lose
}

func (w *weather) clear() { w.set(fairLink, 0) }

// takes is a random time up to most.
func (w *weather) takes(most time.Duration) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Duration(w.rng.Int64N(int64(most)))
}

func (w *weather) linkTakes() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Duration(w.rng.Int64N(int64(w.link)))
}

func (w *weather) chance(share float64) bool {
	if share == 0 {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rng.Float64() < share
}

func (w *weather) loses() bool {
	w.mu.Lock()
	share := w.lose
	w.mu.Unlock()
	return w.chance(share)
}

// sleep passes a time, or fails with ctx.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
