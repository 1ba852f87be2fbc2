package masque

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/yosida95/uritemplate/v3"

	"github.com/commucat/commucat/sdk"
)

// The values of Config.TCP and Config.Mode.
const (
	tcpOwn   = "own"
	tcpFront = "front"

	modeStream    = "stream"
	modeWebSocket = "websocket"
	modeUDP       = "udp"      // CONNECT-UDP with capsules
	modeDatagram  = "datagram" // CONNECT-UDP with QUIC datagrams
)

// Config is the configuration of both halves; the keys of one half mean nothing to
// the other.
type Config struct {
	// Server half.
	Listen  string     `cfg:"listen" default:":443" doc:"address of the site: UDP, and TCP where tcp is own"`
	TCP     string     `cfg:"tcp" default:"own" enum:"own,front" doc:"who answers on TCP at the same port: this transport, or the relay's own listener"`
	Name    string     `cfg:"name" max:"253" doc:"host name of the site; when empty the relay's public name"`
	Cert    sdk.File   `cfg:"cert" doc:"certificate chain, PEM; without one a self-signed certificate is made, which links pin"`
	Key     sdk.Secret `cfg:"key" doc:"private key of the certificate, PEM, for example file:key.pem"`
	UDP     bool       `cfg:"connect_udp" default:"true" doc:"whether guests may use CONNECT-UDP; without it the site does not announce datagrams"`
	Chained string     `cfg:"chained" doc:"second UDP address for clients that come through other people's proxies: packets there never exceed 1200 bytes"`
	Targets []string   `cfg:"targets" max:"256" doc:"UDP targets that guests may reach through this relay, host:port, *.domain:port or network:port, port * for all; none by default"`
	Bearer  bool       `cfg:"bearer" doc:"whether guests may show a bearer token instead of a proof, for MASQUE clients that know nothing else"`

	Sessions    int      `cfg:"guest_sessions" default:"32" min:"1" max:"100000" doc:"streams and tunnels of one guest at once"`
	Bytes       sdk.Size `cfg:"guest_bytes" default:"0" doc:"bytes of one guest in 24 hours, both ways; 0 is without limit"`
	Connections int      `cfg:"connections" default:"10000" min:"16" max:"1000000" doc:"connections at once, strangers' included; QUIC and TCP are counted apart"`
	PerSource   int      `cfg:"source_connections" default:"256" min:"1" max:"1000000" doc:"connections at once from one IPv4 address or IPv6 /64"`

	// Client half.
	Mode     string        `cfg:"mode" default:"stream" enum:"stream,websocket,udp,datagram" doc:"client: what carries the stream to the relay; stream is the fastest, udp and datagram are CONNECT-UDP with a second QUIC inside"`
	Fallback time.Duration `cfg:"fallback" default:"250ms" max:"10s" doc:"client: how long QUIC may be silent before TCP is tried beside it"`
	Proxy    string        `cfg:"proxy" doc:"client: URI template of a MASQUE proxy to come through, for example https://proxy.example/.well-known/masque/udp/{target_host}/{target_port}/"`
	Auth     sdk.Secret    `cfg:"proxy_authorization" doc:"client: value of the Proxy-Authorization header for that proxy"`
	ProxyPin string        `cfg:"proxy_pin" doc:"client: SHA-256 of that proxy's TLS key (SPKI) in base64url, instead of the system's roots"`
}

// Check implements sdk.Checker.
func (c *Config) Check() error {
	var errs sdk.ConfigErrors
	add := func(key, text string) { errs = append(errs, &sdk.ConfigError{Key: key, Text: text}) }
	for _, a := range []struct{ key, value string }{{"listen", c.Listen}, {"chained", c.Chained}} {
		if a.value == "" && a.key == "chained" {
			continue
		}
		if err := checkAddress(a.value); err != nil {
			add(a.key, err.Error())
		}
	}
	if c.Cert.IsZero() != c.Key.IsZero() {
		add("cert", "cert and key belong together; give both or neither")
	}
	if strings.ContainsAny(c.Name, ":/ ") {
		add("name", "a host name without port or path is meant")
	}
	if c.Bytes < 0 {
		add("guest_bytes", "it cannot be negative")
	}
	if len(c.Targets) > 0 && !c.UDP {
		add("targets", "targets are reached with CONNECT-UDP: set connect_udp = true")
	}
	for _, t := range c.Targets {
		if _, err := parseTarget(t); err != nil {
			add("targets", err.Error())
		}
	}
	if c.Proxy != "" {
		if _, err := parseProxy(c.Proxy); err != nil {
			add("proxy", err.Error())
		}
	} else if !c.Auth.IsZero() || c.ProxyPin != "" {
		add("proxy", "proxy_authorization and proxy_pin belong to a proxy; give its URI template")
	}
	if c.ProxyPin != "" {
		if _, err := parsePin(c.ProxyPin); err != nil {
			add("proxy_pin", err.Error())
		}
	}
	if len(errs) > 0 {
		return errs
	}
	return nil
}

func checkAddress(a string) error {
	host, port, err := net.SplitHostPort(a)
	if err != nil {
		return errors.New("write it as address:port or :port")
	}
	if host != "" && host != "localhost" {
		if _, err := netip.ParseAddr(host); err != nil {
			return errors.New("the address must be an IP address, or empty for all")
		}
	}
	if _, err := net.LookupPort("udp", port); err != nil {
		return errors.New("the port must be a number from 0 to 65535")
	}
	return nil
}

// The variables of RFC 9298 section 2.
const (
	varHost = "target_host"
	varPort = "target_port"
)

// parseProxy reads the URI template of a proxy.
func parseProxy(text string) (*uritemplate.Template, error) {
	t, err := uritemplate.New(text)
	if err != nil {
		return nil, errors.New("it is not a URI template (RFC 6570)")
	}
	if !strings.HasPrefix(text, "https://") {
		return nil, errors.New("it must begin with https://")
	}
	names := t.Varnames()
	if len(names) != 2 || !(names[0] == varHost && names[1] == varPort || names[0] == varPort && names[1] == varHost) {
		return nil, errors.New("it must contain {target_host} and {target_port} and no other variable")
	}
	return t, nil
}
