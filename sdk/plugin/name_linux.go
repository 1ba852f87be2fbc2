package plugin

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// showName gives the process a name in lists of processes: executed through a
// descriptor it has the number of that one.
func showName(name string) {
	// The first thread's name is the process's.
	if unix.Gettid() != os.Getpid() {
		_ = os.WriteFile("/proc/self/comm", []byte(name), 0) // where the sandbox allows it
		return
	}
	b := append([]byte(name), 0) // the kernel takes the first 15 bytes
	_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&b[0])), 0, 0, 0)
}
