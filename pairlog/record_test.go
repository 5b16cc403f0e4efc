package pairlog

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"testing"
	"time"

	"tandem"
)

// golden is the record that testdata/record-v1.hex holds.
func golden(t testing.TB) Record {
	var b Batch
	b.Add(KindTelemetry, []byte("21.5"), []byte(" °C"))
	b.Add(KindFirstOfHub, []byte{0, 1, 2})
	b.Add(KindHeartbeat)
	r, err := b.seal(Header{
		Hub: "9f2c0123456789ab", Shard: 7, Epoch: 3, Number: 1042, FirstEntry: 99000, FirstByte: 1 << 33,
		Time: time.UnixMicro(1_795_000_000_123_456), Prev: Hash{1, 2, 3},
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRecordGolden(t *testing.T) {
	const file = "testdata/record-v1.hex"
	r := golden(t)
	if os.Getenv("TANDEM_GOLDEN") != "" {
		if err := os.WriteFile(file, []byte(hex.EncodeToString(r.Bytes)+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want, err := hex.DecodeString(string(bytes.TrimSpace(text)))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(r.Bytes, want) {
		t.Errorf("version 1 is encoded otherwise:\n%x", r.Bytes)
	}
	back, err := DecodeRecord(want)
	if err != nil {
		t.Fatal(err)
	}
	if back.Header != r.Header || back.Header.Count != 3 || back.Header.StateCount != 2 {
		t.Errorf("decoded %+v", back.Header)
	}
	var kinds []Kind
	for i, e := range back.Entries() {
		if int(i) != len(kinds) {
			t.Errorf("index %d", i)
		}
		kinds = append(kinds, e.Kind)
	}
	if len(kinds) != 3 || kinds[0] != KindTelemetry || kinds[2] != KindHeartbeat || back.last().Kind != KindHeartbeat {
		t.Errorf("kinds %v", kinds)
	}
	if n := testing.AllocsPerRun(100, func() {
		for range back.Entries() {
		}
	}); n != 0 {
		t.Errorf("iterating allocates %v times", n)
	}
}

func TestRecordEveryBitIsCovered(t *testing.T) {
	r := golden(t)
	for bit := range len(r.Bytes) * 8 {
		b := bytes.Clone(r.Bytes)
		b[bit/8] ^= 1 << (bit % 8)
		if _, err := DecodeRecord(b); !errors.Is(err, ErrDamaged) {
			t.Fatalf("bit %d flipped: %v", bit, err)
		}
	}
	for n := range r.Bytes {
		if _, err := DecodeRecord(r.Bytes[:n]); !errors.Is(err, ErrDamaged) {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
}

func TestBatchLimits(t *testing.T) {
	var b Batch
	if !b.Fits(MaxEntryBytes) || b.Fits(MaxEntryBytes+1) {
		t.Error("an empty batch fits exactly the largest entry")
	}
	for b.Fits(0) {
		b.Add(KindTelemetry)
	}
	if b.Len() != MaxRecordEntries {
		t.Errorf("%d entries", b.Len())
	}
	b.Reset()
	data := make([]byte, 1000)
	for b.Fits(len(data)) {
		b.Add(KindTelemetry, data[:400], data[400:])
	}
	r, err := b.seal(Header{Hub: tandem.HubID(bytes.Repeat([]byte("a"), maxHubBytes)), Number: 1})
	if err != nil || len(r.Bytes) > MaxRecordBytes {
		t.Fatalf("%d bytes, %v", len(r.Bytes), err)
	}
	if _, err := DecodeRecord(r.Bytes); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		b.Add(KindTelemetry, data)
	}
	if _, err := b.seal(Header{Hub: "a", Number: 1}); tandem.KindOf(err) != tandem.TooLarge {
		t.Errorf("too much: %v", err)
	}
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add(golden(f).Bytes)
	f.Add([]byte("TPR\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= hubAt { // let the fuzzer past the hash
			h := hashOf(b)
			copy(b[hashAt:], h[:])
		}
		r, err := DecodeRecord(b)
		if err != nil {
			return
		}
		var again Batch
		for _, e := range r.Entries() {
			again.Add(e.Kind, e.Data)
		}
		back, err := again.seal(r.Header)
		if err != nil || !bytes.Equal(back.Bytes, b) {
			t.Fatalf("not the same after decoding: %v", err)
		}
	})
}

func FuzzDecodePulled(f *testing.F) {
	f.Add((&pulled{chain: []byte("[]"), records: []Record{golden(f)}}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		a, _, err := decodePulled(b)
		if err == nil && len(a.records) > 0 && a.records[0].Header.Number == 0 {
			t.Fatal("a record without number")
		}
	})
}

func TestSpans(t *testing.T) {
	p := func(epoch tandem.Epoch, holder tandem.RegionName, number uint16, first, last uint64) *part {
		return &part{id: SegmentID{Epoch: epoch, Holder: holder, Part: number}, first: first, last: last}
	}
	chain := []Branch{{Epoch: 1, Holder: "a"}, {Epoch: 3, Holder: "b", Fork: Fork{Epoch: 1, Number: 10}}}
	for name, c := range map[string]struct {
		parts    []*part
		from, to uint64
		n        int
	}{
		"clipped at the fork":        {[]*part{p(1, "a", 0, 1, 14), p(3, "b", 1, 11, 12)}, 1, 12, 2},
		"tail only":                  {[]*part{p(1, "a", 0, 1, 14)}, 1, 10, 1},
		"another holder":             {[]*part{p(1, "b", 0, 1, 14), p(3, "b", 1, 11, 12)}, 11, 12, 1},
		"an epoch that was skipped":  {[]*part{p(1, "a", 0, 1, 10), p(2, "a", 0, 9, 20)}, 1, 10, 1},
		"parts that overlap":         {[]*part{p(1, "a", 1, 4, 8), p(1, "a", 0, 1, 6), p(1, "a", 2, 9, 9)}, 1, 9, 3},
		"newest run after a hole":    {[]*part{p(1, "a", 1, 1, 3), p(1, "a", 2, 5, 10), p(3, "b", 1, 11, 11)}, 5, 11, 2},
		"an older part inside newer": {[]*part{p(1, "a", 1, 1, 8), p(1, "a", 2, 3, 5)}, 1, 8, 1},
	} {
		run := spansOf(chain, c.parts)
		if len(run) != c.n || run[0].from != c.from || run[len(run)-1].to != c.to {
			t.Errorf("%s: %d spans, %+v", name, len(run), run)
		}
	}
}
