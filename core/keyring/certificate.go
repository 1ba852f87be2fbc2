package keyring

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"net"
	"time"
)

// selfSignedLife is the validity of a self-signed certificate. Clients pin its
// key, so renewing it in time with the same key disturbs nobody.
const selfSignedLife = 397 * 24 * time.Hour

// SelfSigned makes sure that tls.crt and tls.key exist and are valid for another
// 30 days, and gives their names and the SHA-256 of the public key (SPKI), which
// links pin. The certificate holds the domain and nothing else.
func (r *Ring) SelfSigned() (cert, key string, pin [32]byte, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	private, err := r.tlsKey()
	if err != nil {
		return "", "", pin, err
	}
	spki, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		return "", "", pin, err
	}
	pin = sha256.Sum256(spki)
	now := r.opt.Clock().UTC().Truncate(time.Second)
	if !r.certificateGood(now, private) {
		if err := r.issueCertificate(now, private); err != nil {
			return "", "", pin, err
		}
	}
	return r.dir.name("tls.crt"), r.dir.name("tls.key"), pin, nil
}

func (r *Ring) tlsKey() (*ecdsa.PrivateKey, error) {
	k, err := r.dir.tlsKey()
	if !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	// ECDSA draws from crypto/rand whatever it is given; a certificate key needs
	// no reproducible randomness.
	if k, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return nil, err
	}
	return k, r.dir.write("tls.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// tlsKey reads the key of the relay's own certificate; fs.ErrNotExist is passed on.
func (f folder) tlsKey() (*ecdsa.PrivateKey, error) {
	b, err := f.read("tls.key")
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, f.damaged("tls.key")
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	private, ok := k.(*ecdsa.PrivateKey)
	if err != nil || !ok {
		return nil, f.damaged("tls.key")
	}
	return private, nil
}

func (r *Ring) certificateGood(now time.Time, private *ecdsa.PrivateKey) bool {
	b, err := r.dir.read("tls.crt")
	if err != nil {
		return false
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return false
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return false
	}
	public, ok := c.PublicKey.(*ecdsa.PublicKey)
	return ok && public.Equal(&private.PublicKey) && c.VerifyHostname(r.opt.Domain) == nil && c.NotAfter.After(now.Add(30*24*time.Hour))
}

func (r *Ring) issueCertificate(now time.Time, private *ecdsa.PrivateKey) error {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return err
	}
	// No subject: nothing beyond the name that the handshake asks for anyway.
	t := &x509.Certificate{
		SerialNumber: serial.Add(serial, big.NewInt(1)),
		NotBefore:    now.Add(-24 * time.Hour), NotAfter: now.Add(selfSignedLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	if ip := net.ParseIP(r.opt.Domain); ip != nil {
		t.IPAddresses = []net.IP{ip}
	} else {
		t.DNSNames = []string{r.opt.Domain}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &private.PublicKey, private)
	if err != nil {
		return err
	}
	return r.dir.write("tls.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}
