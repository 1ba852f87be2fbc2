package wire

import (
	"fmt"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/internal/wire/wirepb"
	"github.com/commucat/commucat/sdk/storage"
)

// PartBytes is how many bytes of payload a message of a call in parts has; one longer
// row has a message of its own.
const PartBytes = 1 << 20

// MaxReply bounds the bytes of one answer in all its parts.
const MaxReply = 256 << 20

// corrupt is an answer that contradicts itself.
func corrupt(what string) error {
	return &sdk.Error{Kind: sdk.Corrupt, Text: "the plugin answered " + what}
}

// AppendRow adds a row to the columns.
func AppendRow(to *wirepb.Rows, r *storage.Append) {
	to.Queues = append(to.Queues, r.Queue...)
	to.QueueSizes = append(to.QueueSizes, uint32(len(r.Queue)))
	to.Ids = append(to.Ids, r.ID[:]...)
	to.Payloads = append(to.Payloads, r.Payload...)
	to.PayloadSizes = append(to.PayloadSizes, uint32(len(r.Payload)))
	to.Expires = append(to.Expires, FromTime(r.Expires))
}

// ToRows appends the rows of the columns to rows. Their memory is the message's.
func ToRows(rows []storage.Append, from *wirepb.Rows) ([]storage.Append, error) {
	n := len(from.QueueSizes)
	if len(from.PayloadSizes) != n || len(from.Expires) != n || len(from.Ids) != 16*n {
		return nil, fmt.Errorf("columns of different lengths")
	}
	queues, payloads := string(from.Queues), from.Payloads
	for i := range n {
		q, p := int(from.QueueSizes[i]), int(from.PayloadSizes[i])
		if q > len(queues) || p > len(payloads) {
			return nil, fmt.Errorf("a column ends too early")
		}
		rows = append(rows, storage.Append{
			Queue: queues[:q], ID: [16]byte(from.Ids[16*i:]), Payload: payloads[:p:p], Expires: ToTime(from.Expires[i]),
		})
		queues, payloads = queues[q:], payloads[p:]
	}
	if len(queues) > 0 || len(payloads) > 0 {
		return nil, fmt.Errorf("a column is too long")
	}
	return rows, nil
}

// FromResults writes the answer of an Append.
func FromResults(in []storage.Appended) *wirepb.Results {
	out := &wirepb.Results{Positions: make([]uint64, len(in))}
	for i := range in {
		out.Positions[i] = in[i].Position
		if in[i].Duplicate {
			out.Duplicates = append(out.Duplicates, uint32(i))
		}
		if in[i].Err != nil {
			out.Errors = append(out.Errors, &wirepb.RowError{Row: uint32(i), Error: FromError(in[i].Err)})
		}
	}
	return out
}

// ToResults reads the answer for n rows.
func ToResults(in *wirepb.Results, n int) ([]storage.Appended, error) {
	if len(in.GetPositions()) != n {
		return nil, corrupt(fmt.Sprintf("%d results for %d rows", len(in.GetPositions()), n))
	}
	out := make([]storage.Appended, n)
	for i, p := range in.GetPositions() {
		out[i].Position = p
	}
	for _, i := range in.GetDuplicates() {
		if int(i) >= n {
			return nil, corrupt("for a row that was not sent")
		}
		out[i].Duplicate = true
	}
	for _, e := range in.GetErrors() {
		if int(e.GetRow()) >= n || e.Error == nil {
			return nil, corrupt("for a row that was not sent")
		}
		out[e.Row].Err = ToError(e.Error)
	}
	return out, nil
}

// AppendEnvelope adds a row to the columns.
func AppendEnvelope(to *wirepb.Envelopes, e *storage.Envelope) {
	to.Positions = append(to.Positions, e.Position)
	to.Ids = append(to.Ids, e.ID[:]...)
	to.Payloads = append(to.Payloads, e.Payload...)
	to.PayloadSizes = append(to.PayloadSizes, uint32(len(e.Payload)))
	to.Expires = append(to.Expires, FromTime(e.Expires))
}

// ToEnvelopes appends the rows of the columns to out, which must go on ascending
// after position after.
func ToEnvelopes(out []storage.Envelope, from *wirepb.Envelopes, after uint64) ([]storage.Envelope, error) {
	n := len(from.GetPositions())
	if len(from.GetPayloadSizes()) != n || len(from.GetExpires()) != n || len(from.GetIds()) != 16*n {
		return nil, corrupt("columns of different lengths")
	}
	if len(out) > 0 {
		after = out[len(out)-1].Position
	}
	payloads := from.GetPayloads()
	for i, position := range from.GetPositions() {
		p := int(from.PayloadSizes[i])
		if p > len(payloads) || p > storage.MaxPayload {
			return nil, corrupt("a row that ends too early")
		}
		if position <= after {
			return nil, corrupt("rows out of order")
		}
		after = position
		out = append(out, storage.Envelope{Position: position, ID: [16]byte(from.Ids[16*i:]), Payload: payloads[:p:p], Expires: ToTime(from.Expires[i])})
		payloads = payloads[p:]
	}
	if len(payloads) > 0 {
		return nil, corrupt("more bytes than rows")
	}
	return out, nil
}
