package reference

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/core/relay"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

// Options are an import's.
type Options struct {
	// Source shows the reference's database. Nothing of it is changed.
	Source storage.Store
	// Target is this relay's storage; no relay runs on it meanwhile.
	Target storage.Store
	Traits storage.Traits
	// Accounts makes the relay's accounts over a directory: that of the target, or one
	// that only pretends to write.
	Accounts func(storage.Directory) *account.Store
	// Sealer seals messages with the relay's key.
	Sealer *relay.Sealer
	// Domain is the relay's; accounts of others are left out.
	Domain string
	// TTL is the longest that a message may still wait.
	TTL time.Duration
	// DryRun only reports.
	DryRun bool
	Clock  func() time.Time
	// Progress may be nil.
	Progress *Progress
}

// ErrConflict answers an import into a relay that holds other records in the place of
// what would be imported; the report names them. Nothing was written.
var ErrConflict = errors.New("this relay has other records in the place of some; nothing was imported")

// Run imports. The report is there whenever reading has come to its end.
func Run(ctx context.Context, o Options) (*Report, error) {
	if o.Source.Directory == nil || o.Source.Queues == nil || o.Source.Inventory == nil {
		return nil, errors.New("the source shows no tables")
	}
	if o.Target.Directory == nil || o.Target.Queues == nil {
		return nil, errors.New("the target keeps no accounts and messages")
	}
	if o.Progress == nil {
		o.Progress = new(Progress)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	plan, err := newPass(ctx, &o, false)
	if err == nil {
		err = plan.run(ctx)
	}
	if err != nil {
		return nil, err
	}
	if plan.report.Conflicts > 0 {
		return plan.report, ErrConflict
	}
	if plan.report.DryRun = o.DryRun; o.DryRun {
		return plan.report, nil
	}
	real, err := newPass(ctx, &o, true)
	if err != nil {
		return nil, err
	}
	real.opened = plan.opened
	if err := real.run(ctx); err != nil {
		return nil, err
	}
	return real.report, nil
}

// pass is one reading of the source.
type pass struct {
	*Options
	write    bool
	now      time.Time
	dir      storage.Directory
	accounts *account.Store
	kinds    []string
	report   *Report
	opened   uint64 // the version of every record
	state    state
}

func newPass(ctx context.Context, o *Options, write bool) (*pass, error) {
	p := &pass{Options: o, write: write, now: o.Clock(), dir: o.Target.Directory, report: new(Report)}
	if !write {
		p.dir = &pretended{Directory: o.Target.Directory, records: map[storage.Key]storage.Record{}}
	}
	p.accounts = o.Accounts(p.dir)
	var err error
	p.kinds, err = o.Source.Inventory.Kinds(ctx, "", 1000)
	return p, err
}

func (p *pass) table(kind string) *Table {
	for _, t := range p.report.Tables {
		if t.Name == kind {
			return t
		}
	}
	t := &Table{Name: kind}
	p.report.Tables = append(p.report.Tables, t)
	p.Progress.at(kind, p.write)
	return t
}

// run takes the tables in the order in which they need each other.
func (p *pass) run(ctx context.Context) error {
	for _, part := range []struct {
		kind string
		f    func(context.Context) error
	}{
		{"app-user", p.users},
		{"device-rotation-audit", p.rotations},
		{"device-key-event", p.events},
		{"user-blob", p.blobs},
		{"chat-group", p.groups},
		{"relay-queue", p.messages},
		{"friend-requests", p.requests},
	} {
		if !slices.Contains(p.kinds, part.kind) {
			continue
		}
		if err := part.f(ctx); err != nil {
			return fmt.Errorf("table %s: %w", part.kind, err)
		}
	}
	never := never()
	for _, kind := range slices.Sorted(maps.Keys(never)) {
		if !slices.Contains(p.kinds, kind) {
			continue
		}
		if err := p.count(ctx, kind, never[kind]); err != nil {
			return fmt.Errorf("table %s: %w", kind, err)
		}
	}
	return nil
}

// never are the tables of which nothing is taken over, and why.
func never() map[string]string {
	const federation = "this relay exchanges nothing with other relays"
	return map[string]string{
		"device-pairing":            "pairing codes can be guessed and live for minutes: make new ones",
		"device-pq-keys":            "nothing used them",
		"federated-friend-requests": federation,
		"federation-outbox":         federation,
		"federation-peer":           federation,
		"federation-peer-status":    federation,
		"idempotency":               "marks of deliveries between servers, which are done",
		"inbox-offset":              "nothing read them",
		"remote-user-cache":         "a cache",
		"server-secret":             "the relay has keys of its own; these lay in the database in clear",
		"session":                   "session tokens can be guessed: each device gets a new one when it comes",
	}
}

func (p *pass) count(ctx context.Context, kind, why string) error {
	t := p.table(kind)
	return p.feed(kind).each(ctx, func(r *storage.Record) error {
		c, bad := row[countRow](r)
		switch {
		case r.ID != "rows" || bad != "":
			t.left(why, named(split(r.ID)))
		case c.Rows > 0:
			t.leftOut(why, c.Rows, "")
		}
		return nil
	})
}

// outcome counts what became of a row.
func (p *pass) outcome(t *Table, o account.Outcome, name string) {
	switch {
	case o.Reason != "":
		if o.Detail != "" {
			name += " (" + named(o.Detail) + ")"
		}
		r := t.left(o.Reason, name)
		if o.Conflict {
			r.Conflict = true
			p.report.Conflicts++
		}
	case o.Present:
		t.present()
	default:
		t.carried()
		if o.Note != "" {
			t.note(o.Note, name)
		}
	}
}

// outcomes counts what became of rows that were stored together.
func (p *pass) outcomes(t *Table, out []account.Outcome, names []string, err error) error {
	if err != nil {
		return err
	}
	for i, o := range out {
		p.outcome(t, o, names[i])
	}
	return nil
}

// pile gathers what is stored together.
type pile[T any] struct {
	most  int
	store func(list []T, names []string) error
	list  []T
	names []string
}

func (l *pile[T]) add(v T, name string) error {
	if l.list, l.names = append(l.list, v), append(l.names, name); len(l.list) < l.most {
		return nil
	}
	return l.flush()
}

func (l *pile[T]) flush() error {
	if len(l.list) == 0 {
		return nil
	}
	err := l.store(l.list, l.names)
	l.list, l.names = l.list[:0], l.names[:0]
	return err
}

// feed reads one table in the order of its keys.
type feed struct {
	p     *pass
	kind  string
	after string
	page  []storage.Record
}

func (p *pass) feed(kind string) *feed { return &feed{p: p, kind: kind} }

const feedPage = 256

// peek is the next row, nil at the end; it stays until next.
func (f *feed) peek(ctx context.Context) (*storage.Record, error) {
	if len(f.page) > 0 {
		return &f.page[0], nil
	}
	page, err := f.p.Source.Directory.List(ctx, f.p.now, storage.Range{Kind: f.kind, After: f.after, Limit: feedPage})
	if err != nil || len(page) == 0 {
		return nil, err
	}
	for i := range page {
		switch r := &page[i]; {
		case r.ID <= f.after:
			return nil, &sdk.Error{Kind: sdk.Corrupt, Text: "the source is out of order"}
		case f.p.opened == 0:
			f.p.opened = r.Version
		case f.p.opened != r.Version:
			return nil, &sdk.Error{Kind: sdk.Unavailable, Text: "the connection to the source broke: begin again, what was imported is not imported twice"}
		}
		f.after = page[i].ID
	}
	f.page = page
	return &f.page[0], nil
}

func (f *feed) next(ctx context.Context) (*storage.Record, error) {
	r, err := f.peek(ctx)
	if r != nil {
		f.page = f.page[1:]
		f.p.Progress.rows.Add(1)
	}
	return r, err
}

// each gives take all rows that are left.
func (f *feed) each(ctx context.Context, take func(*storage.Record) error) error {
	for {
		r, err := f.next(ctx)
		if err != nil || r == nil {
			return err
		}
		if err := take(r); err != nil {
			return err
		}
	}
}

// pretended is a directory in which writes stay in memory.
type pretended struct {
	storage.Directory
	records map[storage.Key]storage.Record
}

// Get implements storage.Directory.
func (d *pretended) Get(ctx context.Context, now time.Time, keys []storage.Key) ([]storage.Record, error) {
	out, err := d.Directory.Get(ctx, now, keys)
	if err != nil {
		return nil, err
	}
	for i, k := range keys {
		if r, ok := d.records[k]; ok && i < len(out) {
			out[i] = r
		}
	}
	return out, nil
}

// Commit implements storage.Directory.
func (d *pretended) Commit(_ context.Context, _ time.Time, w []storage.Write) error {
	if err := storage.CheckWrites(w); err != nil {
		return err
	}
	for i := range w {
		if w[i].CheckOnly {
			continue
		}
		r := storage.Record{Key: w[i].Key, Value: w[i].Value, Expires: w[i].Expires}
		if w[i].Value != nil {
			r.Version = 1 << 32
		}
		d.records[w[i].Key] = r
	}
	return nil
}
