package pairlog

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"time"

	"tandem"
)

// KindTelemetry is package hub's kind for device messages. It is declared here because record headers count the
// entries that are something else (Header.StateCount), so that replay can skip records of nothing but telemetry.
const KindTelemetry Kind = 17

// A record as bytes, version 1, integers big-endian:
//
//	  0  "TPR", version
//	  4  length of the header, with hash and hub (uint16)
//	  6  shard (uint16)
//	  8  epoch, 16 number, 24 first entry, 32 first byte (uint64 each)
//	 40  time in µs since 1970 (int64)
//	 48  count, 52 state count, 56 length of the entries (uint32 each)
//	 60  length of the hub id (uint8), three zeros
//	 64  previous record's hash
//	 96  hash: SHA-256 over everything but these 32 bytes
//	128  hub id, then the entries: kind (uint8), length (uint24), data
const (
	recordVersion = 1
	hashAt        = 96
	hubAt         = 128
	maxHubBytes   = 32
	maxHeader     = hubAt + maxHubBytes
	entryHeader   = 4
)

// A Header says what a record is and where in the chain it belongs.
type Header struct {
	Hub        tandem.HubID
	Shard      uint16
	Epoch      tandem.Epoch
	Number     uint64    // of the record, from 1, running on along the chain
	FirstEntry uint64    // entries in the chain before this record
	FirstByte  uint64    // bytes of the records in the chain before this one, so that lag is exact in bytes too
	Count      uint32    // entries
	StateCount uint32    // entries whose kind is not KindTelemetry
	Time       time.Time // UTC, microseconds; never before the previous record's
	Prev, Hash Hash
}

// An Entry is one change. Data aliases the record's bytes.
type Entry struct {
	Kind Kind
	Data []byte
}

// A Record is one batch of entries as it is stored. Bytes is the whole encoding; nobody may change it.
type Record struct {
	Header Header
	Bytes  []byte
}

// DecodeRecord reads a record and verifies its structure, its limits and its hash; ErrDamaged (with the reason as text)
// otherwise. The record keeps b.
func DecodeRecord(b []byte) (Record, error) {
	r := Record{Bytes: b}
	if err := r.decode(); err != nil {
		return Record{}, damaged("", err)
	}
	return r, nil
}

func (r *Record) decode() error {
	b := r.Bytes
	switch {
	case len(b) < hubAt:
		return errors.New("record is too short")
	case len(b) > MaxRecordBytes:
		return errors.New("record is too long")
	case b[0] != 'T' || b[1] != 'P' || b[2] != 'R':
		return errors.New("not a record")
	case b[3] != recordVersion:
		return fmt.Errorf("record version %d is not known", b[3])
	}
	be := binary.BigEndian
	header, hub, body := int(be.Uint16(b[4:])), int(b[60]), be.Uint32(b[56:])
	if hub > maxHubBytes || header != hubAt+hub || uint64(len(b)) != uint64(header)+uint64(body) || b[61]|b[62]|b[63] != 0 {
		return errors.New("record's lengths do not add up")
	}
	r.Header = Header{
		Hub: tandem.HubID(b[hubAt:header]), Shard: be.Uint16(b[6:]), Epoch: tandem.Epoch(be.Uint64(b[8:])),
		Number: be.Uint64(b[16:]), FirstEntry: be.Uint64(b[24:]), FirstByte: be.Uint64(b[32:]),
		Count: be.Uint32(b[48:]), StateCount: be.Uint32(b[52:]), Time: time.UnixMicro(int64(be.Uint64(b[40:]))).UTC(),
		Prev: Hash(b[64:96]), Hash: Hash(b[96:128]),
	}
	if hashOf(b) != r.Header.Hash {
		return fmt.Errorf("hash of record %d is wrong", r.Header.Number)
	}
	var count, state uint32
	for rest := b[header:]; len(rest) > 0; count++ {
		if len(rest) < entryHeader {
			return errors.New("entry is cut")
		}
		n := int(rest[1])<<16 | int(rest[2])<<8 | int(rest[3])
		if rest[0] == 0 || n > MaxEntryBytes || n > len(rest)-entryHeader {
			return errors.New("entry's kind or length is wrong")
		}
		if Kind(rest[0]) != KindTelemetry {
			state++
		}
		rest = rest[entryHeader+n:]
	}
	if count != r.Header.Count || state != r.Header.StateCount || count == 0 || count > MaxRecordEntries || r.Header.Number == 0 {
		return errors.New("record's counts are wrong")
	}
	return nil
}

// hashOf is the hash that belongs into the encoding b.
func hashOf(b []byte) (h Hash) {
	d := sha256.New()
	d.Write(b[:hashAt])
	d.Write(b[hubAt:])
	d.Sum(h[:0])
	return h
}

