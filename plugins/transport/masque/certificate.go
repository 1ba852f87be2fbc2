package masque

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/commucat/commucat/sdk"
)

// selfSigned is how long a certificate that we make is good. Links pin its key, so
// the date is never looked at by our clients.
const selfSigned = 10 * 365 * 24 * time.Hour

// certificate gives the configured certificate, or one of our own that lies in the
// state folder. pin is the hash that clients must be told, nil where the web's roots
// vouch for it.
func certificate(c Config, state string, now time.Time) (cert tls.Certificate, pin *[32]byte, err error) {
	if c.Cert.IsZero() {
		cert, err = ownCertificate(c.Name, state, now)
	} else {
		cert, err = tls.X509KeyPair(c.Cert.Bytes(), c.Key.Bytes())
		if err != nil {
			// The text of crypto/tls speaks of what was found, never of the key.
			err = &sdk.Error{Kind: sdk.Invalid, Text: fmt.Sprintf("certificate %s and its key: %v", c.Cert.Path(), err)}
		}
	}
	if err != nil {
		return cert, nil, err
	}
	if now.After(cert.Leaf.NotAfter) {
		return cert, nil, &sdk.Error{Kind: sdk.Invalid, Text: "the certificate has expired; renew it"}
	}
	if bytes.Equal(cert.Leaf.RawIssuer, cert.Leaf.RawSubject) {
		h := sha256.Sum256(cert.Leaf.RawSubjectPublicKeyInfo)
		pin = &h
	}
	return cert, pin, nil
}

// ownCertificate reads the certificate that we have made, or makes it.
func ownCertificate(name, state string, now time.Time) (tls.Certificate, error) {
	file := filepath.Join(state, certFile)
	content, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		if name == "" {
			name = "localhost"
		}
		if content, err = makeCertificate(name, now); err == nil {
			err = writeFile(file, content)
		}
	}
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("certificate: %w", err)
	}
	cert, err := tls.X509KeyPair(content, content)
	if err != nil {
		return cert, &sdk.Error{Kind: sdk.Corrupt, Text: fmt.Sprintf("%s: %v; restore it from a backup, or remove it and give out new links", file, err)}
	}
	return cert, nil
}

// makeCertificate is a self-signed certificate and its key, PEM. It holds the name
// and nothing else.
func makeCertificate(name string, now time.Time) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-24 * time.Hour), NotAfter: now.Add(selfSigned),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	if ip := net.ParseIP(name); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{name}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return slices.Concat(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})), nil
}

// serverTLS is what the relay's own listener has: TLS 1.3 alone, the hybrid key
// agreement first.
func serverTLS(cert tls.Certificate, protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion:       tls.VersionTLS13,
		CurvePreferences: []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP256},
		NextProtos:       protocols,
		Certificates:     []tls.Certificate{cert},
	}
}

var errPin = errors.New("the server's TLS key is not the pinned one")

func parsePin(text string) ([32]byte, error) {
	b, err := decode(text)
	if err != nil || len(b) != 32 {
		return [32]byte{}, errors.New("a pin is 32 bytes in base64url without padding")
	}
	return [32]byte(b), nil
}
