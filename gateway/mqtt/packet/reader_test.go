package packet_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"
	"testing/iotest"

	"tandem/gateway/mqtt/packet"
)

func TestReaderCutsAStreamWhateverTheChunks(t *testing.T) {
	var wire []byte
	sizes := []int{0, 1, 100, 400, 511, 512, 3000, 5000, 70_000, 262_144, 10}
	for _, n := range sizes {
		wire = append(wire, telemetry(n)...)
	}
	for name, src := range map[string]io.Reader{
		"all":        bytes.NewReader(wire),
		"one byte":   iotest.OneByteReader(bytes.NewReader(wire)),
		"half":       iotest.HalfReader(bytes.NewReader(wire)),
		"with error": iotest.DataErrReader(bytes.NewReader(wire)),
	} {
		t.Run(name, func(t *testing.T) {
			r := packet.NewReader(src, 300<<10)
			for _, n := range sizes {
				p, err := r.Next()
				if err != nil {
					t.Fatal(err)
				}
				m, err := packet.ParsePublish(p.Flags, p.Body)
				if err != nil || len(m.Payload) != n {
					t.Fatalf("got %d bytes and %v, want %d", len(m.Payload), err, n)
				}
			}
			if _, err := r.Next(); err != io.EOF {
				t.Errorf("at the end: %v, want io.EOF", err)
			}
		})
	}
}

func TestReaderRefusesBeforeAllocating(t *testing.T) {
	announce := []byte{0x30, 0xff, 0xff, 0xff, 0x7f} // 268,435,455 bytes
	r := packet.NewReader(bytes.NewReader(announce), 260<<10)
	var err error
	allocs := testing.AllocsPerRun(1, func() { _, err = r.Next() })
	var size *packet.SizeError
	if !errors.As(err, &size) || size.Size != packet.MaxLength || size.Limit != 260<<10 {
		t.Fatalf("got %v", err)
	}
	if allocs > 2 {
		t.Errorf("%v allocations", allocs)
	}
	if _, again := r.Next(); again != err {
		t.Errorf("the next call said %v", again)
	}
}

func TestReaderTellsAnEndInsideAPacket(t *testing.T) {
	wire := telemetry(50)
	for cut := 1; cut < len(wire); cut++ {
		if _, err := packet.NewReader(bytes.NewReader(wire[:cut]), 1<<20).Next(); err != io.ErrUnexpectedEOF {
			t.Fatalf("cut at %d: %v", cut, err)
		}
	}
}

func TestReaderGoesOnAfterADeadline(t *testing.T) {
	wire := telemetry(2000)
	src := io.MultiReader(bytes.NewReader(wire[:700]), &once{err: os.ErrDeadlineExceeded}, bytes.NewReader(wire[700:]))
	r := packet.NewReader(src, 1<<20)
	if _, err := r.Next(); err != os.ErrDeadlineExceeded {
		t.Fatalf("got %v, want the deadline", err)
	}
	if p, err := r.Next(); err != nil || len(p.Body) == 0 {
		t.Fatalf("after it: %v", err)
	}
}

// once fails once and is then at its end.
type once struct{ err error }

func (o *once) Read([]byte) (int, error) {
	err := o.err
	o.err = io.EOF
	return 0, err
}

func TestReadyMeansThatNextDoesNotRead(t *testing.T) {
	src := &counting{src: bytes.NewReader(append(telemetry(10), telemetry(20)...))}
	r := packet.NewReader(src, 1<<20)
	if r.Ready() {
		t.Fatal("ready before anything was read")
	}
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	if !r.Ready() {
		t.Fatal("the second packet is buffered, yet not ready")
	}
	reads := src.reads
	if _, err := r.Next(); err != nil || src.reads != reads {
		t.Fatalf("read %d times more, %v", src.reads-reads, err)
	}
	if r.Ready() {
		t.Error("ready with nothing buffered")
	}
}

// A server with many idle connections lives on this: what a large packet borrowed is gone when the next read waits.
func TestReaderGivesBackWhatALargePacketTook(t *testing.T) {
	src := &counting{src: io.MultiReader(bytes.NewReader(telemetry(100_000)), bytes.NewReader(telemetry(10)))}
	r := packet.NewReader(src, 1<<20)
	for range 2 {
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
	}
	if src.largest <= 512 {
		t.Errorf("never read into more than %d bytes", src.largest)
	}
	if _, err := r.Next(); err != io.EOF || src.last != 512 {
		t.Errorf("waits with a buffer of %d bytes (%v)", src.last, err)
	}
}

func TestSteadyReadingDoesNotAllocate(t *testing.T) {
	r := packet.NewReader(&endless{data: telemetry(256)}, 1<<20)
	allocs := testing.AllocsPerRun(2000, func() {
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > 0.1 {
		t.Errorf("%v allocations a packet", allocs)
	}
}

// counting notes how its reads were made.
type counting struct {
	src                  io.Reader
	reads, largest, last int
}

func (c *counting) Read(b []byte) (int, error) {
	c.reads++
	c.last = len(b)
	c.largest = max(c.largest, len(b))
	return c.src.Read(b)
}
