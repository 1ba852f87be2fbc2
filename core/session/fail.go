package session

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/core/metrics"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/transport"
)

// fail ends a handshake that went wrong, in a way that tells a stranger nothing:
//
//	connection not yet answered   the cover site takes it over (Withheld)
//	no frame, no entry token      what comes is read and thrown away until the
//	                              deadline, as if nobody understood it
//	before the Confirm            {"error":"handshake"}, in clear
//	after it                      the code, in a record
func (o *opening) fail(ctx context.Context, err error) {
	var r *refusal
	if !errors.As(err, &r) {
		r = &refusal{reason: "refused", code: ccp.CodeUnavailable, err: err}
	}
	if o.over.Load() {
		r.reason = "timeout"
	}
	label := r.reason
	if label == "refused" && r.code != ccp.CodeHandshake {
		label = r.code
	}
	o.srv.opt.Metrics.Count(metrics.Handshakes, label)
	o.srv.opt.Log.Debug("handshake refused", "reason", label, "detail", r.Error(), "transport", o.facts.Transport, "source", o.source())
	if label == "timeout" {
		return
	}
	if w, ok := o.conn.(transport.Withheld); ok && o.stage == stageHello && !o.answered.Load() {
		w.Refuse()
		return
	}
	switch {
	case r.code == "":
		return // the peer has gone, or broke the record layer
	case o.stage == stageHello && !o.entered && !o.facts.Compat && !o.framed:
		o.swallow(ctx)
		return
	case o.stage == stageRecords:
		o.sendSealed(r.code)
	default:
		o.sendClear(r)
	}
	o.farewell()
}

// source is the client's address for the log, as far as it may stand there.
func (o *opening) source() string {
	if a := o.facts.Remote.Addr(); o.srv.opt.Source != nil && a.IsValid() && !o.facts.Hidden {
		return o.srv.opt.Source(a.Unmap().WithZone(""))
	}
	return ""
}

// sendClear sends the one error there is before the Confirm. A verified peer of
// the reference is told when pairing would help, because its user must be.
func (o *opening) sendClear(r *refusal) {
	body := ccp.ErrorBody{Error: ccp.CodeHandshake}
	if r.pair && o.stage == stageVerified && !o.accepted.Has(ccp.ProofBinding) {
		body.Detail, body.Title, body.PairingRequired = "pairing required", "PairingRequired", true
	}
	sequence := uint32(1)
	if o.stage > stageHello && o.answered.Load() {
		sequence = 2
	}
	_ = o.writeClear(ccp.TypeError, 0, sequence, body.Marshal())
}

// sendSealed sends a code in a record.
func (o *opening) sendSealed(code string) {
	payload := ccp.ErrorBody{Error: code}.Marshal()
	frame, err := ccp.Append(nil, ccp.Frame{Type: ccp.TypeError, Sequence: 2, Payload: payload})
	if err != nil {
		return
	}
	unit, err := o.send.AppendRecord(nil, frame)
	if err != nil {
		return
	}
	o.srv.opt.Metrics.Count(metrics.Errors, code)
	_ = o.write(ccp.TypeError, 0, 2, unit)
}

// swallow reads and forgets as much as a handshake may have, and then leaves the
// peer to itself until the deadline: a flood is not worth reading.
func (o *opening) swallow(ctx context.Context) {
	for o.room() > 0 {
		n, err := o.conn.Read(o.buf[:cap(o.buf)])
		if err != nil {
			return
		}
		o.total += n
	}
	<-ctx.Done()
}

// farewell lets the last frame arrive: it half-closes and reads what still comes
// for a second, since closing with unread bytes would reset the connection and
// take the frame back.
func (o *opening) farewell() { farewell(o.conn, o.buf[:cap(o.buf)], time.Second) }

func farewell(conn net.Conn, scratch []byte, limit time.Duration) {
	if transport.CloseWrite(conn) != nil {
		_ = conn.Close()
		return
	}
	timer := time.AfterFunc(limit, func() { _ = conn.Close() })
	defer timer.Stop()
	for total := 0; total < 1<<20; {
		n, err := conn.Read(scratch)
		if err != nil {
			break
		}
		total += n
	}
	_ = conn.Close()
}

// fromAccount turns what the account store answers into a refusal.
func fromAccount(err error) error {
	var e *account.Error
	if errors.As(err, &e) {
		return &refusal{reason: "refused", code: e.Code, detail: e.Text, pair: e.Pairing}
	}
	return &refusal{reason: "refused", code: ccp.CodeUnavailable, err: err}
}
