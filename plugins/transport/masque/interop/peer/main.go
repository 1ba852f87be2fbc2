// Command peer is a MASQUE client or proxy of masque-go for the tests.
//
//	peer proxy AUTHORIZATION                           a proxy for those who show this header
//	peer client TEMPLATE PIN AUTHORIZATION TARGET      a UDP port whose packets go to TARGET
//
// It prints one JSON line when it is ready, and ends with its standard input.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/quic-go/masque-go"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/yosida95/uritemplate/v3"
)

// path is the default template of RFC 9298.
const path = "/.well-known/masque/udp/{target_host}/{target_port}/"

// report is the line that is printed.
type report struct {
	Address string `json:"address"`           // proxy: where it listens; client: the local UDP port
	Pin     string `json:"pin,omitempty"`     // proxy: SHA-256 of its TLS key
	NextHop string `json:"nextHop,omitempty"` // client: what the proxy said
	Status  int    `json:"status,omitempty"`  // client: of the answer
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	ready := func(r report) error { return json.NewEncoder(os.Stdout).Encode(r) }
	switch {
	case len(args) == 2 && args[0] == "proxy":
		return proxy(args[1], ready)
	case len(args) == 5 && args[0] == "client":
		return client(args[1], args[2], args[3], args[4], ready)
	}
	return errors.New("usage: peer proxy AUTHORIZATION | peer client TEMPLATE PIN AUTHORIZATION TARGET")
}

// over returns when nobody needs the process any more.
func over() { _, _ = io.Copy(io.Discard, os.Stdin) }

func proxy(authorization string, ready func(report) error) error {
	cert, pin, err := certificate()
	if err != nil {
		return err
	}
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	template, err := uritemplate.New("https://" + udp.LocalAddr().String() + path)
	if err != nil {
		return err
	}
	var p masque.Proxy
	s := http3.Server{
		TLSConfig:       http3.ConfigureTLSConfig(&tls.Config{Certificates: []tls.Certificate{cert}}),
		QUICConfig:      &quic.Config{EnableDatagrams: true},
		EnableDatagrams: true,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Proxy-Authorization") != authorization {
				w.WriteHeader(http.StatusProxyAuthRequired)
				return
			}
			to, err := masque.ParseProxyRequest(r, template)
			if err != nil {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			_ = p.Proxy(w, to)
		}),
	}
	go func() { _ = s.Serve(udp) }()
	if err := ready(report{Address: udp.LocalAddr().String(), Pin: pin}); err != nil {
		return err
	}
	over()
	return s.Close()
}

func certificate() (tls.Certificate, string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, "", err
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "proxy"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, "", err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, "", err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, pinOf(leaf), nil
}

func pinOf(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func client(template, pin, authorization, target string, ready func(report) error) error {
	t, err := uritemplate.New(template)
	if err != nil {
		return err
	}
	r, err := masque.NewRequest(context.Background(), t, target)
	if err != nil {
		return err
	}
	r.Header().Set("Proxy-Authorization", authorization)
	tr := masque.Transport{TLSClientConfig: &tls.Config{
		NextProtos: []string{http3.NextProtoH3}, InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if pinOf(s.PeerCertificates[0]) != pin {
				return errors.New("another key")
			}
			return nil
		},
	}}
	conn, resp, err := tr.Dial(r)
	if err != nil {
		if resp == nil {
			return err
		}
		return ready(report{Status: resp.StatusCode})
	}
	local, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	var from atomic.Pointer[net.UDPAddr]
	go func() { // into the tunnel
		b := make([]byte, 2048)
		for {
			n, a, err := local.ReadFromUDP(b)
			if err != nil {
				return
			}
			from.Store(a)
			_, _ = conn.WriteTo(b[:n], nil) // what is too large is lost
		}
	}()
	go func() { // out of it
		b := make([]byte, 2048)
		for {
			n, _, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			if a := from.Load(); a != nil {
				_, _ = local.WriteToUDP(b[:n], a)
			}
		}
	}()
	if err := ready(report{Address: local.LocalAddr().String(), NextHop: conn.RemoteAddr().String(), Status: resp.StatusCode}); err != nil {
		return err
	}
	over()
	return errors.Join(conn.Close(), local.Close())
}
