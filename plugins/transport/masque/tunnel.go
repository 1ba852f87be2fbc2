package masque

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/quic-go/quic-go/http3"
	"github.com/yosida95/uritemplate/v3"

	"github.com/commucat/commucat/sdk/transport"
)

// throughProxy comes through somebody else's MASQUE proxy: a CONNECT-UDP tunnel to
// the relay's own site, and the usual stream over a second QUIC in it.
func (d *dialer) throughProxy(ctx context.Context) (net.Conn, error) {
	template, err := parseProxy(d.cfg.Proxy)
	if err != nil {
		return nil, err
	}
	port := d.inv.port
	if d.inv.chained != 0 {
		port = d.inv.chained // packets there fit every tunnel
	}
	u, err := expand(template, d.to.Host, port)
	if err != nil {
		return nil, err
	}
	host, proxyPort, err := authority(u.Host)
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	qc := clientQUIC()
	qc.Tracer = traceBacklog
	c, err := connectHost(ctx, strings.Trim(host, "[]"), proxyPort, d.proxyTLS(host), qc)
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	in, err := d.tunnel(ctx, c, func(exporter) (*http.Request, error) { return d.proxyRequest(ctx, u), nil }, proxyAccepted)
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	return d.open(ctx, in)
}

// proxyAccepted reads the answer of somebody else's proxy. It says nothing about the relay:
// neither that it refuses the guest nor what time it is.
func proxyAccepted(r *http.Response) error {
	if r.StatusCode >= 200 && r.StatusCode <= 299 {
		return nil
	}
	return fmt.Errorf("it answered %d %s", r.StatusCode, transport.Shorten(r.Header.Get("Proxy-Status"), 256))
}

// expand fills the template (RFC 9298 section 2).
func expand(t *uritemplate.Template, host string, port uint16) (*url.URL, error) {
	text, err := t.Expand(uritemplate.Values{
		varHost: uritemplate.String(host), varPort: uritemplate.String(strconv.Itoa(int(port))),
	})
	if err != nil {
		return nil, err
	}
	return url.Parse(text)
}

// proxyTLS verifies the proxy: by its pin, or by the system's roots.
func (d *dialer) proxyTLS(host string) *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS13, ServerName: strings.Trim(host, "[]"), NextProtos: []string{http3.NextProtoH3}}
	if d.cfg.ProxyPin != "" {
		want, err := parsePin(d.cfg.ProxyPin)
		c.InsecureSkipVerify = true
		c.VerifyConnection = func(s tls.ConnectionState) error {
			if err != nil {
				return err
			}
			return pinnedTo(want, s.PeerCertificates)
		}
	}
	return c
}

func pinnedTo(pin [sha256.Size]byte, chain []*x509.Certificate) error {
	return pinned([][32]byte{pin}, chain)
}

func (d *dialer) proxyRequest(ctx context.Context, u *url.URL) *http.Request {
	r := &http.Request{Method: http.MethodConnect, URL: u, Host: u.Host, Proto: protocolUDP, Header: http.Header{
		capsuleHeader: {capsuleYes}, "User-Agent": {agent},
	}}
	if !d.cfg.Auth.IsZero() {
		r.Header.Set("Proxy-Authorization", d.cfg.Auth.Text())
	}
	return r.WithContext(ctx)
}

// inside makes a connection to the site in a tunnel that the site itself ends.
func (d *dialer) inside(ctx context.Context, c *carrier) (*carrier, error) {
	a := d.authority()
	host, port, err := authority(a)
	if err != nil {
		c.close()
		return nil, err
	}
	path := udpPath + url.PathEscape(strings.Trim(host, "[]")) + "/" + strconv.Itoa(int(port)) + "/"
	u := &url.URL{Scheme: "https", Host: a, Path: path, RawPath: path}
	if u.Path, err = url.PathUnescape(path); err != nil {
		c.close()
		return nil, err
	}
	return d.tunnel(ctx, c, func(export exporter) (*http.Request, error) {
		r, err := d.connect(ctx, export, a, u, protocolUDP)
		if err == nil {
			r.Header.Set(capsuleHeader, capsuleYes)
		}
		return r, err
	}, d.accepted)
}

// tunnelLocal and tunnelPeer are the two ends inside a tunnel. They are never on a
// wire.
func tunnelAddr(last byte) *net.UDPAddr {
	ip := make(net.IP, net.IPv6len)
	ip[0], ip[15] = innerLocal, last
	return &net.UDPAddr{IP: ip, Port: 1}
}

// tunnel opens CONNECT-UDP on a connection and makes a QUIC connection to the site
// through it. The outer connection closes with the inner one, or if this fails.
func (d *dialer) tunnel(ctx context.Context, c *carrier, build func(exporter) (*http.Request, error), accepted func(*http.Response) error) (*carrier, error) {
	str, err := ask(ctx, c, build, accepted)
	if err != nil {
		c.close()
		return nil, err
	}
	f := newFlowH3(str, new(sync.Pool))
	if c.conn.ConnectionState().SupportsDatagrams.Remote && c.h3.Settings().EnableDatagrams {
		f.datagrams(c.conn, str)
	}
	f.capsules.Store(d.cfg.Mode == modeUDP && d.cfg.Proxy == "")
	peer := tunnelAddr(2)
	p := newPackets(tunnelAddr(3), func(b []byte, size int, _ netip.AddrPort) error { return f.send(b, size) })
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = f.run(func(b []byte) { p.push(b, peer) })
		_ = p.Close() // wakes the inner QUIC: the tunnel is gone
	}()
	qc := clientQUIC()
	qc.InitialPacketSize = smallestPacket
	in, err := connectQUIC(ctx, p.over(c.pc), peer, d.clientTLS(http3.NextProtoH3), qc)
	end := func() {
		f.stop()
		c.close()
		<-ended
	}
	if err != nil {
		end()
		return nil, err
	}
	in.below = end
	return in, nil
}
