package bind

import (
	"errors"

	"golang.zx2c4.com/wireguard/conn"

	"github.com/commucat/commucat/plugins/transport/amnesiawg/internal/obfs"
)

// Send sends messages of WireGuard's. Nothing of bufs is used after it returns.
func (b *Bind) Send(bufs [][]byte, to conn.Endpoint) error {
	e, ok := to.(*Endpoint)
	if !ok || e.socket >= len(b.sockets) {
		return conn.ErrWrongEndpointType
	}
	if r := b.remote.Load(); r != nil {
		e = r
	}
	if len(bufs) == 0 {
		return nil
	}
	// One call holds either data packets or one handshake message.
	if len(bufs[0]) < 4 || obfs.Type(bufs[0]) == 4 {
		return b.data(bufs, e)
	}
	for _, msg := range bufs {
		if err := b.handshake(msg, e); err != nil {
			return err
		}
	}
	return nil
}

func (b *Bind) data(bufs [][]byte, e *Endpoint) error {
	s := b.sockets[e.socket]
	err := s.send(e, s.params.Prefix[obfs.Transport], bufs, s.params.Header)
	if err == nil {
		if !b.sentAny.Load() && !b.sentAny.Swap(true) {
			b.event(SentData)
		}
		return nil
	}
	return b.failed(err)
}

// failed is what WireGuard is told of a failed send.
func (b *Bind) failed(err error) error {
	if refusal(err) {
		b.event(Refused)
	}
	return err
}

var errNobody = errors.New("bind: a handshake message for no peer")

func (b *Bind) handshake(msg []byte, e *Endpoint) error {
	switch k := obfs.Type(msg); {
	case k == 1 && len(msg) == obfs.InitiationSize:
		p := b.peers.find(msg, e.addr)
		if p == nil {
			return errNobody
		}
		b.ours.add(obfs.Sender(msg), b.o.Now())
		b.sent.add(p, msg, e)
		return b.initiate(p, msg, e)
	case k == 2 && len(msg) == obfs.ResponseSize:
		p := b.gate.Load().answered(msg)
		if p == nil {
			p = b.peers.find(msg, e.addr)
		}
		if p == nil {
			return errNobody
		}
		b.ours.add(obfs.Sender(msg), b.o.Now())
		s := b.sockets[e.socket]
		wire := b.sign(s.params, obfs.Response, p, msg)
		return b.failed(s.send(e, 0, [][]byte{wire}, nil))
	}
	// A cookie reply: the gate has kept WireGuard from being under load, and its
	// own cookies mean nothing on the wire.
	return nil
}

// sign makes a handshake message of the wire.
func (b *Bind) sign(p *obfs.Params, k obfs.Kind, to *peer, msg []byte) []byte {
	wire := append(make([]byte, 0, len(msg)), msg...)
	obfs.SetType(wire, p.Type[k].Pick())
	to.sign(wire)
	return p.Handshake(k, wire)
}

// initiate sends an initiation, with what goes before it, back to back.
func (b *Bind) initiate(p *peer, msg []byte, e *Endpoint) error {
	s := b.sockets[e.socket]
	burst := s.params.Special.Render(b.o.Now())
	burst = append(burst, s.params.Junk.Render()...)
	burst = append(burst, b.sign(s.params, obfs.Initiation, p, msg))
	return b.failed(s.send(e, 0, burst, nil))
}
