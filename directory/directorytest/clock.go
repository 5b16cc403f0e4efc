package directorytest

import (
	"sync"
	"time"

	"tandem"
)

// Clock is a clock that stands still until it is turned.
type Clock struct {
	mu     sync.Mutex // guards what follows
	boot   time.Duration
	alarms []alarm
}

type alarm struct {
	at time.Duration
	c  chan time.Time
}

var _ tandem.Clock = (*Clock)(nil)

// NewClock returns a clock at one hour of Boot.
func NewClock() *Clock { return &Clock{boot: time.Hour} }

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Now is a fixed date plus Boot.
func (c *Clock) Now() time.Time { return epoch.Add(c.Boot()) }

// Boot is the time shown.
func (c *Clock) Boot() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.boot
}

// After delivers once Advance has passed d.
func (c *Clock) After(d time.Duration) <-chan time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := make(chan time.Time, 1)
	if d <= 0 {
		ch <- epoch.Add(c.boot)
		return ch
	}
	c.alarms = append(c.alarms, alarm{at: c.boot + d, c: ch})
	return ch
}

// Advance turns the clock and lets the alarms go off that it passes.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.boot += d
	waiting := c.alarms[:0]
	for _, a := range c.alarms {
		if a.at <= c.boot {
			a.c <- epoch.Add(c.boot)
		} else {
			waiting = append(waiting, a)
		}
	}
	c.alarms = waiting
}
