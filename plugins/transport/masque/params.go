package masque

import (
	"crypto/ed25519"
	"strconv"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// Parameters of our endpoints, beside transport.ParamName ("sni").
const (
	paramPin     = "pin"  // SHA-256 of the TLS key, base64url; pinWeb where the web's roots vouch
	paramTCP     = "tcp"  // "1": the same port answers on TCP as well
	paramChained = "ch"   // port for clients that come through a proxy
	paramKeyID   = "k"    // key id of the guest, base64url
	paramKey     = "key"  // private key of a link, base64url
	paramBearer  = "auth" // bearer token of the guest, where the relay allows those

	pinWeb = "web"
)

// invitation is what a client must know, read from an endpoint's parameters.
type invitation struct {
	host string // as the certificate and the authority name it
	port uint16

	pins    [][32]byte
	web     bool // the web's roots, whatever the dial's pins are
	tcp     bool
	chained uint16

	keyID  []byte
	key    ed25519.PrivateKey // nil: none
	bearer string
}

func bad(text string) error { return &sdk.Error{Kind: sdk.Invalid, Op: "endpoint", Text: text} }

// readInvitation joins an endpoint with what the dial brings.
func readInvitation(to transport.Endpoint, with transport.Dial) (invitation, error) {
	v := invitation{host: to.Params[transport.ParamName], port: to.Port, pins: with.Pins, tcp: to.Params[paramTCP] == "1", bearer: to.Params[paramBearer]}
	if v.host == "" {
		v.host = to.Host
	}
	if v.port == 0 {
		v.port = 443
	}
	switch p := to.Params[paramPin]; p {
	case "":
	case pinWeb:
		v.web, v.pins = true, nil
	default:
		pin, err := parsePin(p)
		if err != nil {
			return v, bad(err.Error())
		}
		v.pins = [][32]byte{pin}
	}
	if p := to.Params[paramChained]; p != "" {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return v, bad("the port for chained clients is no port")
		}
		v.chained = uint16(n)
	}
	var err error
	if v.keyID, err = decode(to.Params[paramKeyID]); err != nil || len(v.keyID) > maxKeyID {
		return v, bad("the key id is malformed")
	}
	seed := with.Key
	if p := to.Params[paramKey]; p != "" {
		if seed, err = decode(p); err != nil {
			return v, bad("the key is malformed")
		}
	}
	if len(seed) > 0 {
		if len(seed) != ed25519.SeedSize {
			return v, bad("the key has not 32 bytes")
		}
		v.key = ed25519.NewKeyFromSeed(seed)
	}
	if (v.key == nil || len(v.keyID) == 0) && v.bearer == "" {
		return v, bad("it names no guest; a link or a registered device is needed")
	}
	return v, nil
}

// credentials makes the value of the Proxy-Authorization header for requests to
// host:port on a connection.
func (v *invitation) credentials(export exporter, host string, port uint16) (string, error) {
	if v.key == nil || len(v.keyID) == 0 {
		return "Bearer " + v.bearer, nil
	}
	return prove(export, v.key, v.keyID, host, port)
}
