package carrier

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"

	"github.com/commucat/commucat/sdk/noise"
	"github.com/commucat/commucat/sdk/transport"
	tls "github.com/refraction-networking/utls"
)

// ErrPin is a server whose TLS key is none of the pinned ones.
var ErrPin = errors.New("carrier: the server's TLS key is not the pinned one")

// profile is a browser that we look like.
type profile struct {
	hello tls.ClientHelloID
	agent string
}

const chromeAgent = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/133.0.0.0 Safari/537.36"

// lookup finds a profile. "go" is the plain hello of this program's runtime.
func lookup(name string) (profile, error) {
	switch name {
	case "", "chrome":
		return profile{tls.HelloChrome_Auto, chromeAgent}, nil
	case "edge":
		return profile{tls.HelloEdge_Auto, chromeAgent + " Edg/133.0.0.0"}, nil
	case "firefox":
		return profile{tls.HelloFirefox_Auto, "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:120.0) Gecko/20100101 Firefox/120.0"}, nil
	case "safari":
		return profile{tls.HelloSafari_Auto, "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/16.0 Safari/605.1.15"}, nil
	case "ios":
		return profile{tls.HelloIOS_Auto, "Mozilla/5.0 (iPhone; CPU iPhone OS 14_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/14.0 Mobile/15E148 Safari/604.1"}, nil
	case "go":
		return profile{tls.HelloGolang, "Go-http-client/2.0"}, nil
	default:
		return profile{}, fmt.Errorf("carrier: unknown TLS fingerprint %q", name)
	}
}

// Agent is the User-Agent that goes with the fingerprint.
func Agent(with transport.Dial) string {
	p, err := lookup(with.Fingerprint)
	if err != nil {
		return ""
	}
	return p.agent
}

// Authority is the HTTP authority of an endpoint.
func Authority(to transport.Endpoint) string {
	if h := to.Params[transport.ParamHost]; h != "" {
		return h
	}
	if to.Port == 443 || to.Port == 0 {
		if ip := net.ParseIP(to.Host); ip != nil && ip.To4() == nil {
			return "[" + to.Host + "]"
		}
		return to.Host
	}
	return address(to)
}

// Path is the connect path of an endpoint.
func Path(to transport.Endpoint) string {
	if p := to.Params[transport.ParamPath]; p != "" {
		return p
	}
	return "/connect"
}

func address(to transport.Endpoint) string {
	port := to.Port
	if port == 0 {
		port = 443
	}
	return net.JoinHostPort(to.Host, strconv.Itoa(int(port)))
}

// DialTLS connects and finishes the handshake. http1 restricts ALPN to
// http/1.1, as browsers do for WebSockets. The second result is the protocol
// that the server chose, "" if none.
func DialTLS(ctx context.Context, to transport.Endpoint, with transport.Dial, http1 bool) (net.Conn, string, error) {
	p, err := lookup(with.Fingerprint)
	if err != nil {
		return nil, "", err
	}
	dial := with.DialTCP
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	tcp, err := dial(ctx, "tcp", address(to))
	if err != nil {
		return nil, "", err
	}
	conn, err := client(tcp, p.hello, config(to, with, http1), http1)
	if err == nil {
		err = conn.HandshakeContext(ctx)
	}
	if err != nil {
		_ = tcp.Close()
		return nil, "", fmt.Errorf("carrier: tls: %w", err)
	}
	return conn, conn.ConnectionState().NegotiatedProtocol, nil
}

func config(to transport.Endpoint, with transport.Dial, http1 bool) *tls.Config {
	name := to.Params[transport.ParamName]
	if name == "" {
		name = to.Host
	}
	c := &tls.Config{
		ServerName:         name,
		RootCAs:            with.Roots,
		MinVersion:         tls.VersionTLS12,
		NextProtos:         []string{"h2", "http/1.1"},
		InsecureSkipVerify: with.Insecure || len(with.Pins) > 0,
	}
	if http1 {
		c.NextProtos = c.NextProtos[1:]
	}
	if pins := slices.Clone(with.Pins); len(pins) > 0 && !with.Insecure {
		c.VerifyConnection = func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) > 0 &&
				slices.Contains(pins, sha256.Sum256(s.PeerCertificates[0].RawSubjectPublicKeyInfo)) {
				return nil
			}
			return ErrPin
		}
	}
	return c
}

// client shapes the hello.
func client(tcp net.Conn, id tls.ClientHelloID, c *tls.Config, http1 bool) (*tls.UConn, error) {
	if id == tls.HelloGolang {
		return tls.UClient(tcp, c, id), nil
	}
	spec, err := tls.UTLSIdToSpec(id)
	if err != nil {
		return nil, err
	}
	if err := shape(&spec, http1); err != nil {
		return nil, err
	}
	conn := tls.UClient(tcp, c, tls.HelloCustom)
	if err := conn.ApplyPreset(&spec); err != nil {
		return nil, err
	}
	return conn, nil
}

// shape fills in what is drawn for each hello, and leaves out what the browser
// does not offer for HTTP/1.1 alone.
func shape(spec *tls.ClientHelloSpec, http1 bool) (err error) {
	spec.Extensions = slices.DeleteFunc(spec.Extensions, func(e tls.TLSExtension) bool {
		switch e := e.(type) {
		case *tls.GREASEEncryptedClientHelloExtension:
			// A random point, as browsers send it. Left to itself the library makes
			// a whole HPKE exchange for it, a fifth of the hello's time.
			var k noise.KeyPair
			if k, err = noise.GenerateKeyPair(nil); err == nil {
				e.EncapsulatedKey = k.Public[:]
			}
		case *tls.ALPNExtension:
			if http1 {
				e.AlpnProtocols = []string{"http/1.1"}
			}
		case *tls.ApplicationSettingsExtension, *tls.ApplicationSettingsExtensionNew:
			// Settings are offered for h2 alone.
			return http1
		}
		return false
	})
	return err
}
