package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/commucat/commucat/plugins/transport/pt/managed"
)

// certificate writes a certificate and its key for a site.
func certificate(t *testing.T, dir, name string) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, about, about, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	pkcs, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: pkcs}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// TestBothSidesOfEachMethod: the program against itself, a parent at each end.
func TestBothSidesOfEachMethod(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cover := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "a web site") }))
	t.Cleanup(cover.Close)
	cert, key := certificate(t, t.TempDir(), "bridge.example")
	for method, options := range map[string]managed.Args{
		"masque":    {{Key: "cover", Value: cover.URL}},
		"websocket": {{Key: "name", Value: "bridge.example"}, {Key: "cover", Value: cover.URL}, {Key: "cert", Value: cert}, {Key: "key", Value: "file:" + key}, {Key: "pin", Value: "true"}},
	} {
		t.Run(method, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			path := filepath.Join(t.TempDir(), "cookie")
			cookie, err := managed.NewCookie(path)
			if err != nil {
				t.Fatal(err)
			}
			at := netip.MustParseAddrPort(ln.Addr().String())
			said := new(said)
			server, err := managed.Start(ctx, managed.Options{Command: self, State: t.TempDir(), Method: method, Log: slog.New(slog.NewTextHandler(said, &slog.HandlerOptions{Level: slog.LevelDebug})), Server: &managed.Server{
				Bind: netip.MustParseAddrPort("127.0.0.1:0"), ORPort: at, Extended: at, Cookie: path, Options: options,
			}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(server.Stop)
			client, err := managed.Start(ctx, managed.Options{Command: self, State: t.TempDir(), Method: method})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(client.Stop)
			c, err := net.Dial("tcp", client.Method().Addr.String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := managed.Connect(ctx, c, server.Method().Addr.String(), server.Method().Args); err != nil {
				t.Fatal(err)
			}
			in, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			a, err := managed.AcceptExtOR(in, cookie)
			if err != nil || a.Method != method || a.Client.Addr().String() != "127.0.0.1" {
				t.Errorf("%+v, %v", a, err)
			}
			for _, way := range [][2]net.Conn{{c, in}, {in, c}} {
				if _, err := way[0].Write([]byte("words")); err != nil {
					t.Fatal(err)
				}
				b := make([]byte, 5)
				if _, err := io.ReadFull(way[1], b); err != nil || string(b) != "words" {
					t.Fatalf("%q, %v", b, err)
				}
			}
			if method == "websocket" {
				stranger(t, server.Method().Addr.String())
			}
			noise(t, server.Method().Addr.String())
			server.Stop()
			if text := said.String(); strings.Contains(text, "127.0.0.1") {
				t.Errorf("the parent learns addresses:\n%s", text)
			}
		})
	}
}

// said is what a child says.
type said struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// noise is a client that speaks no TLS, until it is let go.
func noise(t *testing.T, at string) {
	t.Helper()
	c, err := net.Dial("tcp", at)
	if err != nil {
		return // a method of UDP alone
	}
	defer c.Close()
	if _, err := io.WriteString(c, "noise\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	_, _ = io.Copy(io.Discard, c) // its end is all that matters
}

// stranger is shown the site, whatever path it asks for.
func stranger(t *testing.T, at string) {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}}}
	defer c.CloseIdleConnections()
	for _, path := range []string{"/", "/connect"} {
		r, err := c.Get("https://" + at + path)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || !strings.Contains(string(b), "a web site") {
			t.Errorf("%s: %q, %v", path, b, err)
		}
	}
}
