//go:build unix

package keyring

import (
	"io/fs"
	"os"
	"syscall"
)

// foreign says whether a file belongs to neither this user nor root.
func foreign(info fs.FileInfo) bool {
	s, ok := info.Sys().(*syscall.Stat_t)
	return ok && s.Uid != 0 && int(s.Uid) != os.Geteuid()
}
