package plugin

import (
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/internal/wire"
	"github.com/commucat/commucat/sdk/internal/wire/wirepb"
	"github.com/commucat/commucat/sdk/storage"
)

// queues runs a call of Queues.
func (w *worker) queues(c *call) error {
	q, now := w.store.Queues, wire.ToTime(c.parts[0].Now)
	switch r := c.parts[0].Call.(type) {
	case *wirepb.StorageRequest_Append:
		return w.append(c, q)
	case *wirepb.StorageRequest_Read:
		page := storage.Page{Messages: int(r.Read.Messages), Bytes: int(r.Read.Bytes)}
		out, err := q.Read(c.ctx, now, string(r.Read.Queue), r.Read.After, page)
		if err == nil {
			w.envelopes(c, out)
		}
		return err
	case *wirepb.StorageRequest_Done:
		var done []storage.Done
		for _, p := range c.parts {
			for _, d := range p.GetDone().GetDone() {
				done = append(done, toDone(d))
			}
		}
		if err := q.Done(c.ctx, done); err != nil {
			return err
		}
	case *wirepb.StorageRequest_Depths:
		depths, err := q.Depths(c.ctx, c.names((*wirepb.StorageRequest).GetDepths))
		if err != nil {
			return err
		}
		n := &wirepb.Numbers{}
		for _, d := range depths {
			n.Numbers = append(n.Numbers, d.Messages, d.Bytes)
		}
		w.numbers(c, n.Numbers...)
		return nil
	case *wirepb.StorageRequest_Marks:
		values, err := q.Marks(c.ctx, c.names((*wirepb.StorageRequest).GetMarks))
		if err == nil {
			w.values(c, values)
		}
		return err
	case *wirepb.StorageRequest_Drop:
		names := c.names((*wirepb.StorageRequest).GetDrop)
		if len(names) != 1 {
			return errCall
		}
		n, err := q.Drop(c.ctx, names[0])
		if err == nil {
			w.numbers(c, n)
		}
		return err
	case *wirepb.StorageRequest_Purge:
		n, err := q.Purge(c.ctx, now, int(r.Purge.Limit))
		if err == nil {
			w.numbers(c, uint64(n))
		}
		return err
	}
	w.reply(c, &wirepb.StorageReply{}, false)
	return nil
}

var errCall = &sdk.Error{Kind: sdk.Invalid, Text: "malformed call"}

func (w *worker) append(c *call, q storage.Queues) error {
	var b storage.Batch
	for _, p := range c.parts {
		r := p.GetAppend()
		if r == nil {
			return errCall
		}
		var err error
		if b.Rows, err = wire.ToRows(b.Rows, r); err != nil {
			return &sdk.Error{Kind: sdk.Invalid, Err: err}
		}
		for _, m := range r.Marks {
			mark := storage.Mark{Key: string(m.Key), Value: m.Value}
			if mark.Value == nil && !m.Delete {
				mark.Value = []byte{}
			}
			b.Marks = append(b.Marks, mark)
		}
	}
	first := c.parts[0].GetAppend()
	b.Quota = storage.Quota{Messages: first.QuotaMessages, Bytes: first.QuotaBytes}
	out, err := q.Append(c.ctx, wire.ToTime(c.parts[0].Now), b)
	if err == nil {
		w.reply(c, &wirepb.StorageReply{Answer: &wirepb.StorageReply_Results{Results: wire.FromResults(out)}}, false)
	}
	return err
}

func toDone(d *wirepb.QueueDone) storage.Done {
	out := storage.Done{Queue: string(d.Queue), Cursor: d.Cursor}
	for i := 0; i+1 < len(d.Ranges); i += 2 {
		out.Ranges = append(out.Ranges, [2]uint64{d.Ranges[i], d.Ranges[i+1]})
	}
	return out
}

// names are the texts of all parts of a call.
func (c *call) names(of func(*wirepb.StorageRequest) *wirepb.Names) []string {
	var out []string
	for _, p := range c.parts {
		out = wire.Texts(out, of(p).GetNames())
	}
	return out
}

// envelopes answers rows, in parts.
func (w *worker) envelopes(c *call, rows []storage.Envelope) {
	for {
		e := &wirepb.Envelopes{}
		n := 0
		for n < len(rows) && (n == 0 || len(e.Payloads)+len(rows[n].Payload) <= wire.PartBytes) {
			wire.AppendEnvelope(e, &rows[n])
			n++
		}
		rows = rows[n:]
		w.reply(c, &wirepb.StorageReply{Answer: &wirepb.StorageReply_Envelopes{Envelopes: e}}, len(rows) > 0)
		if len(rows) == 0 {
			return
		}
	}
}

func (w *worker) numbers(c *call, n ...uint64) {
	w.reply(c, &wirepb.StorageReply{Answer: &wirepb.StorageReply_Numbers{Numbers: &wirepb.Numbers{Numbers: n}}}, false)
}

// values answers byte strings, in parts.
func (w *worker) values(c *call, values [][]byte) {
	for {
		n, size := 0, 0
		for n < len(values) && (n == 0 || size+len(values[n]) <= wire.PartBytes) {
			size += len(values[n]) + 8
			n++
		}
		part := wire.FromValues(values[:n])
		values = values[n:]
		w.reply(c, &wirepb.StorageReply{Answer: &wirepb.StorageReply_Values{Values: part}}, len(values) > 0)
		if len(values) == 0 {
			return
		}
	}
}
