package http2

import (
	"context"
	"net/http"

	"github.com/commucat/commucat/sdk/transport"
	"github.com/commucat/commucat/transports/internal/carrier"
)

// Call implements transport.Caller: single requests with the browser's hello that
// sessions have.
func (dialer) Call(ctx context.Context, to transport.Endpoint, with transport.Dial) (transport.RoundTripCloser, error) {
	c, err := carrier.Dial(ctx, to, with)
	if err != nil {
		return nil, err
	}
	return &caller{c, to, with}, nil
}

type caller struct {
	client *carrier.Client
	to     transport.Endpoint
	with   transport.Dial
}

// RoundTrip adds host, browser's headers and an entry token to r.
func (c *caller) RoundTrip(r *http.Request) (*http.Response, error) {
	out := r.Clone(r.Context())
	authority := carrier.Authority(c.to)
	out.URL.Scheme, out.URL.Host, out.Host = "https", authority, authority
	if out.Header.Get("User-Agent") == "" {
		out.Header.Set("User-Agent", carrier.Agent(c.with))
	}
	if c.with.Token != nil {
		out.Header.Set("Cookie", c.to.Params[transport.ParamCookie]+"="+c.with.Token(r.Method, r.URL.Path, ""))
	}
	return c.client.RoundTrip(out)
}

func (c *caller) Close() error {
	c.client.Close()
	return nil
}
