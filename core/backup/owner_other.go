//go:build !unix

package backup

import (
	"archive/tar"
	"io/fs"
	"math"
	"os"
)

func owner(fs.FileInfo) (uid, gid int) { return 0, 0 }

func give(*os.File, *tar.Header) error { return nil }

const noWait = 0

// Free is not known here: the writing itself will tell.
func Free(string) (uint64, error) { return math.MaxUint64, nil }
