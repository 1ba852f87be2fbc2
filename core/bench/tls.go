package bench

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// tlsName is the name in the certificate of TLSFloor.
const tlsName = "floor.invalid"

// handshakes gathers what TLSFloor measured before and after a case.
type handshakes struct {
	count int64
	cpu   time.Duration
}

func (h *handshakes) add(ctx context.Context, parallel int, d time.Duration) error {
	count, cpu, err := TLSFloor(ctx, parallel, d)
	if err != nil {
		return fmt.Errorf("measuring bare TLS: %w", err)
	}
	h.count, h.cpu = h.count+count, h.cpu+cpu
	return nil
}

// each is the CPU time of one handshake, both ends, in microseconds.
func (h *handshakes) each() float64 {
	if h.count == 0 {
		return 0
	}
	return h.cpu.Seconds() * 1e6 / float64(h.count)
}

// TLSFloor measures what a connection costs on this machine before anything of the
// relay's comes: full handshakes of crypto/tls as the relay makes them (TLS 1.3,
// X25519MLKEM768, a P-256 certificate that the client verifies) over loopback, so many
// at a time for d. count were made, at least parallel; cpu is this process's time, of
// both ends. Cores differ, and one core differs from minute to minute; how many bare
// handshakes a connect costs differs much less.
func TLSFloor(ctx context.Context, parallel int, d time.Duration) (count int64, cpu time.Duration, err error) {
	server, roots, err := tlsServer()
	if err != nil {
		return 0, 0, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, 0, err
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				t := tls.Server(c, server)
				if t.HandshakeContext(ctx) == nil {
					_, _ = t.Read(make([]byte, 1)) // until the client closes
				}
			}()
		}
	}()
	defer func() { err = errors.Join(err, ln.Close()); <-served }()
	before, err := usageOf(os.Getpid())
	if err != nil {
		return 0, 0, err
	}
	var made atomic.Int64
	end := time.Now().Add(d)
	client := &tls.Config{RootCAs: roots, ServerName: tlsName, MinVersion: tls.VersionTLS13}
	err = each(ctx, parallel, parallel, func(ctx context.Context, _ int) error {
		for first := true; first || time.Now().Before(end); first = false {
			c, err := (&tls.Dialer{Config: client}).DialContext(ctx, "tcp", ln.Addr().String())
			if err != nil {
				return err
			}
			made.Add(1)
			if err := c.Close(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, 0, err
	}
	after, err := usageOf(os.Getpid())
	return made.Load(), after.cpu - before.cpu, err
}

// tlsServer makes a server's configuration with a certificate of its own.
func tlsServer() (*tls.Config, *x509.CertPool, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	form := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: tlsName}, DNSNames: []string{tlsName},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, form, form, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}},
		MinVersion:   tls.VersionTLS13, SessionTicketsDisabled: true,
	}, roots, nil
}
