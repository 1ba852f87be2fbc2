//go:build !unix

package backup

import (
	"archive/tar"
	"os"
)

func owner(*os.File, *tar.Header) {}

func give(*os.File, *tar.Header) error { return nil }
