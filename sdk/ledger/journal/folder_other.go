//go:build !unix

package journal

import (
	"os"

	"github.com/commucat/commucat/sdk"
)

// lockFolder opens the lock file; this system offers no lock that a crash gives free.
func lockFolder(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fail(sdk.Unavailable, err)
	}
	return f, nil
}

// syncFolder does nothing: folders cannot be synced here.
func syncFolder(string) error { return nil }
