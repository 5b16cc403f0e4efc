package sim

import (
	"sync/atomic"
	"time"
)

// A clock is one region's: its wall clock can be stepped, its machine suspended.
type clock struct {
	began   time.Time
	stepped atomic.Int64 // nanoseconds that Now is off
	slept   atomic.Int64 // nanoseconds of suspension, seen by Boot
}

func (c *clock) Now() time.Time { return time.Now().Add(time.Duration(c.stepped.Load())) }

func (c *clock) Boot() time.Duration { return time.Since(c.began) + time.Duration(c.slept.Load()) }

func (c *clock) After(d time.Duration) <-chan time.Time { return time.After(d) }
