//go:build unix

package plugin

import (
	"syscall"

	"github.com/commucat/commucat/sdk/internal/wire"
)

// dropBinary closes the descriptor that this program was executed through, so that
// programs started from here do not get it.
func dropBinary() {
	var self, other syscall.Stat_t
	if syscall.Stat("/proc/self/exe", &self) == nil && syscall.Fstat(wire.Binary, &other) == nil && self.Dev == other.Dev && self.Ino == other.Ino {
		_ = syscall.Close(wire.Binary)
	}
}

// fileLimit is how many descriptors this process may have.
func fileLimit() int {
	var r syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r) != nil {
		return 0
	}
	return int(min(r.Cur, 1<<30))
}
