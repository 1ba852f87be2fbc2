package audit

import (
	"fmt"
	"strings"
)

// nearly is the tenths of its limit at which a spool counts as one that takes no more.
const nearly = 9

// Ready is nil as long as the spool takes records. A ledger that is slow or away is in
// States and takes nothing out of service, until nine tenths of the spool wait for it; then,
// and while the local disk refuses, the error says why, and names every ledger that is behind.
func (r *Recorder) Ready() error {
	if _, _, err := r.trouble.now(); err != nil {
		return fmt.Errorf("the audit spool takes no records: %w%s", err, r.behind())
	}
	if size := r.spool.Size(); 10*size >= nearly*int64(r.o.Spool) {
		return fmt.Errorf("the audit spool is %d%% full%s; %s", 100*size/int64(r.o.Spool), r.behind(), remedy)
	}
	return nil
}

// behind lists the ledgers that lack records.
func (r *Recorder) behind() string {
	head := r.spool.Head().Seq
	var b strings.Builder
	for _, f := range r.sinks {
		s := f.state(head)
		if s.Behind == 0 {
			continue
		}
		fmt.Fprintf(&b, "; ledger %s lacks %d records", s.Name, s.Behind)
		if s.Err != nil {
			fmt.Fprintf(&b, ": %v", s.Err)
		}
	}
	return b.String()
}
