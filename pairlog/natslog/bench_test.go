package natslog_test

import (
	"context"
	"crypto/rand"
	"slices"
	"testing"
	"time"

	"tandem"
	"tandem/pairlog"
	"tandem/pairlog/logtest"
	"tandem/pairlog/natslog"
)

// randomBatch is n entries of 256 incompressible bytes.
func randomBatch(n int) *pairlog.Batch {
	var b pairlog.Batch
	data := make([]byte, 256)
	for range n {
		rand.Read(data)
		b.Add(pairlog.KindTelemetry, data)
	}
	return &b
}

func begin(b testing.TB, l *pairlog.Log, region tandem.RegionName, o pairlog.WriterOptions) *pairlog.Writer {
	o.RefuseAt = 0.99
	w, err := l.Begin(context.Background(), pairlog.Pen{Hub: logtest.Hub, Epoch: 1, Region: region}, o)
	if err != nil {
		b.Fatal(err)
	}
	return w
}

// BenchmarkAppend is one region alone: records of 1000 entries of 256 bytes, each on disk.
func BenchmarkAppend(b *testing.B) {
	r := &region{t: b, o: natslog.Options{Region: "west", StoreDir: b.TempDir()}}
	r.start()
	l, err := pairlog.Open(context.Background(), pairlog.Options{Hub: logtest.Hub, Region: "west", Peer: "east", Store: r.s.Store(), Link: r.s.Link()})
	if err != nil {
		b.Fatal(err)
	}
	w := begin(b, l, "west", pairlog.WriterOptions{})
	batch := randomBatch(1000)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		if _, err := w.Append(context.Background(), batch); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*1000/b.Elapsed().Seconds(), "entries/s")
}

// BenchmarkFollow appends flat out with the follower on, until the copy has everything.
func BenchmarkFollow(b *testing.B) { follow(b, 1000, 0, pairlog.WriterOptions{}) }

// BenchmarkLag appends 200 records of 100 entries each second (20,000 entries/s) with the follower on.
func BenchmarkLag(b *testing.B) { follow(b, 100, 5*time.Millisecond, pairlog.WriterOptions{}) }

// BenchmarkSync is BenchmarkFollow, each append waiting for the peer.
func BenchmarkSync(b *testing.B) {
	follow(b, 1000, 0, pairlog.WriterOptions{Mode: pairlog.SyncStrict, InSync: always{}})
}

type always struct{}

func (always) Contains(tandem.RegionName) bool                 { return true }
func (always) Remove(context.Context, tandem.RegionName) error { return nil }
func (always) Add(context.Context, tandem.RegionName) error    { return nil }

func follow(b *testing.B, entries int, every time.Duration, o pairlog.WriterOptions) {
	p, _, _ := newPair(b)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	open := func(s, peer logtest.Side) *pairlog.Log {
		l, err := pairlog.Open(ctx, pairlog.Options{Hub: logtest.Hub, Region: s.Region, Peer: peer.Region, Store: s.Store, Link: s.Link})
		if err != nil {
			b.Fatal(err)
		}
		go l.Run(ctx)
		return l
	}
	left, right := open(p.A, p.B), open(p.B, p.A)
	w := begin(b, left, p.A.Region, o)
	go right.Follow(ctx, 1, p.A.Region)
	batch := randomBatch(entries)
	asked := make([]time.Time, b.N+2)
	var lags []time.Duration
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		for n := uint64(1); n < uint64(b.N+1); {
			if right.Wait(ctx, n) != nil {
				return
			}
			at, end := time.Now(), right.Visible()
			for n++; n <= end; n++ {
				lags = append(lags, at.Sub(asked[n]))
			}
			n = end
		}
	}()
	b.ResetTimer()
	for i := range b.N {
		asked[i+2] = time.Now()
		if _, err := w.Append(ctx, batch); err != nil {
			b.Fatal(err)
		}
		if every > 0 {
			time.Sleep(time.Until(asked[i+2].Add(every)))
		}
	}
	appended := b.Elapsed()
	<-copied
	b.StopTimer()
	slices.Sort(lags)
	b.ReportMetric(float64(b.N*entries)/appended.Seconds(), "appended/s")
	b.ReportMetric(float64(b.N*entries)/b.Elapsed().Seconds(), "copied/s")
	b.ReportMetric(float64(lags[len(lags)/2].Microseconds())/1000, "lag-p50-ms")
	b.ReportMetric(float64(lags[len(lags)*99/100].Microseconds())/1000, "lag-p99-ms")
}
