package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/plugintest"
	"github.com/commucat/commucat/sdk/transport"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	cert, key := certificate(t)
	plugintest.Plugin(t, Plugin, plugintest.PluginOptions{
		Package: ".",
		Server: func(testing.TB) map[string]any {
			return map[string]any{"listen": "127.0.0.1:0", "cert": sdk.NewFile("cert.pem", cert), "key": sdk.NewSecret(key)}
		},
		Client: func(testing.TB) map[string]any {
			return map[string]any{"roots": sdk.NewFile("roots.pem", cert)}
		},
		Endpoint: func(_ testing.TB, ln net.Listener) transport.Endpoint {
			at := transport.AddrPort(ln.Addr())
			return transport.Endpoint{Host: "127.0.0.1", Port: at.Port(), Params: map[string]string{transport.ParamName: "relay.example"}}
		},
	})
}

// certificate makes one that is its own root.
func certificate(t *testing.T) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"relay.example"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	b, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: b})
}
