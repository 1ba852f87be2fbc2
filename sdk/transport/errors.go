package transport

import "errors"

// ErrRefused is a dial that the relay answered as it answers strangers: the
// token was not good, the path is wrong, or there is no relay.
var ErrRefused = errors.New("transport: answered as a stranger")
