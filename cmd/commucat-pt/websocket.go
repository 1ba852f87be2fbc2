package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/entry"
	"github.com/commucat/commucat/sdk/transport"
	"github.com/commucat/commucat/transports/websocket"
)

// site is the configuration of the websocket transport's server side on a bridge: a
// web server of its own, in which one path is the transport for who has the bridge line.
type site struct {
	Listen string     `cfg:"listen" doc:"address of the web server"`
	Name   string     `cfg:"name" doc:"its host name; required"`
	Cover  string     `cfg:"cover" doc:"URL of the web site that everybody else is shown; required"`
	Path   string     `cfg:"path" default:"/connect" doc:"the transport's path"`
	Cookie string     `cfg:"cookie" default:"session" doc:"name of the cookie that lets a client in"`
	Cert   sdk.File   `cfg:"cert" doc:"certificate chain, PEM; required"`
	Key    sdk.Secret `cfg:"key" doc:"its private key, PEM; required"`
	Pin    bool       `cfg:"pin" doc:"bridge lines name the certificate's key, for one that the web's roots do not vouch for"`
}

// Parameters of bridge lines, beside those of package transport.
const (
	paramCredential = "cr" // id and key of the entry credential, base64url
	paramPin        = "pin"
)

func webSocket() sdk.Plugin {
	return transport.Define(transport.Descriptor{
		Name: websocket.Name, Version: "1.0.0", Summary: "a WebSocket on a web site",
		Resistance: transport.High, Throughput: transport.High, LowLatency: transport.High, Anonymity: transport.Low,
	}, transport.Funcs[site]{Listen: serveSite, Dial: dialSite})
}

// bridge is the listening half.
type bridge struct {
	net.Listener // of the web server
	cfg          site
	pin          string
	credential   entry.Credential
	server       *http.Server
	accepted     chan net.Conn
	closed       chan struct{}
	once         sync.Once
}

func serveSite(ctx context.Context, env sdk.Env, c site) (net.Listener, error) {
	up, err := url.Parse(c.Cover)
	if err != nil || up.Host == "" || c.Name == "" {
		return nil, &sdk.Error{Kind: sdk.Invalid, Op: "websocket", Text: "name and cover (a URL) are required"}
	}
	pair, err := tls.X509KeyPair(c.Cert.Bytes(), c.Key.Bytes())
	if err != nil {
		return nil, &sdk.Error{Kind: sdk.Invalid, Op: "websocket", Text: "cert and key are no pair of PEM files that belong together"}
	}
	b := &bridge{cfg: c, accepted: make(chan net.Conn), closed: make(chan struct{})}
	if c.Pin {
		leaf, err := x509.ParseCertificate(pair.Certificate[0])
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
		b.pin = base64.RawURLEncoding.EncodeToString(sum[:])
	}
	master, err := masterOf(env.State())
	if err != nil {
		return nil, err
	}
	b.credential = entry.Derive(master, bridgeID())
	ln, err := env.Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return nil, err
	}
	b.Listener = ln
	// These logs hold clients' addresses, and tor writes down what its child says.
	quiet := log.New(io.Discard, "", 0)
	proxy := &httputil.ReverseProxy{ErrorLog: quiet, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(up) }}
	web := websocket.New(websocket.Options{
		Path: c.Path, Cookie: c.Cookie, Verify: entry.NewVerifier(func() [][]byte { return [][]byte{master} }, nil).Verify, Cover: proxy,
	})
	b.server = &http.Server{
		ErrorLog: quiet, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		// Browsers open WebSockets over HTTP/1.1.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if web.Match(r) {
				web.Serve(w, r, b.carry)
				return
			}
			proxy.ServeHTTP(w, r)
		}),
	}
	over := tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}})
	go func() { _ = b.server.Serve(over) }() // it ends with Close
	return b, nil
}

// bridgeID is the id of the one credential of a bridge: that it ends far away is all
// that it says.
func bridgeID() (id [8]byte) {
	end := uint32(1<<32 - 2)
	id[0], id[1], id[2], id[3] = byte(end>>24), byte(end>>16), byte(end>>8), byte(end)
	return id
}

