package transport

import (
	"context"
	"io"
	"net/http"
)

// Caller is implemented by dialers that can also make single HTTP requests to the
// relay's public port, over connections that look like their own: the relay's
// REST interface is reached this way.
type Caller interface {
	// Call connects to the relay. The result keeps its connection until it is
	// closed; requests name path and method, the host is the endpoint's.
	Call(ctx context.Context, to Endpoint, with Dial) (RoundTripCloser, error)
}

// RoundTripCloser is an http.RoundTripper with a connection to close.
type RoundTripCloser interface {
	http.RoundTripper
	io.Closer
}
