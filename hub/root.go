package hub

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"slices"

	"tandem/pairlog"

	"github.com/cespare/xxhash/v2"
)

// The state root says whether two views hold the same. Each device adds a keyed SHA-256 of its id and value to one of
// 65,536 buckets, a sum modulo 2^256, so that a change costs two hashes and a bucket, whatever the number of devices; at
// a million, a bucket that differs names some fifteen of them. The root is a hash over the buckets, in groups whose
// hashes are kept, and over counts, event partitions and door marks. Not in the root: the position, the time of the last
// record and the event index, which say where in the log the state comes from.
const (
	rootBuckets = 1 << 16
	rootGroups  = 256
	groupSize   = rootBuckets / rootGroups
)

// A sum is a number modulo 2^256, least significant word first.
type sum [4]uint64

func (s *sum) add(t sum) {
	var carry uint64
	for i := range s {
		s[i], carry = bits.Add64(s[i], t[i], carry)
	}
}

func (s *sum) sub(t sum) {
	var borrow uint64
	for i := range s {
		s[i], borrow = bits.Sub64(s[i], t[i], borrow)
	}
}

func (s *sum) append(dst []byte) []byte {
	for _, word := range s {
		dst = binary.BigEndian.AppendUint64(dst, word)
	}
	return dst
}

func decodeSum(b []byte) (s sum) {
	for i := range s {
		s[i] = binary.BigEndian.Uint64(b[8*i:])
	}
	return s
}

// bucketOf is a device's bucket, and 16 other bits of the same hash that stand for the device within it.
func bucketOf(id []byte) (bucket, mark uint16) {
	hash := xxhash.Sum64(id)
	return uint16(hash >> 48), uint16(hash >> 32)
}

// hasher makes the keyed hashes of one view. It is used by one goroutine.
type hasher struct {
	key    [32]byte
	buffer []byte
}

func newHasher(key string) hasher {
	return hasher{key: sha256.Sum256([]byte("tandem state root 1\x00" + key))}
}

// device is what a device adds to its bucket.
func (h *hasher) device(id, value []byte) sum {
	b := append(h.buffer[:0], h.key[:]...)
	b = append(b, byte(len(id)))
	b = append(b, id...)
	b = append(b, value...)
	h.buffer = b
	hash := sha256.Sum256(b)
	return decodeSum(hash[:])
}

// buckets are the sums and the hashes of their groups, the latter made when they are asked for. Beside each sum are the
// marks of the bucket's devices, two bytes each: without a mark there is no such device, which spares nearly every
// look-up of an absent one. They are kept with the sum because the same devices change both. Groups that never had a
// device take no memory: a node has many hubs, and most are small.
type buckets struct {
	pages  [rootGroups]*page
	groups [rootGroups]pairlog.Hash
	fresh  [rootGroups]bool // groups[i] belongs to sums
}

// A page is one group's buckets.
type page struct {
	sums  [groupSize]sum
	marks [groupSize][]uint16 // in no order
}

// page returns the page of a bucket, which it makes.
func (b *buckets) page(n uint16) (*page, uint16) {
	p := &b.pages[n/groupSize]
	if *p == nil {
		*p = new(page)
	}
	return *p, n % groupSize
}

// bucket returns a bucket's sum and marks.
func (b *buckets) bucket(n uint16) (sum, []uint16) {
	if p := b.pages[n/groupSize]; p != nil {
		return p.sums[n%groupSize], p.marks[n%groupSize]
	}
	return sum{}, nil
}

// change takes old out of a bucket and puts value in; either may be the zero sum.
func (b *buckets) change(n uint16, old, value sum) {
	p, i := b.page(n)
	p.sums[i].sub(old)
	p.sums[i].add(value)
	b.fresh[n/groupSize] = false
}

// count adds or removes a device's mark.
func (b *buckets) count(n, mark uint16, was, is bool) {
	p, at := b.page(n)
	marks := p.marks[at]
	switch {
	case is && !was:
		p.marks[at] = append(marks, mark)
	case was && !is:
		if i := slices.Index(marks, mark); i >= 0 {
			marks[i] = marks[len(marks)-1]
			p.marks[at] = marks[:len(marks)-1]
		}
	}
}

// mayHave is false when there is no device with that id.
func (b *buckets) mayHave(id []byte) bool {
	n, mark := bucketOf(id)
	_, marks := b.bucket(n)
	return slices.Contains(marks, mark)
}

// append appends a bucket as it is kept: its sum and its marks.
func (b *buckets) append(dst []byte, n uint16) []byte {
	total, marks := b.bucket(n)
	dst = total.append(dst)
	for _, mark := range marks {
		dst = binary.BigEndian.AppendUint16(dst, mark)
	}
	return dst
}

// decode reads what append wrote.
func (b *buckets) decode(n uint16, value []byte) bool {
	if len(value) < 32 || len(value)%2 != 0 {
		return false
	}
	p, at := b.page(n)
	p.sums[at] = decodeSum(value)
	marks := make([]uint16, (len(value)-32)/2)
	for i := range marks {
		marks[i] = binary.BigEndian.Uint16(value[32+2*i:])
	}
	p.marks[at] = marks
	return true
}

// emptyGroup is the hash of a group without devices.
var emptyGroup = pairlog.Hash(sha256.Sum256(make([]byte, groupSize*32)))

// root is the state root of s, whose buckets' group hashes it refreshes.
func (s *state) root() pairlog.Hash {
	b := s.buckets
	scratch := make([]byte, 0, groupSize*32)
	for g := range b.groups {
		if b.fresh[g] {
			continue
		}
		b.groups[g], b.fresh[g] = emptyGroup, true
		if p := b.pages[g]; p != nil {
			scratch = scratch[:0]
			for n := range p.sums {
				scratch = p.sums[n].append(scratch)
			}
			b.groups[g] = sha256.Sum256(scratch)
		}
	}
	key := newHasher(s.rootKey).key
	all := append(scratch[:0], key[:]...)
	for g := range b.groups {
		all = append(all, b.groups[g][:]...)
	}
	all = s.meta.appendCommon(all)
	ids := make([]DoorID, 0, len(s.doors))
	for id := range s.doors {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		all = appendText(all, string(id))
		all = s.doors[id].append(all)
	}
	return sha256.Sum256(all)
}

// A RootCheck is the last comparison of a logged state root with the view's own.
type RootCheck struct {
	Number    uint64 // of the record that carried the root; 0: none was compared since the view was opened
	Want, Got pairlog.Hash
}

// Equal reports whether the roots were equal; true when none was compared.
func (c RootCheck) Equal() bool { return c.Want == c.Got }

// Root is the state root at Applied. Two views of one hub at one position have the same root. It costs some 20 µs, and up to
// 3 ms after an import touched every bucket.
func (v *View) Root() pairlog.Hash {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.s.root()
}

// LastRootCheck tells the last comparison with a root from the log (KindRoot, or a CLOSE): the view's root just before
// that record against the logged one. A difference is logged as an error and folding goes on: who acts on it is failover.
func (v *View) LastRootCheck() RootCheck {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.check
}
