//go:build !unix

package plugintest

import (
	"errors"
	"os"
)

func dup(uintptr) (*os.File, error) { return nil, errors.ErrUnsupported }
