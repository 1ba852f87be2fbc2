//go:build !unix

package reality

import (
	"errors"
	"net"
)

func short(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}
