//go:build unix

package gateway

import "syscall"

const canTryWrite = true

// tryWrite writes what the socket takes at once.
func tryWrite(raw syscall.RawConn, b []byte) (n int, err error) {
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		for n < len(b) {
			m, e := syscall.Write(int(fd), b[n:])
			switch e {
			case nil:
				n += m
			case syscall.EINTR:
			case syscall.EAGAIN:
				return true
			default:
				failed = e
				return true
			}
		}
		return true
	})
	if err == nil {
		err = failed
	}
	return n, err
}
