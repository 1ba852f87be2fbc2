package doctor

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// soon is how long before its end a certificate should have been renewed.
const soon = 14 * 24 * time.Hour

// certificate looks at what strangers are shown.
func (e *examination) certificate() {
	const check = "certificate"
	name, domain := string(e.Config.TLS.Cert), string(e.Config.Server.Domain)
	if name == "" {
		e.add(check, Weak, "self-signed: links pin it, but a stranger can tell this server from an ordinary site",
			e.forOwnKey(domain))
		name = filepath.Join(e.Data, "keys", "tls.crt")
		if chain, err := readChain(name); err == nil {
			e.validity(check, chain[0], "start the relay: it renews its own certificate")
		}
		return
	}
	chain, err := readChain(name)
	if err != nil {
		e.add(check, Wrong, err.Error(), "commucat config check "+e.file())
		return
	}
	before := len(e.out)
	leaf := chain[0]
	e.validity(check, leaf, "certbot renew")
	if err := leaf.VerifyHostname(domain); err != nil {
		e.add(check, Wrong, fmt.Sprintf("%s is not made out for %s", name, domain), "certbot certonly -d "+domain)
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	// Validity is a finding of its own.
	at := e.Now()
	if at.Before(leaf.NotBefore) || at.After(leaf.NotAfter) {
		at = leaf.NotAfter.Add(-time.Second)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: e.Roots, Intermediates: between, CurrentTime: at}); err != nil {
		e.add(check, Weak, fmt.Sprintf("%s is not trusted publicly (%v): a stranger can tell this server from an ordinary site", name, err),
			"use the full chain of a public authority, for example certbot's fullchain.pem")
	}
	own := filepath.Join(e.Data, "keys", "tls.crt")
	if former, err := readChain(own); err == nil && !bytes.Equal(former[0].RawSubjectPublicKeyInfo, leaf.RawSubjectPublicKeyInfo) {
		e.add(check, Weak, "devices and links from before it pin the key of the relay's own certificate and cannot connect",
			e.forOwnKey(domain)+"; or, when none of them is left: rm "+own+" "+filepath.Join(e.Data, "keys", "tls.key"))
	}
	if st, err := os.Stat(string(e.Config.TLS.Key)); err == nil && st.Mode().Perm()&0o007 != 0 {
		e.add(check, Wrong, fmt.Sprintf("%s is readable by every user: consider the key known", e.Config.TLS.Key), "chmod o-rwx "+string(e.Config.TLS.Key))
	}
	if len(e.out) == before {
		e.fine(check, "trusted for %s until %s", domain, leaf.NotAfter.UTC().Format(time.DateOnly))
	}
}

// forOwnKey is how a public certificate is had for the key that links and devices pin.
func (e *examination) forOwnKey(domain string) string {
	key := filepath.Join(e.Data, "keys", "tls.key")
	return fmt.Sprintf("openssl req -new -key %s -subj / -addext subjectAltName=DNS:%s -out relay.csr && certbot certonly --csr relay.csr; then in [tls] cert = what it gives, and key = %q",
		key, domain, key)
}

func (e *examination) validity(check string, c *x509.Certificate, mend string) {
	switch now := e.Now(); {
	case now.After(c.NotAfter):
		e.add(check, Wrong, "it has expired on "+c.NotAfter.UTC().Format(time.DateOnly), mend)
	case now.Before(c.NotBefore):
		e.add(check, Wrong, "it is not valid before "+c.NotBefore.UTC().Format(time.DateTime), "check the clock: timedatectl")
	case c.NotAfter.Sub(now) < soon:
		e.add(check, Weak, "it expires on "+c.NotAfter.UTC().Format(time.DateOnly), mend)
	}
}

// readChain reads the certificates of a PEM file, at least one.
func readChain(name string) ([]*x509.Certificate, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("%s", reason(name, err))
	}
	var out []*x509.Certificate
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s holds no certificate", name)
	}
	return out, nil
}
