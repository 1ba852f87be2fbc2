package masque

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// agent is the User-Agent that goes with the usual fingerprint.
const agent = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/133.0.0.0 Safari/537.36"

// dialer is what one dial needs.
type dialer struct {
	cfg  Config
	to   transport.Endpoint
	with transport.Dial
	inv  invitation
}

// dial is transport.Funcs.Dial: QUIC first, and TCP beside it when QUIC is silent or
// fails. The first stream that the relay has accepted wins.
func dial(ctx context.Context, _ sdk.Env, c Config, to transport.Endpoint, with transport.Dial) (net.Conn, error) {
	inv, err := readInvitation(to, with)
	if err != nil {
		return nil, err
	}
	d := &dialer{cfg: c, to: to, with: with, inv: inv}
	if c.Proxy != "" {
		return d.throughProxy(ctx)
	}
	if !inv.tcp {
		return d.overQUIC(ctx)
	}
	return race(ctx, c.Fallback, d.overQUIC, d.overTCP)
}

// race starts first, and second when first has failed or has not answered for
// delay; the loser is ended. A refusal of first ends the race: TCP would be answered
// alike.
func race(ctx context.Context, delay time.Duration, first, second func(context.Context) (net.Conn, error)) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type outcome struct {
		conn net.Conn
		err  error
	}
	results := make(chan outcome, 2)
	run := func(f func(context.Context) (net.Conn, error)) {
		go func() {
			c, err := f(ctx)
			results <- outcome{c, err}
		}()
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	run(first)
	started, ended := 1, 0
	var errs []error
	for {
		select {
		case <-timer.C:
			if started == 1 {
				started++
				run(second)
			}
		case r := <-results:
			ended++
			if r.err == nil {
				if left := started - ended; left > 0 {
					go func() {
						if r := <-results; r.err == nil {
							_ = r.conn.Close()
						}
					}()
				}
				return r.conn, nil
			}
			errs = append(errs, r.err)
			if started == 1 && ctx.Err() == nil && !errors.Is(r.err, transport.ErrRefused) {
				started++
				run(second)
			}
			if ended == started {
				return nil, errors.Join(errs...)
			}
		}
	}
}

// address is where the packets go.
func (d *dialer) address() string { return net.JoinHostPort(d.to.Host, strconv.Itoa(int(d.inv.port))) }

// authority is how requests name the site.
func (d *dialer) authority() string { return joinAuthority(d.inv.host, d.inv.port) }

// request is a CONNECT for the stream; protocol is "" for the classic one.
func (d *dialer) request(ctx context.Context, export exporter, protocol string) (*http.Request, error) {
	a := d.authority()
	return d.connect(ctx, export, a, &url.URL{Scheme: "https", Host: a, Path: "/"}, protocol)
}

// connect is a CONNECT request with the guest's credentials.
func (d *dialer) connect(ctx context.Context, export exporter, authorityText string, u *url.URL, protocol string) (*http.Request, error) {
	host, port, err := authority(authorityText)
	if err != nil {
		return nil, err
	}
	credentials, err := d.inv.credentials(export, host, port)
	if err != nil {
		return nil, err
	}
	r := &http.Request{
		Method: http.MethodConnect, URL: u, Host: authorityText, Proto: protocol,
		Header: http.Header{"Proxy-Authorization": {credentials}, "User-Agent": {agent}},
	}
	return r.WithContext(ctx), nil
}

// protocol is the extended CONNECT of the configured mode.
func (d *dialer) protocol() string {
	if d.cfg.Mode == modeWebSocket {
		return protocolWebSocket
	}
	return ""
}

// accepted reads the relay's answer.
func (d *dialer) accepted(r *http.Response) error {
	if d.with.ServerTime != nil {
		if at, err := http.ParseTime(r.Header.Get("Date")); err == nil {
			d.with.ServerTime(at)
		}
	}
	switch {
	case r.StatusCode >= 200 && r.StatusCode <= 299:
		return nil
	case r.StatusCode == http.StatusTooManyRequests:
		return &sdk.Error{Kind: sdk.Full, Text: "the relay says that this guest has too many streams or has used up its bytes"}
	case r.Header.Get("Proxy-Status") != "":
		return fmt.Errorf("the relay answered %d: %s", r.StatusCode, transport.Shorten(r.Header.Get("Proxy-Status"), 256))
	}
	return fmt.Errorf("%w (status %d)", transport.ErrRefused, r.StatusCode)
}

// clientTLS verifies the site as the invitation says.
func (d *dialer) clientTLS(protocols ...string) *tls.Config {
	c := &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: strings.Trim(d.inv.host, "[]"), NextProtos: protocols,
		RootCAs: d.with.Roots, InsecureSkipVerify: d.with.Insecure || len(d.inv.pins) > 0,
	}
	if !d.with.Insecure && len(d.inv.pins) > 0 {
		c.VerifyConnection = func(s tls.ConnectionState) error { return pinned(d.inv.pins, s.PeerCertificates) }
	}
	return c
}

// pinned compares the key of the leaf with the pins.
func pinned(pins [][32]byte, chain []*x509.Certificate) error {
	if len(chain) > 0 && slices.Contains(pins, sha256.Sum256(chain[0].RawSubjectPublicKeyInfo)) {
		return nil
	}
	return errPin
}
