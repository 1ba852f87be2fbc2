package plugin

import (
	"context"
	"crypto/x509"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/internal/wire"
	"github.com/commucat/commucat/sdk/internal/wire/handoff"
	"github.com/commucat/commucat/sdk/internal/wire/wirepb"
	"github.com/commucat/commucat/sdk/transport"
)

// dial is one dial; its questions to the host are asked one after another.
type dial struct {
	*server
	stream grpc.BidiStreamingServer[wirepb.DialStep, wirepb.DialQuestion]
	asks   bool

	mu sync.Mutex
}

// run dials and hands the stream over. gone is closed when the stream has ended, or
// needs this process no more.
func (d *dial) run(r *wirepb.DialRequest, gone chan struct{}) error {
	ctx := d.stream.Context()
	t := &transports{server: d.server}
	i, err := t.opened(r.GetInstance())
	if err != nil {
		return err
	}
	d.server.mu.Lock()
	draining := d.draining
	d.server.mu.Unlock()
	if draining {
		return errDraining
	}
	with, err := d.with(r)
	if err != nil {
		return err
	}
	c, err := i.transport.Dial(ctx, wire.ToEndpoint(r.To), with)
	if err != nil {
		return err
	}
	m := handoff.Message{Type: handoff.Dialled, Number: r.Dial}
	m.Describe(c)
	m.Facts = transport.Facts{}
	deadline, _ := ctx.Deadline()
	return d.pumps.Give(d.main, &m, c, deadline, func() { close(gone) })
}

func (d *dial) with(r *wirepb.DialRequest) (transport.Dial, error) {
	with := transport.Dial{Insecure: r.Insecure, Fingerprint: r.Fingerprint, Key: r.Key}
	for _, p := range r.Pins {
		if len(p) == 32 {
			with.Pins = append(with.Pins, [32]byte(p))
		}
	}
	if r.HasRoots {
		roots := make([]*x509.Certificate, len(r.Roots))
		for i, b := range r.Roots {
			c, err := x509.ParseCertificate(b)
			if err != nil {
				return with, &sdk.Error{Kind: sdk.Invalid, Op: "dial", Text: "a root is no certificate", Err: err}
			}
			roots[i] = c
		}
		with.Trust(roots...)
	}
	if r.HasToken {
		d.asks = true
		with.Token = d.token
	}
	if r.HasServerTime {
		d.asks = true
		with.ServerTime = func(t time.Time) {
			d.mu.Lock()
			defer d.mu.Unlock()
			_ = d.stream.Send(&wirepb.DialQuestion{ServerTimeUnix: t.Unix()})
		}
	}
	if r.HasConnect {
		d.asks = true
		with.DialTCP = d.connect
	}
	return with, nil
}

// token asks the host for an entry token; "" once the host has gone.
func (d *dial) token(method, path, part string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stream.Send(&wirepb.DialQuestion{Token: &wirepb.TokenQuestion{Method: method, Path: path, Part: part}}) != nil {
		return ""
	}
	a, err := d.stream.Recv()
	if err != nil {
		return ""
	}
	return a.GetToken()
}

// connect asks the host to open a carrier.
func (d *dial) connect(ctx context.Context, network, address string) (net.Conn, error) {
	d.server.mu.Lock()
	d.next++
	number := d.next | carrierBit
	d.server.mu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.stream.Send(&wirepb.DialQuestion{Connect: &wirepb.ConnectQuestion{Carrier: number, Network: network, Address: address}})
	if err != nil {
		return nil, err
	}
	a, err := d.stream.Recv()
	if err != nil {
		return nil, err
	}
	if err := wire.ToError(a.ConnectError); err != nil {
		return nil, err
	}
	if a.Carrier == nil {
		return nil, &sdk.Error{Kind: sdk.Other, Text: "the host gave no carrier"}
	}
	lent, err := d.borrow(ctx, number)
	if err != nil {
		return nil, err
	}
	return d.main.Stream(lent.fd, &lent.m, nil)
}

// carrierBit keeps the numbers of carriers, which are drawn here, apart from those of
// listeners, which the host draws.
const carrierBit = 1 << 62
