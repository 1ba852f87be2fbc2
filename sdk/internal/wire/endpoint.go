package wire

import (
	"math"

	"github.com/commucat/commucat/sdk/internal/wire/wirepb"
	"github.com/commucat/commucat/sdk/transport"
)

// Limits of an endpoint.
const (
	maxParams = 64
	maxParam  = 16 << 10
)

// FromEndpoint writes an endpoint.
func FromEndpoint(e transport.Endpoint) *wirepb.Endpoint {
	return &wirepb.Endpoint{Transport: e.Transport, Host: e.Host, Port: uint32(e.Port), Params: e.Params}
}

// ToEndpoint reads an endpoint; what is over a limit is left out.
func ToEndpoint(e *wirepb.Endpoint) transport.Endpoint {
	out := transport.Endpoint{Transport: clean(e.GetTransport(), 64), Host: clean(e.GetHost(), 512)}
	if p := e.GetPort(); p <= math.MaxUint16 {
		out.Port = uint16(p)
	}
	for k, v := range e.GetParams() {
		if len(out.Params) == maxParams || len(k) > 64 || len(v) > maxParam {
			continue
		}
		if out.Params == nil {
			out.Params = map[string]string{}
		}
		out.Params[k] = v
	}
	return out
}