// masterOf draws the secret of a bridge once and keeps it.
func masterOf(state string) ([]byte, error) {
	path := filepath.Join(state, "master")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		b = make([]byte, entry.MinMaster)
		if _, err := rand.Read(b); err != nil {
			return nil, err
		}
		return b, os.WriteFile(path, b, 0o600)
	}
	if err == nil && len(b) != entry.MinMaster {
		err = fmt.Errorf("%s is damaged; remove it, and give out new bridge lines", path)
	}
	return b, err
}

// carry hands a stream to Accept and returns when it is closed.
func (b *bridge) carry(c net.Conn) {
	held := &held{Conn: c, over: make(chan struct{})}
	select {
	case b.accepted <- held:
	case <-b.closed:
		return
	}
	select {
	case <-held.over:
	case <-b.closed:
	}
}

// held tells when it is closed.
type held struct {
	net.Conn
	once sync.Once
	over chan struct{}
}

// Close implements net.Conn.
func (h *held) Close() error {
	err := h.Conn.Close()
	h.once.Do(func() { close(h.over) })
	return err
}

// NetConn lets transport.FactsOf look inside.
func (h *held) NetConn() net.Conn { return h.Conn }

// Accept gives streams.
func (b *bridge) Accept() (net.Conn, error) {
	select {
	case c := <-b.accepted:
		return c, nil
	case <-b.closed:
		return nil, net.ErrClosed
	}
}

// Close ends the web server and all streams.
func (b *bridge) Close() error {
	b.once.Do(func() { close(b.closed) })
	return b.server.Close()
}

// Invite implements transport.Server.
func (b *bridge) Invite(_ context.Context, host string, _ transport.Guest) (transport.Endpoint, error) {
	key := append(b.credential.ID[:], b.credential.Key[:]...)
	to := transport.Endpoint{Transport: websocket.Name, Host: host, Port: transport.AddrPort(b.Addr()).Port(), Params: map[string]string{
		transport.ParamPath: b.cfg.Path, transport.ParamCookie: b.cfg.Cookie, transport.ParamName: b.cfg.Name, transport.ParamHost: b.cfg.Name,
		paramCredential: base64.RawURLEncoding.EncodeToString(key),
	}}
	if b.pin != "" {
		to.Params[paramPin] = b.pin
	}
	return to, nil
}

// Revoke implements transport.Server: a bridge line is for all.
func (b *bridge) Revoke(context.Context, string) error { return nil }

// dialSite is the client half: the relay's own, with what the bridge line says.
func dialSite(ctx context.Context, _ sdk.Env, _ site, to transport.Endpoint, with transport.Dial) (net.Conn, error) {
	raw, err := base64.RawURLEncoding.DecodeString(to.Params[paramCredential])
	var c entry.Credential
	if err != nil || len(raw) != len(c.ID)+len(c.Key) {
		return nil, &sdk.Error{Kind: sdk.Invalid, Op: "websocket", Text: "the bridge line has no credential"}
	}
	copy(c.ID[:], raw)
	copy(c.Key[:], raw[len(c.ID):])
	if p := to.Params[paramPin]; p != "" {
		pin, err := base64.RawURLEncoding.DecodeString(p)
		if err != nil || len(pin) != sha256.Size {
			return nil, &sdk.Error{Kind: sdk.Invalid, Op: "websocket", Text: "the bridge line's pin is malformed"}
		}
		with.Pins = [][32]byte{[32]byte(pin)}
	}
	var mu sync.Mutex
	var ahead time.Duration // of the server's clock
	with.ServerTime = func(at time.Time) {
		mu.Lock()
		defer mu.Unlock()
		ahead = time.Until(at)
	}
	with.Token = func(method, path, st string) string {
		mu.Lock()
		defer mu.Unlock()
		return c.Token(method, path, st, time.Now().Add(ahead), rand.Reader)
	}
	d := websocket.NewDialer()
	conn, err := d.Dial(ctx, to, with)
	if errors.Is(err, transport.ErrRefused) && ahead.Abs() > 30*time.Second {
		conn, err = d.Dial(ctx, to, with) // with the server's clock
	}
	return conn, err
}
