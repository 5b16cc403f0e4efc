package gateway

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// pipe is a TCP connection with the server's end wrapped.
func pipe(t *testing.T) (server, client net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = accepted.(*net.TCPConn).SetWriteBuffer(64 << 10)
	_ = client.(*net.TCPConn).SetReadBuffer(64 << 10)
	t.Cleanup(func() { accepted.Close(); client.Close() })
	return prompt(accepted), client
}

func TestWritesWaitForNobodyAndKeepTheirOrder(t *testing.T) {
	server, client := pipe(t)
	var want []byte
	for i := range 900 { // more than the sockets take: a write that waited would never return
		b := bytes.Repeat([]byte{byte(i)}, 1000)
		want = append(want, b...)
		if _, err := server.Write(b); err != nil {
			t.Fatalf("write %d: %v", i, err)
		}
	}
	_ = client.SetReadDeadline(time.Now().Add(10 * time.Second))
	got := make([]byte, len(want))
	if _, err := io.ReadFull(client, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("what arrived is not what was written (%v)", err)
	}
	if _, err := server.Write([]byte("more")); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(client, got[:4]); err != nil || string(got[:4]) != "more" {
		t.Errorf("after the backlog: %q %v", got[:4], err)
	}
}

func TestAPeerThatDoesNotReadIsCutOff(t *testing.T) {
	server, _ := pipe(t)
	b := make([]byte, 64<<10)
	for range 1000 {
		if _, err := server.Write(b); err != nil {
			if !errors.Is(err, ErrNotReading) {
				t.Fatalf("got %v", err)
			}
			return
		}
	}
	t.Error("64 MB were kept for a peer that does not read")
}
