package agent

import (
	"os/exec"
	"syscall"
)

// bequeath lets the program die with this process.
func bequeath(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
}
