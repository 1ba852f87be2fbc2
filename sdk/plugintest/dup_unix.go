//go:build unix

package plugintest

import (
	"os"

	"golang.org/x/sys/unix"
)

func dup(fd uintptr) (*os.File, error) {
	n, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(n), "lent"), nil
}
