//go:build !linux

package reality

import (
	"errors"
	"net"
)

func socketPair() (a, b *net.UnixConn, err error) {
	return nil, nil, errors.New("cover = \"self\" needs Linux: name a site as host:port")
}
