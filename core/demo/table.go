package demo

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// Print writes the rows as a table.
func Print(w io.Writer, rows []Row) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "transport\tok\thandshake\tack p50\tmessages\tlost\toffline\tresumed\t")
	for _, r := range rows {
		fmt.Fprintf(t, "%s\t%s\t%.1f ms\t%.2f ms\t%d\t%d\t%s\t%s\t%s\n", r.Transport, yes(r.OK), r.HandshakeMS, r.RTTP50MS,
			r.Messages, r.Lost, yes(r.OfflineDelivered), yes(r.Resumed), r.Error)
	}
	return t.Flush()
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "NO"
}
