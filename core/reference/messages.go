package reference

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/core/relay"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/storage"
)

func isNotFound(err error) bool { return errors.Is(err, account.ErrNotFound) }

// kindImport are the records by which messages are known again.
const kindImport = "reference-import"

// countLife is how long a device's number of messages is kept.
const countLife = 400 * 24 * time.Hour

const (
	inboxPrefix = "inbox:"
	batchRows   = 128
	batchBytes  = 4 << 20
)

var errAnswers = &sdk.Error{Kind: sdk.Corrupt, Text: "the storage did not answer what it was asked"}

func importKey(id string) storage.Key { return storage.Key{Kind: kindImport, ID: id} }

// state is where the numbering of messages is.
type state struct {
	// pending are the messages, by their row, of the batch that an interruption left
	// behind.
	pending map[string]numbered
	devices map[string]uint64 // their highest, by device
	device  string
	counter uint64 // last number given to device
}

// numbered is one message of the batch record.
type numbered struct {
	Row     string `json:"row"`
	Device  string `json:"device"`
	Counter uint64 `json:"n"`
}

// due is a message on its way.
type due struct {
	relay.Foreign
	name string
	// kept is until when it is remembered; zero for ever.
	kept time.Time
}

func (p *pass) messages(ctx context.Context) error {
	t := p.table("relay-queue")
	if err := p.resume(ctx); err != nil {
		return err
	}
	for after := ""; ; {
		names, err := p.Source.Inventory.Queues(ctx, after, 256)
		if err != nil {
			return err
		}
		if len(names) == 0 {
			break
		}
		for _, n := range names {
			if err := p.inbox(ctx, t, n); err != nil {
				return err
			}
		}
		after = names[len(names)-1]
	}
	all := Table{}
	// Also sees that the source is still the same.
	err := p.feed("relay-queue").each(ctx, func(r *storage.Record) error {
		c, _ := row[countRow](r)
		all.Rows += c.Rows
		return nil
	})
	if err != nil {
		return err
	}
	if p.write {
		if err := p.dir.Commit(ctx, p.now, []storage.Write{{Key: importKey("batch"), Expect: storage.AnyVersion}}); err != nil {
			return err
		}
	}
	if all.Rows > t.Rows {
		t.leftOut("its inbox has a name that no device can have", all.Rows-t.Rows, "")
	}
	return nil
}

// inbox takes the messages of one device.
func (p *pass) inbox(ctx context.Context, t *Table, queue string) error {
	device, ok := strings.CutPrefix(queue, inboxPrefix)
	var why string
	switch {
	case !ok:
		why = "it is in no device's inbox"
	case strings.Contains(device, "@"):
		why = "it is for a device of another domain"
	default:
		var err error
		if why, err = p.member(ctx, device); err != nil {
			return err
		}
	}
	if why != "" {
		d, err := p.Source.Queues.Depths(ctx, []string{queue})
		if err == nil && len(d) == 1 && d[0].Messages > 0 {
			t.leftOut(why, d[0].Messages, named(queue))
		}
		return err
	}
	if err := p.number(ctx, device); err != nil {
		return err
	}
	for after := uint64(0); ; {
		rows, err := p.Source.Queues.Read(ctx, p.now, queue, after, storage.Page{Messages: min(batchRows, max(p.Traits.Batch, 1)), Bytes: batchBytes})
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			return nil
		}
		batch := make([]due, 0, len(rows))
		for i := range rows {
			after = rows[i].Position
			p.Progress.rows.Add(1)
			m, name, why := p.message(&rows[i])
			if why != "" {
				t.left(why, name)
				continue
			}
			batch = append(batch, m)
		}
		if err := p.take(ctx, t, device, batch); err != nil {
			return err
		}
	}
}

// message reads one row of a queue.
func (p *pass) message(e *storage.Envelope) (d due, name, why string) {
	m, ok := parseMessage(e.Payload)
	if !ok {
		return d, hex.EncodeToString(e.ID[:]), whyBroken
	}
	name = named(m.ID)
	d = due{name: name}
	d.Row, d.Time, d.Expires = e.ID, p.now, p.now.Add(p.TTL)
	if m.Due != nil && *m.Due >= 0 && *m.Due < p.now.UnixMicro() {
		d.Time = time.UnixMicro(*m.Due).UTC()
	}
	if m.Expires != nil {
		d.kept = time.UnixMicro(*m.Expires).UTC()
		switch {
		case !d.kept.After(p.now):
			return d, name, "it has expired"
		case d.kept.Before(d.Expires):
			d.Expires = d.kept
		}
	}
	if m.Length != len(m.frame) {
		return d, name, "it is longer than 16 MiB"
	}
	f, n, err := ccp.Decode(m.frame)
	switch {
	case err != nil || n != len(m.frame):
		return d, name, "it is no whole frame"
	case !f.Type.Deliverable() || f.Type.Media():
		return d, name, "frames of its type do not wait for a device"
	case f.Type.Control() && ccp.ValidControl(f.Payload) != nil:
		return d, name, "its frame is damaged"
	case len(f.Payload) > ccp.MaxBody:
		return d, name, "its frame is too long"
	}
	d.Kind, d.Channel, d.Body = f.Type, f.Channel, f.Payload
	return d, name, ""
}