// Entries gives each entry with its index. It allocates nothing.
func (r *Record) Entries() iter.Seq2[uint32, Entry] {
	return func(yield func(uint32, Entry) bool) {
		if len(r.Bytes) < hubAt {
			return
		}
		rest := r.Bytes[binary.BigEndian.Uint16(r.Bytes[4:]):]
		for i := uint32(0); len(rest) >= entryHeader; i++ {
			n := entryHeader + (int(rest[1])<<16 | int(rest[2])<<8 | int(rest[3]))
			if !yield(i, Entry{Kind: Kind(rest[0]), Data: rest[entryHeader:n:n]}) {
				return
			}
			rest = rest[n:]
		}
	}
}

// first is the record's first entry.
func (r *Record) first() (e Entry) {
	for _, e = range r.Entries() {
		break
	}
	return e
}

// last is the record's last entry.
func (r *Record) last() (e Entry) {
	for _, e = range r.Entries() {
	}
	return e
}

// A Batch is the entries of a record that is being built. It is reused: Reset empties it and keeps its memory.
// The zero Batch is ready.
type Batch struct {
	// Urgent lets the record into the last room of a nearly full disk: revocations, deletes, TRIM.
	Urgent bool

	data  []byte
	count uint32
	state uint32
	hub   bool // holds an entry of package hub
}

// Add appends an entry whose data are the parts joined, and returns its index. It does not check limits: ask Fits.
func (b *Batch) Add(kind Kind, parts ...[]byte) uint32 {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	b.data = append(b.data, byte(kind), byte(n>>16), byte(n>>8), byte(n))
	for _, p := range parts {
		b.data = append(b.data, p...)
	}
	if kind != KindTelemetry {
		b.state++
	}
	b.hub = b.hub || kind >= KindFirstOfHub
	b.count++
	return b.count - 1
}

// Reset empties the batch, Urgent included.
func (b *Batch) Reset() { *b = Batch{data: b.data[:0]} }

// Len is the number of entries.
func (b *Batch) Len() int { return int(b.count) }

// Bytes is the encoded size of the entries.
func (b *Batch) Bytes() int { return len(b.data) }

// Fits reports whether one more entry of n bytes stays within MaxRecordEntries, MaxRecordBytes and MaxEntryBytes.
// An empty batch fits any entry of up to MaxEntryBytes.
func (b *Batch) Fits(n int) bool {
	return n <= MaxEntryBytes && b.count < MaxRecordEntries && len(b.data)+entryHeader+n <= MaxRecordBytes-maxHeader
}

// Entries gives each entry with its index. They are good until the batch changes.
func (b *Batch) Entries() iter.Seq2[uint32, Entry] {
	return func(yield func(uint32, Entry) bool) {
		rest := b.data
		for i := range b.count {
			n := entryHeader + (int(rest[1])<<16 | int(rest[2])<<8 | int(rest[3]))
			if !yield(i, Entry{Kind: Kind(rest[0]), Data: rest[entryHeader:n:n]}) {
				return
			}
			rest = rest[n:]
		}
	}
}

// seal encodes the batch as the record that h describes; counts and hash are filled in. The bytes are new.
func (b *Batch) seal(h Header) (Record, error) {
	header := hubAt + len(h.Hub)
	switch {
	case len(h.Hub) == 0 || len(h.Hub) > maxHubBytes:
		return Record{}, &tandem.Error{Op: "append", Kind: tandem.Invalid, On: string(h.Hub), Err: errors.New("no usable hub id")}
	case b.count == 0:
		return Record{}, &tandem.Error{Op: "append", Kind: tandem.Invalid, Err: errors.New("an empty record")}
	case b.count > MaxRecordEntries || header+len(b.data) > MaxRecordBytes:
		return Record{}, &tandem.Error{Op: "append", Kind: tandem.TooLarge, Err: errors.New("the batch does not fit a record")}
	}
	h.Count, h.StateCount, h.Time = b.count, b.state, h.Time.Truncate(time.Microsecond).UTC()
	p := make([]byte, header+len(b.data))
	be := binary.BigEndian
	copy(p, "TPR")
	p[3] = recordVersion
	be.PutUint16(p[4:], uint16(header))
	be.PutUint16(p[6:], h.Shard)
	be.PutUint64(p[8:], uint64(h.Epoch))
	be.PutUint64(p[16:], h.Number)
	be.PutUint64(p[24:], h.FirstEntry)
	be.PutUint64(p[32:], h.FirstByte)
	be.PutUint64(p[40:], uint64(h.Time.UnixMicro()))
	be.PutUint32(p[48:], h.Count)
	be.PutUint32(p[52:], h.StateCount)
	be.PutUint32(p[56:], uint32(len(b.data)))
	p[60] = byte(len(h.Hub))
	copy(p[64:], h.Prev[:])
	copy(p[hubAt:], h.Hub)
	copy(p[header:], b.data)
	h.Hash = hashOf(p)
	copy(p[hashAt:], h.Hash[:])
	return Record{Header: h, Bytes: p}, nil
}

// damaged is ErrDamaged with a reason.
func damaged(on string, cause error) error {
	return &tandem.Error{Op: ErrDamaged.Op, Kind: tandem.Damaged, On: on, Err: errors.Join(ErrDamaged, cause)}
}
