package hub_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"tandem"
	"tandem/hub"
	"tandem/pairlog"
)

// importDevices creates n devices in bulks of 100, five to a record, and returns the records.
func importDevices(b testing.TB, v *hub.View, c *chain, from, n int) {
	var batch pairlog.Batch
	changes := make([]hub.DeviceChange, 0, hub.MaxBulk)
	key := make([]byte, 64)
	random := rand.NewChaCha8([32]byte{byte(from)})
	for at := from; at < from+n; {
		batch.Reset()
		var commands [5]hub.Command
		for i := range commands {
			changes = changes[:0]
			for range hub.MaxBulk {
				_, _ = random.Read(key)
				changes = append(changes, hub.DeviceChange{Op: hub.OpDeviceCreate, ID: fmt.Sprintf("device-%08d", (at*7919)%100_000_007),
					Auth: hub.Auth{PrimaryKey: key[:32], SecondaryKey: key[32:]}})
				at++
			}
			commands[i] = hub.Command{Op: hub.OpBulk, Body: hub.AppendBulk(nil, changes)}
		}
		for i := range commands {
			if err := v.Decide(&commands[i], c.next(), &batch); err != nil {
				b.Fatal(err)
			}
		}
		apply(b, v, c.record(entriesOf(&batch)...))
		for i := range commands {
			var o hub.Outcome
			v.Answer(&commands[i], &o)
			if len(o.Bulk) != hub.MaxBulk || o.Bulk[0] != nil {
				b.Fatal(o)
			}
		}
	}
}

// One operation is one identity: encoding, Decide, sealing, hashing and Apply. GOMAXPROCS=1 shows one core.
func BenchmarkImport(b *testing.B) {
	v, c := openView(b, b.TempDir()), newChain(b)
	b.ResetTimer()
	importDevices(b, v, c, 0, (b.N+499)/500*500)
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "identities/s")
}

func BenchmarkDecideTelemetry(b *testing.B) {
	v, c := openView(b, b.TempDir()), newChain(b)
	importDevices(b, v, c, 0, 5000)
	devices, err := v.Devices("", 1000)
	if err != nil {
		b.Fatal(err)
	}
	commands := make([]hub.Command, len(devices))
	for i, d := range devices {
		commands[i] = said(d.ID, "a hundred bytes, or so, of what a device has to say about the weather in its little corner of the world")
	}
	var batch pairlog.Batch
	at := c.next()
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if i%1000 == 0 {
			batch.Reset()
		}
		if err := v.Decide(&commands[i%len(commands)], at, &batch); err != nil {
			b.Fatal(err)
		}
	}
}

// One operation is a record of 1,000 telemetry entries.
func BenchmarkApplyTelemetry(b *testing.B) {
	v, c := openView(b, b.TempDir()), newChain(b)
	importDevices(b, v, c, 0, 5000)
	command := said(fmt.Sprintf("device-%08d", 0), "a hundred bytes, or so, of what a device has to say about the weather in its little corner of the world")
	records := make([]*pairlog.Record, 0, b.N)
	var batch pairlog.Batch
	for range b.N {
		batch.Reset()
		for range 999 {
			if err := v.Decide(&command, c.next(), &batch); err != nil {
				b.Fatal(err)
			}
		}
		batch.Add(hub.KindDoor, hub.AppendDoorEntry(nil, "door", c.at.Number, 999, c.at.Number, nil))
		records = append(records, c.record(entriesOf(&batch)...))
	}
	b.ReportAllocs()
	b.ResetTimer()
	for _, r := range records {
		if err := v.Apply(r); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkMillion imports a million identities once and measures what their number must not slow down.
func BenchmarkMillion(b *testing.B) {
	if testing.Short() {
		b.Skip("a million identities")
	}
	viewCache = hub.DefaultCacheBytes
	defer func() { viewCache = 8 << 20 }()
	dir := b.TempDir()
	v, c := openView(b, dir), newChain(b)
	start := time.Now()
	importDevices(b, v, c, 0, 1_000_000)
	b.Logf("import %v", time.Since(start))
	start = time.Now()
	root := v.Root()
	b.Logf("root %v", time.Since(start))
	start = time.Now()
	info, err := v.Snapshot(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	b.Logf("snapshot %v, %d MiB", time.Since(start), info.Bytes>>20)
	start = time.Now()
	if err := v.Check(context.Background()); err != nil {
		b.Fatal(err)
	}
	b.Logf("check %v", time.Since(start))
	start = time.Now()
	for i := range 10_000 {
		if _, err := v.Device(tandem.DeviceID(fmt.Sprintf("device-%08d", (i*97*7919)%100_000_007))); err != nil {
			b.Fatal(err)
		}
	}
	b.Logf("read a device %v", time.Since(start)/10_000)
	if err := v.Close(); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for range b.N {
		v, err := hub.OpenView(context.Background(), viewOptions(dir))
		if err != nil {
			b.Fatal(err)
		}
		if v.Root() != root {
			b.Fatal("another root")
		}
		b.StopTimer()
		if err := v.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
