package tandem

import (
	"syscall"
	"time"
	"unsafe"
)

const clockBoottime = 7

// Boot reads CLOCK_BOOTTIME, which goes on while the machine is suspended; Go's own monotonic clock stands still then.
func (SystemClock) Boot() time.Duration {
	var ts syscall.Timespec
	if _, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clockBoottime, uintptr(unsafe.Pointer(&ts)), 0); errno != 0 {
		return time.Since(processStart)
	}
	return time.Duration(ts.Nano())
}

var processStart = time.Now()
