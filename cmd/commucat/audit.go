package main

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/commucat/commucat/core/server"
)

func (a *app) auditCommand() *cobra.Command {
	var f relayFlags
	verify := &cobra.Command{
		Use:   "verify [--data DIR] [--config FILE]",
		Short: "Check the audit chain of a stopped relay; names the first broken record",
		Args:  exactly(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, env, data, err := f.load()
			if err != nil {
				return err
			}
			rep, err := server.VerifyAudit(c.Context(), a.relayOptions(cfg, env, data, slog.New(slog.DiscardHandler)))
			if err != nil {
				return err
			}
			if a.json {
				return a.emit(struct {
					Records uint64    `json:"records"`
					Last    uint64    `json:"last_seq"`
					First   time.Time `json:"first"`
					Until   time.Time `json:"last"`
					Head    string    `json:"head"`
				}{rep.Records, rep.Head.Seq, rep.First, rep.Last, fmt.Sprintf("%x", rep.Head.Hash)})
			}
			_, err = fmt.Fprintf(a.out, "%d records from %s to %s, unbroken\n", rep.Records, rep.First.Format(time.RFC3339), rep.Last.Format(time.RFC3339))
			return err
		},
	}
	f.add(verify)
	return group("audit", "The relay's audit chain", verify)
}
