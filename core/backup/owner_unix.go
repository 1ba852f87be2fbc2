//go:build unix

package backup

import (
	"archive/tar"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// owner is whose a file is.
func owner(info fs.FileInfo) (uid, gid int) {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(s.Uid), int(s.Gid)
	}
	return 0, 0
}

// give gives a file to its owner, where that is allowed: plugins of a relay that root
// runs have users of their own.
func give(f *os.File, h *tar.Header) error {
	if os.Geteuid() != 0 {
		return nil
	}
	return f.Chown(h.Uid, h.Gid)
}

// noWait opens no pipe that somebody has put in a file's place, and follows no link.
const noWait = unix.O_NONBLOCK | unix.O_NOFOLLOW

// Free is how many bytes may still be written beside a file.
func Free(dir string) (uint64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return s.Bavail * uint64(s.Bsize), nil
}
