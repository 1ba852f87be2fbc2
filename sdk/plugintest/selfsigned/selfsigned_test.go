package selfsigned_test

import (
	"crypto/tls"
	"crypto/x509"
	"testing"

	"github.com/commucat/commucat/sdk/plugintest/selfsigned"
)

// Who trusts the certificate trusts the server at 127.0.0.1, and nowhere else.
func TestCertificate(t *testing.T) {
	c := selfsigned.New(t)
	files, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(c.Cert, c.Key)
	if err != nil {
		t.Fatal(err)
	}
	if !pair.Leaf.Equal(files.Leaf) {
		t.Error("the files hold another certificate")
	}
	roots := x509.NewCertPool()
	roots.AddCert(pair.Leaf)
	for name, good := range map[string]bool{"127.0.0.1": true, "localhost": false} {
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); (err == nil) != good {
			t.Errorf("%s: %v", name, err)
		}
	}
	other := x509.NewCertPool()
	other.AddCert(mustPair(t, selfsigned.New(t)).Leaf)
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: other}); err == nil {
		t.Error("another one's authority vouches for it")
	}
}

func mustPair(t *testing.T, c selfsigned.Certificate) tls.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair(c.Cert, c.Key)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}
