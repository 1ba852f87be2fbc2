package conf

import (
	"encoding/base64"
	"strconv"
	"strings"

	"github.com/commucat/commucat/plugins/transport/amnesiawg/internal/obfs"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/transport"
)

// Parameters of endpoints.
const (
	paramServer = "k" // the relay's public key, base64url
	paramWire   = "w" // compact code of the obfuscation parameters, base64url
	paramSecret = "s" // a link's secret, base64url; absent for devices with a key
	paramMTU    = "m" // largest inner packet, 1280 if absent
	paramPorts  = "p" // further UDP ports, "a.b.c"
)

const (
	// DefaultMTU is the largest inner packet where the endpoint says nothing.
	DefaultMTU = 1280
	// MinMTU and MaxMTU bound it.
	MinMTU, MaxMTU = 1000, 1420
	// MaxPorts bounds the UDP ports of one endpoint.
	MaxPorts = 16
)

// Endpoint is what a client must know of a relay.
type Endpoint struct {
	// Host is the relay's name or address, Ports its UDP ports, the first one
	// being the endpoint's own. All of them are equal.
	Host  string
	Ports []uint16
	// Server is the relay's public key.
	Server [32]byte
	// Wire are the obfuscation parameters.
	Wire *obfs.Params
	// Secret makes the keys of a link; nil for devices with a key of their own.
	Secret *[32]byte
	// MTU is the largest inner packet.
	MTU int
}

func bad(text string) error {
	return &sdk.Error{Kind: sdk.Invalid, Op: "endpoint", Text: text + "; ask for a new link"}
}

// Parse reads an endpoint. Its errors are of kind sdk.Invalid.
func Parse(to transport.Endpoint) (Endpoint, error) {
	e := Endpoint{Host: to.Host, Ports: []uint16{to.Port}, MTU: DefaultMTU}
	if to.Host == "" || to.Port == 0 {
		return e, bad("it names no host or port")
	}
	key, err := decode32(to.Params[paramServer])
	if err != nil {
		return e, bad("the relay's key is missing or damaged")
	}
	e.Server = key
	code, err := base64.RawURLEncoding.DecodeString(to.Params[paramWire])
	if err != nil {
		return e, bad("the obfuscation parameters are damaged")
	}
	if e.Wire, err = obfs.Unmarshal(code); err != nil {
		return e, bad(err.Error())
	}
	if s, ok := to.Params[paramSecret]; ok {
		secret, err := decode32(s)
		if err != nil {
			return e, bad("the link's secret is damaged")
		}
		e.Secret = &secret
	}
	if s, ok := to.Params[paramMTU]; ok {
		if e.MTU, err = strconv.Atoi(s); err != nil || e.MTU < MinMTU || e.MTU > MaxMTU {
			return e, bad("its packet size is out of range")
		}
	}
	if s, ok := to.Params[paramPorts]; ok {
		for text := range strings.SplitSeq(s, ".") {
			p, err := strconv.ParseUint(text, 10, 16)
			if err != nil || p == 0 || len(e.Ports) == MaxPorts {
				return e, bad("its further ports are damaged")
			}
			e.Ports = append(e.Ports, uint16(p))
		}
	}
	return e, nil
}

// Transport writes the endpoint as Parse reads it.
func (e Endpoint) Transport() transport.Endpoint {
	params := map[string]string{
		paramServer: base64.RawURLEncoding.EncodeToString(e.Server[:]),
		paramWire:   base64.RawURLEncoding.EncodeToString(e.Wire.Marshal()),
	}
	if e.Secret != nil {
		params[paramSecret] = base64.RawURLEncoding.EncodeToString(e.Secret[:])
	}
	if e.MTU != DefaultMTU {
		params[paramMTU] = strconv.Itoa(e.MTU)
	}
	if len(e.Ports) > 1 {
		texts := make([]string, 0, len(e.Ports)-1)
		for _, p := range e.Ports[1:] {
			texts = append(texts, strconv.Itoa(int(p)))
		}
		params[paramPorts] = strings.Join(texts, ".")
	}
	return transport.Endpoint{Transport: Name, Host: e.Host, Port: e.Ports[0], Params: params}
}

// Size is how many bytes the parameters take in a link, which holds 512 of an
// endpoint (ccp.MaxParams) and 1,024 in all.
func (e Endpoint) Size() int { return len(ccp.ParamsOf(e.Transport().Params)) }

func decode32(s string) (k [32]byte, err error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return k, err
	}
	if len(b) != len(k) {
		return k, strconv.ErrSyntax
	}
	return [32]byte(b), nil
}
