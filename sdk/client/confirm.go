package client

import (
	"errors"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/noise"
)

// confirm finishes the handshake on d and reads the relay's Ack.
func (c *Client) confirm(d *dialled, resume []byte) (*session, error) {
	var (
		out      []byte
		sequence = uint32(1)
	)
	if d.pattern == noise.XK {
		msg, err := d.hs.WriteMessage(nil, nil)
		if err != nil {
			return nil, err
		}
		sequence++
		f := ccp.Frame{Type: ccp.TypeAuth, Channel: d.channel, Sequence: sequence, Payload: ccp.ClientAuth{Handshake: msg}.Marshal()}
		if out, err = ccp.Append(out, f); err != nil {
			return nil, err
		}
	}
	send, recv, err := d.hs.Split()
	if err != nil {
		return nil, err
	}
	sequence++
	s := newSession(c, d, noise.NewSealer(send), noise.NewOpener(recv), sequence)
	cf := c.confirmation(d, resume)
	frame, err := ccp.Append(nil, ccp.Frame{Type: ccp.TypeAuth, Sequence: sequence, Payload: cf.Marshal()})
	if err != nil {
		return nil, err
	}
	if out, err = s.seal.AppendRecords(out, frame, noise.DefaultRecord); err != nil {
		return nil, err
	}
	c.events.tell(Event{Name: "confirming", Transport: d.transport})
	if _, err := d.conn.Write(out); err != nil {
		return nil, broken("sending the Confirm failed", err)
	}
	ack, err := s.readAck(d)
	if err != nil {
		return nil, err
	}
	d.named = cf.Keys
	if err := c.established(s, d, ack); err != nil {
		return nil, err
	}
	return s, nil
}

func (c *Client) confirmation(d *dialled, resume []byte) ccp.Confirm {
	p := c.Profile()
	cf := ccp.Confirm{
		Proof:  c.keys.device.Confirm(p.Relay.Domain, p.DeviceID, c.keys.static.Public, d.hs.Hash()),
		Cursor: c.in.cursor,
	}
	if d.accepted.Has(ccp.Sealed) {
		cf.Identity = p.identity(&c.keys)
	}
	if len(p.Invite) == 16 {
		cf.Invite = (*[16]byte)(p.Invite)
	}
	if len(p.Pairing) == 16 {
		cf.Pair = ccp.PairSecret([16]byte(p.Pairing), p.Name)
	}
	if len(resume) == 32 && d.accepted.Has(ccp.Resume) {
		cf.Resume = (*[32]byte)(resume)
	}
	cf.Keys = p.announced()
	return cf
}

// readAck reads records until the first frame is whole: the Ack, or an Error.
// What came behind it is kept for the reader.
func (s *session) readAck(d *dialled) (ccp.Established, error) {
	var (
		none  ccp.Established
		in    = append([]byte(nil), d.rest...)
		plain []byte
		total int // of records, so that padding cannot go on for ever
	)
	for {
		p, n, err := s.open.Next(in)
		if errors.Is(err, noise.ErrIncomplete) {
			if in, err = readMore(d.conn, in); err != nil {
				return none, err
			}
			continue
		}
		if err != nil {
			return none, broken("the relay's Ack cannot be decrypted", err)
		}
		if total += n; total > 4*maxHandshake {
			return none, broken("the relay's Ack is too large", nil)
		}
		plain, in = append(plain, p...), in[n:]
		f, used, err := decodeSkippingPad(plain)
		plain = plain[used:]
		if errors.Is(err, ccp.ErrIncomplete) {
			continue
		}
		if err != nil {
			return none, broken("the relay's Ack is malformed", err)
		}
		switch f.Type {
		case ccp.TypeError:
			e, err := ccp.ParseErrorBody(f.Payload)
			if err != nil {
				return none, broken("the relay sent a malformed error", err)
			}
			return none, ended(e.Error)
		case ccp.TypeAck:
		default:
			return none, broken("the relay sent another frame before its Ack", nil)
		}
		ack, err := ccp.ParseEstablished(f.Payload)
		if err != nil {
			return none, broken("the relay's Ack is malformed", err)
		}
		s.early, s.rest = append([]byte(nil), plain...), append([]byte(nil), in...)
		return ack, nil
	}
}

// decodeSkippingPad is ccp.Decode over the first frame that is no Pad.
func decodeSkippingPad(b []byte) (f ccp.Frame, used int, err error) {
	for {
		f, n, err := ccp.Decode(b[used:])
		used += n
		if err != nil || f.Type != ccp.TypePad {
			return f, used, err
		}
	}
}
