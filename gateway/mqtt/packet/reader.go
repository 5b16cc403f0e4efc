package packet

import (
	"io"
	"sync"
)

// smallBuffer is what an idle connection keeps: a PUBLISH of a usual size fits.
const smallBuffer = 512

// bufferClasses are the sizes that connections borrow while a packet or a burst does not fit the small buffer. A
// packet climbs them as its bytes arrive, so that announcing a size costs the server nothing.
var bufferClasses = [...]int{4 << 10, 16 << 10, 64 << 10, 272 << 10}

// burstClass is what a connection borrows when more came at once than the small buffer holds.
const burstClass = 1

var bufferPools [len(bufferClasses)]sync.Pool

// A Reader cuts a stream into packets. It keeps 512 bytes while the stream is idle and borrows more from a shared pool
// for a packet that does not fit, or when more than 512 bytes came at once; it gives that back before it next waits
// with nothing buffered.
//
// One goroutine uses a Reader. After an error of the source that passes (a deadline), Next may be called again and
// goes on where it stopped; after an *Error or *SizeError it returns the same error again.
type Reader struct {
	src   io.Reader
	limit int
	small []byte
	buf   []byte  // small or *lent
	lent  *[]byte // borrowed from bufferPools[class], or nil
	class int     //
	r, w  int     // buf[r:w] is not yet returned
	need  int     // bytes of the packet at r including its header; 0 while unknown
	burst bool    // the last read filled the small buffer
	err   error   // a malformed or oversized packet
}

// NewReader returns a Reader that refuses packets with a remaining length over limit (at most MaxLength).
func NewReader(src io.Reader, limit int) *Reader {
	small := make([]byte, smallBuffer)
	return &Reader{src: src, limit: min(limit, MaxLength), small: small, buf: small, class: -1}
}

// SetLimit changes the limit for packets whose header was not yet looked at.
func (r *Reader) SetLimit(limit int) { r.limit = min(limit, MaxLength) }

// Next returns the next packet; its Body is valid until the next call. Errors are *Error, *SizeError or the source's
// own; the end of the stream is io.EOF between packets and io.ErrUnexpectedEOF inside one.
func (r *Reader) Next() (Packet, error) {
	for {
		if p, ok, err := r.take(); ok || err != nil {
			return p, err
		}
		if err := r.fill(); err != nil {
			return Packet{}, err
		}
	}
}

// Ready reports whether Next returns without reading from the source. A session writes what it has to say before it
// calls a Next that is not ready.
func (r *Reader) Ready() bool {
	h, n, err := ParseHeader(r.buf[r.r:r.w])
	return err != nil || r.err != nil || n > 0 && (h.Length > r.limit || r.w-r.r >= n+h.Length)
}

// Close gives back what was borrowed. The Reader and the last packet must not be used afterwards.
func (r *Reader) Close() {
	r.giveBack()
	r.r, r.w, r.buf = 0, 0, nil
}

// take returns the packet at the front of the buffer if all of it is there.
func (r *Reader) take() (Packet, bool, error) {
	if r.err != nil {
		return Packet{}, false, r.err
	}
	h, n, err := ParseHeader(r.buf[r.r:r.w])
	if err != nil {
		r.err = err
		return Packet{}, false, err
	}
	if n == 0 {
		r.need = 0
		return Packet{}, false, nil
	}
	if h.Length > r.limit {
		r.err = &SizeError{h.Type, h.Length, r.limit}
		return Packet{}, false, r.err
	}
	r.need = n + h.Length
	if r.w-r.r < r.need {
		return Packet{}, false, nil
	}
	end := r.r + r.need
	p := Packet{h.Type, h.Flags, r.buf[r.r+n : end : end]}
	r.r, r.need = end, 0
	return p, true, nil
}

// fill reads once, after making room.
func (r *Reader) fill() error {
	switch {
	case r.r == r.w && (r.lent != nil || !r.burst):
		r.giveBack()
		r.r, r.w, r.burst = 0, 0, false
	case r.burst && r.lent == nil:
		r.borrow(burstClass)
	case r.r > 0 && (r.w == len(r.buf) || r.need > len(r.buf)-r.r):
		r.w = copy(r.buf, r.buf[r.r:r.w])
		r.r = 0
	}
	if r.w == len(r.buf) {
		r.borrow(r.class + 1)
	}
	n, err := r.src.Read(r.buf[r.w:])
	r.w += n
	r.burst = r.lent == nil && r.w == len(r.buf)
	if n > 0 {
		return nil // an error comes again with the next read
	}
	if err == io.EOF && r.w > r.r {
		return io.ErrUnexpectedEOF
	}
	return err
}

// borrow moves what is buffered into a buffer of the class, or of exactly what is needed beyond the last class.
func (r *Reader) borrow(class int) {
	var next *[]byte
	if class < len(bufferClasses) {
		next, _ = bufferPools[class].Get().(*[]byte)
		if next == nil {
			b := make([]byte, bufferClasses[class])
			next = &b
		}
	} else {
		b := make([]byte, min(2*len(r.buf), max(r.need, len(r.buf)+1)))
		next = &b
	}
	n := copy(*next, r.buf[r.r:r.w])
	r.giveBack()
	r.buf, r.lent, r.class, r.r, r.w = *next, next, class, 0, n
}

// giveBack returns to the small buffer; what is buffered is lost unless the caller moved it.
func (r *Reader) giveBack() {
	if r.lent != nil && r.class < len(bufferClasses) {
		bufferPools[r.class].Put(r.lent)
	}
	r.buf, r.lent, r.class = r.small, nil, -1
}
