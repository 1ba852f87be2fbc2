//go:build !unix

package reality

import "os"

// tryLock does nothing here: one process alone may use the folder.
func tryLock(*os.File) (bool, error) { return true, nil }

func unlock(*os.File) {}
