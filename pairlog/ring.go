package pairlog

// A ring keeps the newest records in memory, without holes, up to max bytes.
type ring struct {
	records []Record
	bytes   int
	max     int
}

func (r *ring) reset() { r.records, r.bytes = nil, 0 }

func (r *ring) push(rec Record) {
	if n := len(r.records); n > 0 && r.records[n-1].Header.Number+1 != rec.Header.Number {
		r.reset()
	}
	r.records = append(r.records, rec)
	r.bytes += len(rec.Bytes)
	drop := 0
	for r.bytes > r.max && drop < len(r.records)-1 {
		r.bytes -= len(r.records[drop].Bytes)
		r.records[drop] = Record{}
		drop++
	}
	r.records = r.records[drop:]
}

// after returns the records above a number up to limit, at most maxBytes but at least one; none when the first of them
// is not here. The slice is the caller's.
func (r *ring) after(number, limit uint64, maxBytes int) []Record {
	if len(r.records) == 0 || number >= limit || number+1 < r.records[0].Header.Number {
		return nil
	}
	i := number + 1 - r.records[0].Header.Number
	n, bytes := i, 0
	for n < uint64(len(r.records)) && r.records[n].Header.Number <= limit {
		bytes += len(r.records[n].Bytes)
		if n > i && bytes > maxBytes {
			break
		}
		n++
	}
	if n <= i {
		return nil
	}
	return append([]Record(nil), r.records[i:n]...)
}

// hash is the hash of a record that is here.
func (r *ring) hash(number uint64) (Hash, bool) {
	if len(r.records) == 0 || number < r.records[0].Header.Number {
		return Hash{}, false
	}
	if i := number - r.records[0].Header.Number; i < uint64(len(r.records)) {
		return r.records[i].Header.Hash, true
	}
	return Hash{}, false
}

// A given is what the peer was sent last: the hashes by which it will ask next, also when the ring is past them.
type given struct {
	ends [8]Fork
	next int
}

func (g *given) push(f Fork) {
	g.ends[g.next%len(g.ends)] = f
	g.next++
}

func (g *given) hash(number uint64) (Hash, bool) {
	for _, f := range g.ends {
		if f.Number == number && number > 0 {
			return f.Hash, true
		}
	}
	return Hash{}, false
}
