package host_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/host"
	"github.com/commucat/commucat/sdk/plugintest"
	"github.com/commucat/commucat/sdk/transport"
)

const tlsPlugin = "github.com/commucat/commucat/examples/transport-tls"

// tlsConfig is a configuration for both halves of the TLS example.
func tlsConfig(t testing.TB) map[string]any {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"relay.example"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	b, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return map[string]any{
		"listen": "127.0.0.1:0", "cert": sdk.NewFile("cert.pem", cert), "roots": sdk.NewFile("roots.pem", cert),
		"key": sdk.NewSecret(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: b})),
	}
}

func endpoint(t testing.TB, ln net.Listener) transport.Endpoint {
	t.Helper()
	at, ok := ln.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatalf("the address is a %T", ln.Addr())
	}
	return transport.Endpoint{Host: "127.0.0.1", Port: uint16(at.Port), Params: map[string]string{transport.ParamName: "relay.example"}}
}

func TestTransport(t *testing.T) {
	d, err := host.Describe(t.Context(), plugintest.Build(t, tlsPlugin))
	if err != nil || len(d.Plugins) != 1 || d.Plugins[0].Name != "tls" || d.Plugins[0].Kind != sdk.Transport || len(d.Plugins[0].Config) != 4 {
		t.Fatalf("%+v %v", d, err)
	}
	p := plugintest.Start(t, plugintest.Build(t, tlsPlugin), host.Options{})
	if err := p.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	o, err := transport.Open(t.Context(), p.Plugins()[0], nil, tlsConfig(t))
	if err != nil {
		t.Fatal(err)
	}
	ln, err := o.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				c.Close()
			}()
		}
	}()
	c, err := o.Dial(t.Context(), endpoint(t, ln), transport.Dial{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Error(err)
	}
	if err := transport.CloseWrite(c); err != nil {
		t.Error(err)
	}
	if b, err := io.ReadAll(c); err != nil || string(b) != "hello" {
		t.Errorf("%q %v", b, err)
	}
	c.Close()
	if err := ln.Close(); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := p.Drain(ctx); err != nil {
		t.Error(err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if err := p.Err(); !errors.Is(err, sdk.Closed) {
		t.Error(err)
	}
	if s := p.Stats(); s != (host.Stats{}) {
		t.Errorf("%+v", s)
	}
}
