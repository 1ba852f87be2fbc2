package masque

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// carrier is a QUIC connection with HTTP/3 on it, and everything below.
type carrier struct {
	conn *quic.Conn
	h3   *http3.ClientConn
	tr   *quic.Transport
	pc   net.PacketConn
	// below is what the packets travel through, nil for the network.
	below func()
}

// close ends the connection at once, and one in a tunnel that takes nothing any more
// after lingerTime.
func (c *carrier) close() {
	if c.below != nil {
		defer time.AfterFunc(lingerTime, c.below).Stop()
	}
	if c.conn != nil {
		_ = c.conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
	}
	_ = c.tr.Close()
	_ = c.pc.Close()
	if c.below != nil {
		c.below()
	}
}

// idleClient is how long a client waits for a relay that says nothing: one that was
// killed cannot say so. QUIC counts from the first packet that is not answered, so the
// end is noticed up to one period of keepAlive later.
const idleClient = 10 * time.Second

// keepAlive holds the mapping of a NAT open; it differs from connection to
// connection, as a fixed period would be seen. More than half of idleClient is not
// taken.
func keepAlive() time.Duration { return 4*time.Second + mathrand.N(time.Second) }

// clientQUIC is the client's configuration.
func clientQUIC() *quic.Config {
	return &quic.Config{
		Versions: []quic.Version{quic.Version1}, HandshakeIdleTimeout: 6 * time.Second, MaxIdleTimeout: idleClient,
		KeepAlivePeriod: keepAlive(), MaxIncomingStreams: -1, EnableDatagrams: true,
	}
}

// grease is a reserved setting (RFC 9114 section 7.2.4.1), drawn for each
// connection.
func grease() map[uint64]uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:])
	return map[uint64]uint64{0x1f*(binary.BigEndian.Uint64(b[:])>>40) + 0x21: uint64(b[7])}
}

// connectQUIC makes a connection to addr over pc, which it closes if it fails.
func connectQUIC(ctx context.Context, pc net.PacketConn, addr net.Addr, tc *tls.Config, qc *quic.Config) (*carrier, error) {
	c := &carrier{tr: &quic.Transport{Conn: pc}, pc: pc}
	conn, err := c.tr.Dial(ctx, addr, tc, qc)
	if err != nil {
		c.close()
		return nil, fmt.Errorf("quic: %w", err)
	}
	c.conn = conn
	c.h3 = (&http3.Transport{
		EnableDatagrams: true, AdditionalSettings: grease(), DisableCompression: true,
		MaxResponseHeaderBytes: maxHeader, Logger: slog.New(slog.DiscardHandler),
	}).NewClientConn(conn)
	return c, nil
}

// openUDP is a socket that is bound to no address: when the device gets another one,
// packets go on from that, and the server follows (RFC 9000 section 9).
func openUDP() (net.PacketConn, error) {
	udp, err := net.ListenUDP("udp", nil)
	if err != nil {
		return nil, err
	}
	pc, _ := forQUIC(udp)
	return pc, nil
}

// resolve gives the addresses of a host in the resolver's order.
func resolve(ctx context.Context, host string, port uint16) ([]*net.UDPAddr, error) {
	addrs, err := new(net.Resolver).LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	out := make([]*net.UDPAddr, 0, len(addrs))
	for _, a := range addrs {
		out = append(out, net.UDPAddrFromAddrPort(netip.AddrPortFrom(a.Unmap(), port)))
	}
	return out, nil
}

// connectHost tries the addresses of a host, two of them at most: the first of each
// family would be the first two of most answers.
func connectHost(ctx context.Context, host string, port uint16, tc *tls.Config, qc *quic.Config) (*carrier, error) {
	addrs, err := resolve(ctx, host, port)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, a := range addrs[:min(len(addrs), 2)] {
		pc, err := openUDP()
		if err != nil {
			return nil, err
		}
		c, err := connectQUIC(ctx, pc, a, tc, qc)
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// overQUIC opens the stream over HTTP/3.
func (d *dialer) overQUIC(ctx context.Context) (net.Conn, error) {
	qc := clientQUIC()
	if d.cfg.Mode == modeDatagram {
		qc.Tracer = traceBacklog
	}
	c, err := connectHost(ctx, d.to.Host, d.inv.port, d.clientTLS(http3.NextProtoH3), qc)
	if err != nil {
		return nil, err
	}
	if d.cfg.Mode == modeUDP || d.cfg.Mode == modeDatagram {
		if c, err = d.inside(ctx, c); err != nil {
			return nil, err
		}
	}
	return d.open(ctx, c)
}

// open opens the relay's stream on a connection to the site, which it closes if it
// fails.
func (d *dialer) open(ctx context.Context, c *carrier) (net.Conn, error) {
	str, err := ask(ctx, c, func(export exporter) (*http.Request, error) {
		return d.request(ctx, export, d.protocol())
	}, d.accepted)
	if err != nil {
		c.close()
		return nil, err
	}
	out := &streamConn{str: str, local: c.conn.LocalAddr, remote: c.conn.RemoteAddr, finish: c.close}
	if d.inv.tcp && d.cfg.Proxy == "" {
		out.watch = &watch{conn: c.conn, ask: d.askTCP}
	}
	if d.protocol() != "" {
		return newMessages(out, true), nil
	}
	return out, nil
}

// ask sends a CONNECT and waits for the answer, which accepted judges.
func ask(ctx context.Context, c *carrier, build func(exporter) (*http.Request, error), accepted func(*http.Response) error) (*http3.RequestStream, error) {
	state := c.conn.ConnectionState()
	r, err := build(state.TLS.ExportKeyingMaterial)
	if err != nil {
		return nil, err
	}
	str, resp, err := exchange(ctx, c, r) //nolint:bodyclose // the stream is the body, and is cancelled
	if err != nil {
		return nil, err
	}
	if err := accepted(resp); err != nil {
		str.CancelRead(codeCancelled)
		str.CancelWrite(codeCancelled)
		return nil, err
	}
	return str, nil
}

// exchange sends a CONNECT and reads the head of the answer; ctx bounds both.
func exchange(ctx context.Context, c *carrier, r *http.Request) (*http3.RequestStream, *http.Response, error) {
	if r.Proto != "" { // RFC 9220 section 3: only once the server has said that it may be
		select {
		case <-c.h3.ReceivedSettings():
		case <-c.conn.Context().Done():
			return nil, nil, context.Cause(c.conn.Context())
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		}
		if !c.h3.Settings().EnableExtendedConnect {
			return nil, nil, errors.New("the server offers no extended CONNECT")
		}
	}
	str, err := c.h3.OpenRequestStream(ctx)
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() {
		str.CancelRead(codeCancelled)
		str.CancelWrite(codeCancelled)
	})
	err = str.SendRequestHeader(r)
	var resp *http.Response
	if err == nil {
		resp, err = str.ReadResponse()
	}
	if !stop() {
		return nil, nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, nil, err
	}
	return str, resp, nil
}
