// Command transport-tls is a complete transport plugin: TLS 1.3 over TCP.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strconv"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/plugin"
	"github.com/commucat/commucat/sdk/transport"
)

// Config are the keys of both halves; a half checks what it needs.
type Config struct {
	Listen string     `cfg:"listen" default:":8443" doc:"TCP address to accept on"`
	Cert   sdk.File   `cfg:"cert" doc:"certificate chain, PEM"`
	Key    sdk.Secret `cfg:"key" doc:"private key, PEM"`
	Roots  sdk.File   `cfg:"roots" doc:"roots the dialling side trusts, PEM"`
}

// Plugin is the transport.
var Plugin = transport.Define(transport.Descriptor{
	Name: "tls", Version: "0.1.0", Summary: "TLS 1.3 over TCP",
	Throughput: transport.High, LowLatency: transport.High, HalfClose: true,
	Needs: []transport.Need{{Kind: transport.TCPPort}},
}, transport.Funcs[Config]{Listen: listen, Dial: dial})

func main() { plugin.Serve(Plugin) }

func listen(ctx context.Context, env sdk.Env, c Config) (net.Listener, error) {
	cert, err := tls.X509KeyPair(c.Cert.Bytes(), c.Key.Bytes())
	if err != nil {
		return nil, err
	}
	ln, err := env.Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return nil, err
	}
	return tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}), nil
}

func dial(ctx context.Context, _ sdk.Env, c Config, to transport.Endpoint, _ transport.Dial) (net.Conn, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(c.Roots.Bytes()) {
		return nil, errors.New("roots: no certificate")
	}
	d := tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: to.Params[transport.ParamName], MinVersion: tls.VersionTLS13}}
	return d.DialContext(ctx, "tcp", net.JoinHostPort(to.Host, strconv.Itoa(int(to.Port))))
}
