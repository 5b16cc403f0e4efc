//go:build !linux

package tandem

import "time"

var processStart = time.Now()

// Boot counts from the process's start; on this system it may stand still while the machine is suspended.
func (SystemClock) Boot() time.Duration { return time.Since(processStart) }
