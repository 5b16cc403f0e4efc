package main

import (
	"slices"
	"sync"
	"time"
)

// meter counts what a simulation does. A pause is the time between two acknowledgements, of any device, while at least
// one message waited for its answer or a device was without its connection.
type meter struct {
	mu      sync.Mutex
	began   time.Time
	n       numbers
	nSent   int64
	waiting time.Time // since when something waits without any acknowledgement; zero: nothing waits
	stalled time.Time // since when a device is without connection and no acknowledgement has come; zero: none is
	mark    int64     // acknowledged at the last call of second
	markAt  time.Time
	delays  []time.Duration // a sample of at most maxDelays
}

const maxDelays = 1 << 20

type numbers struct {
	connected, reconnects int
	acknowledged          int64
	perSecond             int64
	longest               time.Duration
}

// summary is the outcome of a simulation.
type summary struct {
	Sent                     int64   `json:"sent"`
	Acknowledged             int64   `json:"acknowledged"`
	Seconds                  float64 `json:"seconds"`
	PerSecond                float64 `json:"acknowledgedPerSecond"`
	P50Milliseconds          float64 `json:"p50Milliseconds"`
	P99Milliseconds          float64 `json:"p99Milliseconds"`
	LongestPauseMilliseconds float64 `json:"longestPauseMilliseconds"`
	Reconnects               int     `json:"reconnects"`
}

func (m *meter) connected(change int) {
	m.mu.Lock()
	m.n.connected += change
	m.mu.Unlock()
}

// lost notes that a connection broke: from then on that device waits, whether or not it had sent something.
func (m *meter) lost() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stalled.IsZero() {
		m.stalled = time.Now()
	}
}

func (m *meter) reconnected() {
	m.mu.Lock()
	m.n.reconnects++
	m.mu.Unlock()
}

func (m *meter) sent() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.nSent == m.n.acknowledged {
		m.waiting = time.Now()
	}
	m.nSent++
}

func (m *meter) acknowledged(at time.Time, delay time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.n.acknowledged++
	m.n.longest = max(m.n.longest, at.Sub(m.waiting), m.stall(at))
	m.waiting, m.stalled = at, time.Time{}
	if len(m.delays) < maxDelays {
		m.delays = append(m.delays, delay)
	} else {
		m.delays[m.n.acknowledged%maxDelays] = delay
	}
}

func (m *meter) stall(now time.Time) time.Duration {
	if m.stalled.IsZero() {
		return 0
	}
	return now.Sub(m.stalled)
}

// second is the present state, with the rate since the last call.
func (m *meter) second() numbers {
	m.mu.Lock()
	defer m.mu.Unlock()
	now, from := time.Now(), m.markAt
	if from.IsZero() {
		from = m.began
	}
	m.n.perSecond = int64(float64(m.n.acknowledged-m.mark) / max(now.Sub(from).Seconds(), 0.001))
	m.mark, m.markAt = m.n.acknowledged, now
	m.n.longest = max(m.n.longest, m.stall(now)) // the one that lasts
	if m.nSent > m.n.acknowledged {
		m.n.longest = max(m.n.longest, now.Sub(m.waiting))
	}
	return m.n
}

func (m *meter) summary() summary {
	m.mu.Lock()
	defer m.mu.Unlock()
	seconds := time.Since(m.began).Seconds()
	slices.Sort(m.delays)
	at := func(part float64) float64 {
		if len(m.delays) == 0 {
			return 0
		}
		return float64(m.delays[min(int(part*float64(len(m.delays))), len(m.delays)-1)].Microseconds()) / 1000
	}
	return summary{Sent: m.nSent, Acknowledged: m.n.acknowledged, Seconds: seconds, PerSecond: float64(m.n.acknowledged) / max(seconds, 0.001),
		P50Milliseconds: at(0.5), P99Milliseconds: at(0.99), LongestPauseMilliseconds: float64(m.n.longest.Microseconds()) / 1000,
		Reconnects: m.n.reconnects}
}
