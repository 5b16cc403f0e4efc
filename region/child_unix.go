//go:build unix && !linux

package region

import (
	"os/exec"
	"syscall"
)

func setChild(cmd *exec.Cmd, own bool) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: own}
}
