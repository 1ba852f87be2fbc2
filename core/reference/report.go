package reference

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// maxNamed is how many rows a report names for one reason.
const maxNamed = 20

// Report says what became of every table.
type Report struct {
	// DryRun says that nothing was written because nothing was to be.
	DryRun bool `json:"dry_run"`
	// Conflicts counts rows in whose place this relay holds another record. With one,
	// nothing was written.
	Conflicts uint64   `json:"conflicts"`
	Tables    []*Table `json:"tables"`
}

// Table is one table of the reference. Rows is the sum of the three others.
type Table struct {
	Name string `json:"table"`
	Rows uint64 `json:"rows"`
	// Carried were stored, Present were there already, Left are those left out.
	Carried uint64 `json:"carried"`
	Present uint64 `json:"present"`
	Left    uint64 `json:"left"`
	// Reasons say why rows were left out, Notes what was changed of others.
	Reasons []*Reason `json:"reasons,omitempty"`
	Notes   []*Reason `json:"notes,omitempty"`
}

// Reason is why rows were left out, or changed.
type Reason struct {
	Text string `json:"reason"`
	Rows uint64 `json:"rows"`
	// Conflict says that records of this relay stand in the way.
	Conflict bool `json:"conflict,omitempty"`
	// Names are those of the first twenty rows: ids and handles, nothing secret.
	Names []string `json:"names,omitempty"`
}

// add counts rows under a reason.
func add(list []*Reason, text string, rows uint64, name string) ([]*Reason, *Reason) {
	i := slices.IndexFunc(list, func(r *Reason) bool { return r.Text == text })
	if i < 0 {
		i = len(list)
		list = append(list, &Reason{Text: text})
	}
	r := list[i]
	r.Rows += rows
	if name != "" && len(r.Names) < maxNamed {
		r.Names = append(r.Names, name)
	}
	return list, r
}

func (t *Table) carried() { t.Rows++; t.Carried++ }

func (t *Table) present() { t.Rows++; t.Present++ }

func (t *Table) left(why, name string) *Reason { return t.leftOut(why, 1, name) }

func (t *Table) leftOut(why string, rows uint64, name string) (r *Reason) {
	t.Rows += rows
	t.Left += rows
	t.Reasons, r = add(t.Reasons, why, rows, name)
	return r
}

func (t *Table) note(text, name string) { t.Notes, _ = add(t.Notes, text, 1, name) }

// named shows an id: in quotes where it has anything unusual in it, and cut.
func named(parts ...string) string {
	out := ""
	for i, p := range parts {
		if p == "" {
			continue
		}
		if i > 0 {
			out += " "
		}
		const most = 80
		if len(p) > most {
			p = p[:most] + "…"
		}
		if q := fmt.Sprintf("%q", p); q[1:len(q)-1] != p {
			p = q
		}
		out += p
	}
	return out
}

// Progress is read by others while an import runs. The zero value is ready.
type Progress struct {
	mu      sync.Mutex
	table   string
	writing bool
	rows    atomic.Uint64
}

func (p *Progress) at(table string, writing bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.table, p.writing = table, writing
	p.rows.Store(0)
}

// Now says which table is being read, whether it is being stored, and how many rows it
// has come.
func (p *Progress) Now() (table string, writing bool, rows uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.table, p.writing, p.rows.Load()
}

// Carried is how many rows of each table were stored.
func (r *Report) Carried() map[string]uint64 {
	out := map[string]uint64{}
	for _, t := range r.Tables {
		if t.Carried > 0 {
			out[t.Name] = t.Carried
		}
	}
	return out
}
