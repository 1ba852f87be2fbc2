package host

import (
	"context"
	"net"
	"time"

	"google.golang.org/grpc"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/internal/wire"
	"github.com/commucat/commucat/sdk/internal/wire/handoff"
	"github.com/commucat/commucat/sdk/internal/wire/wirepb"
	"github.com/commucat/commucat/sdk/transport"
)

// dial is one dial through the other process.
type dial struct {
	o      *openedTransport
	with   transport.Dial
	number uint64
	got    chan handed
}

func (d *dial) request(to transport.Endpoint) *wirepb.DialRequest {
	r := &wirepb.DialRequest{
		Instance: d.o.id, Dial: d.number, To: wire.FromEndpoint(to),
		HasToken: d.with.Token != nil, HasServerTime: d.with.ServerTime != nil, HasConnect: d.with.DialTCP != nil,
		Insecure: d.with.Insecure, Fingerprint: d.with.Fingerprint, Key: d.with.Key,
	}
	for _, p := range d.with.Pins {
		r.Pins = append(r.Pins, p[:])
	}
	if d.with.Roots != nil {
		r.HasRoots = true
		for _, c := range d.with.RootCertificates {
			r.Roots = append(r.Roots, c.Raw)
		}
	}
	return r
}

// run dials. The call itself lives as long as the plugin may have questions: until
// the stream has ended.
func (d *dial) run(ctx context.Context, to transport.Endpoint) (net.Conn, error) {
	p := d.o.p
	call, cancel := context.WithCancel(p.life)
	stop := context.AfterFunc(ctx, cancel)
	stream, err := d.o.call.Dial(call)
	if err == nil {
		err = stream.Send(&wirepb.DialStep{Request: d.request(to)})
	}
	if err == nil {
		err = d.answer(ctx, stream)
	}
	if err != nil {
		err = d.fail(ctx, err)
	} else if !stop() {
		err = ctx.Err()
	}
	if err != nil {
		cancel()
		return nil, err
	}
	c, err := d.wait(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	p.group.Go(func() {
		defer cancel()
		_ = d.answer(p.life, stream)
	})
	return c, nil
}

func (d *dial) fail(ctx context.Context, err error) error {
	if e, ok := err.(*answered); ok {
		return e.err
	}
	return d.o.p.callError(ctx, err)
}

// answered is an error that the plugin answered.
type answered struct{ err error }

func (a *answered) Error() string { return a.err.Error() }

// wait waits for the stream, which is on its way.
func (d *dial) wait(ctx context.Context) (net.Conn, error) {
	t := time.NewTimer(short)
	defer t.Stop()
	select {
	case h := <-d.got:
		return h.conn, h.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-d.o.p.ended:
		return nil, d.o.p.Err()
	case <-t.C:
		return nil, &sdk.Error{Kind: sdk.Unavailable, Op: "transport " + d.o.name, Text: "the plugin did not hand the stream over"}
	}
}

// answer answers questions until the plugin says done.
func (d *dial) answer(ctx context.Context, stream grpc.BidiStreamingClient[wirepb.DialStep, wirepb.DialQuestion]) error {
	for {
		q, err := stream.Recv()
		if err != nil {
			return err
		}
		switch {
		case q.Done != nil:
			if err := wire.ToError(q.Done.Error); err != nil {
				return &answered{err}
			}
			return nil
		case q.Token != nil && d.with.Token != nil:
			token := d.with.Token(printable(q.Token.Method, 32), printable(q.Token.Path, 4096), printable(q.Token.Part, 256))
			err = stream.Send(&wirepb.DialStep{Token: &token})
		case q.ServerTimeUnix != 0 && d.with.ServerTime != nil:
			d.with.ServerTime(time.Unix(q.ServerTimeUnix, 0).UTC())
		case q.Connect != nil && d.with.DialTCP != nil:
			err = stream.Send(d.connect(ctx, q.Connect))
		default:
			return &answered{&sdk.Error{Kind: sdk.Invalid, Text: "the plugin asked what it may not ask"}}
		}
		if err != nil {
			return err
		}
	}
}

// connect opens a carrier for the plugin and hands it over.
func (d *dial) connect(ctx context.Context, q *wirepb.ConnectQuestion) *wirepb.DialStep {
	c, err := d.with.DialTCP(ctx, printable(q.Network, 32), printable(q.Address, 512))
	if err == nil {
		m := handoff.Message{Type: handoff.Carrier, Number: q.Carrier}
		m.Describe(c)
		m.Facts = transport.Facts{}
		err = d.o.p.pumps.Give(d.o.p.main, &m, c, time.Now().Add(short), nil)
	}
	if err != nil {
		return &wirepb.DialStep{ConnectError: wire.FromError(err)}
	}
	return &wirepb.DialStep{Carrier: &q.Carrier}
}