// resume reads what an interrupted import was about to store.
func (p *pass) resume(ctx context.Context) error {
	p.state = state{pending: map[string]numbered{}, devices: map[string]uint64{}}
	r, err := p.get(ctx, importKey("batch"))
	if err != nil || r.Version == 0 {
		return err
	}
	var list []numbered
	if err := json.Unmarshal(r.Value, &list); err != nil {
		return &sdk.Error{Kind: sdk.Corrupt, Text: "the record of the interrupted import cannot be read", Err: err}
	}
	for _, n := range list {
		p.state.pending[n.Row] = n
		p.state.devices[n.Device] = max(p.state.devices[n.Device], n.Counter)
	}
	return nil
}

func (p *pass) get(ctx context.Context, k storage.Key) (storage.Record, error) {
	r, err := p.dir.Get(ctx, p.now, []storage.Key{k})
	if err == nil && len(r) != 1 {
		err = errAnswers
	}
	if err != nil {
		return storage.Record{}, err
	}
	return r[0], nil
}

// number begins with a device: its messages are numbered from the last one on.
func (p *pass) number(ctx context.Context, device string) error {
	r, err := p.get(ctx, importKey("queue/"+device))
	if err != nil {
		return err
	}
	p.state.device, p.state.counter = device, p.state.devices[device]
	if r.Version == 0 {
		return nil
	}
	var n uint64
	if err := json.Unmarshal(r.Value, &n); err != nil {
		return &sdk.Error{Kind: sdk.Corrupt, Text: "a record of an earlier import cannot be read", Err: err}
	}
	p.state.counter = max(p.state.counter, n)
	return nil
}

// log names the messages that a device got from imports.
func log(device string) (out [8]byte) {
	sum := sha256.Sum256([]byte("commucat/reference/1\x00" + device))
	copy(out[:], sum[:])
	return out
}

// take stores messages that are not there yet, in order. What it is about to store is
// noted first, so that an interruption gives no message two numbers.
func (p *pass) take(ctx context.Context, t *Table, device string, batch []due) error {
	if len(batch) == 0 {
		return nil
	}
	keys := make([]storage.Key, len(batch))
	for i := range batch {
		keys[i] = importKey("row/" + hex.EncodeToString(batch[i].Row[:]))
	}
	have, err := p.dir.Get(ctx, p.now, keys)
	if err != nil {
		return err
	}
	if len(have) != len(keys) {
		return errAnswers
	}
	var list []numbered
	var rows []storage.Append
	var from []*due
	for i := range batch {
		m := &batch[i]
		if have[i].Version != 0 {
			t.present()
			continue
		}
		n, known := p.state.pending[hex.EncodeToString(m.Row[:])]
		if !known || n.Device != device {
			p.state.counter++
			n = numbered{hex.EncodeToString(m.Row[:]), device, p.state.counter}
		}
		m.ID = ccp.MessageID{Log: log(device), Counter: n.Counter}
		a, err := p.Sealer.Seal(device, &m.Foreign)
		if err != nil {
			t.left("its frame is damaged", m.name)
			continue
		}
		list = append(list, n)
		rows, from = append(rows, a), append(from, m)
	}
	if len(rows) == 0 {
		return nil
	}
	return p.keep(ctx, t, list, rows, from)
}

func (p *pass) keep(ctx context.Context, t *Table, list []numbered, rows []storage.Append, from []*due) error {
	if !p.write {
		for range rows {
			t.carried()
		}
		return nil
	}
	for _, n := range list {
		p.state.pending[n.Row] = n
	}
	if err := p.note(ctx); err != nil {
		return err
	}
	out, err := p.Target.Queues.Append(ctx, p.now, storage.Batch{Rows: rows})
	if err != nil {
		return err
	}
	if len(out) != len(rows) {
		return errAnswers
	}
	b, err := json.Marshal(p.state.counter)
	if err != nil {
		return err
	}
	writes := []storage.Write{{Key: importKey("queue/" + p.state.device), Expect: storage.AnyVersion, Value: b, Expires: p.now.Add(countLife)}}
	for i := range out {
		delete(p.state.pending, list[i].Row)
		if out[i].Err != nil {
			t.left("the storage refused it", from[i].name)
			continue
		}
		t.carried()
		writes = append(writes, storage.Write{Key: importKey("row/" + list[i].Row), Expect: storage.AnyVersion, Value: []byte{}, Expires: from[i].kept})
	}
	return p.dir.Commit(ctx, p.now, writes)
}

// note remembers the numbers of what is about to be stored, and of what an interruption
// left behind and has not come again.
func (p *pass) note(ctx context.Context) error {
	list := make([]numbered, 0, len(p.state.pending))
	for _, row := range slices.Sorted(maps.Keys(p.state.pending)) {
		list = append(list, p.state.pending[row])
	}
	b, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return p.dir.Commit(ctx, p.now, []storage.Write{{Key: importKey("batch"), Expect: storage.AnyVersion, Value: b}})
}
