package agent

import (
	"os/exec"
	"runtime"
)

// Start starts a program that ends with this process, however that ends: the kernel
// sends it SIGKILL (on Linux; elsewhere the program has to notice by itself). That is
// bound to the thread which starts the program, so that one stays for its whole life:
// life runs on it, and returns when cmd.Wait has.
func Start(cmd *exec.Cmd, life func()) error {
	bequeath(cmd)
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			life()
		}
	}()
	return <-started
}
