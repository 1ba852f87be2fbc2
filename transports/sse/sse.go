package sse

import (
	"context"
	"net"
	"net/http"

	"github.com/commucat/commucat/sdk/entry"
	"github.com/commucat/commucat/sdk/transport"
	"github.com/commucat/commucat/transports/internal/gate"
	"github.com/commucat/commucat/transports/internal/split"
)

// Name is the transport's name in links, lists and metrics.
const Name = "sse"

// Options configure the server half.
type Options struct {
	// Path is the connect path, compared exactly; a query is never ours.
	Path string
	// Cookie is the name of the cookie with the entry token.
	Cookie string
	// Verify checks a token, see [entry.Verifier.Verify]. nil refuses all.
	Verify func(method, path, cookie string) (entry.Stream, bool, error)
	// Cover answers every request that is not ours; nil is a plain 404.
	Cover http.Handler
}

// New returns the server half. A session runs on a goroutine of its own,
// because it outlives the requests that carry it. At most 65,536 streams are
// open at once; the opening of another one gets the cover's answer.
func New(o Options) transport.Web {
	return split.NewServer(Name, true, gate.Options(o), split.DefaultTimes())
}

type dialer struct{}

// NewDialer returns the client half. It needs a token for each request
// ([transport.Dial.Token]).
func NewDialer() transport.Dialer { return dialer{} }

// Name returns "sse".
func (dialer) Name() string { return Name }

// Dial opens a stream. The error is [transport.ErrRefused] if a stranger's
// answer came back.
func (dialer) Dial(ctx context.Context, to transport.Endpoint, with transport.Dial) (net.Conn, error) {
	return split.Dial(ctx, Name, true, to, with)
}
