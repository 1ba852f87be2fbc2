package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/commucat/commucat/core/server"
)

func (a *app) auditCommand() *cobra.Command {
	return group("audit", "The relay's audit chain", a.verifyCommand(), a.proveCommand(), a.checkProofCommand(), a.checkpointCommand())
}

// auditOptions are the relay's, without a log.
func (a *app) auditOptions(f *relayFlags) (server.Options, error) {
	cfg, env, data, err := f.load()
	if err != nil {
		return server.Options{}, err
	}
	return a.relayOptions(cfg, env, data, slog.New(slog.DiscardHandler)), nil
}

func (a *app) verifyCommand() *cobra.Command {
	var (
		f    relayFlags
		name string
	)
	c := &cobra.Command{
		Use:   "verify [--data DIR] [--config FILE] [--ledger NAME]",
		Short: "Check the audit chain of a stopped relay; names the first broken record",
		Args:  exactly(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			opt, err := a.auditOptions(&f)
			if err != nil {
				return err
			}
			names := server.VerifiedLedgers(opt)
			if name != "" || len(names) == 0 {
				names = []string{name}
			}
			for _, n := range names {
				if err := a.verifyLedger(c.Context(), opt, n); err != nil {
					return err
				}
			}
			return nil
		},
	}
	f.add(c)
	c.Flags().StringVar(&name, "ledger", "", "check this ledger alone (default: all that keep records)")
	return c
}

func (a *app) verifyLedger(ctx context.Context, opt server.Options, name string) error {
	var told int64
	rep, err := server.VerifyAudit(ctx, opt, name, func(records int64) {
		if records-told >= 1_000_000 {
			told = records
			a.say("%s: %d records", name, records)
		}
	})
	if err != nil {
		return fmt.Errorf("ledger %s: %w", name, err)
	}
	if a.json {
		return a.emit(struct {
			Ledger  string    `json:"ledger"`
			Records uint64    `json:"records"`
			Last    uint64    `json:"last_seq"`
			First   time.Time `json:"first"`
			Until   time.Time `json:"last"`
			Head    string    `json:"head"`
			Behind  uint64    `json:"behind"`
		}{name, rep.Records, rep.Head.Seq, rep.First, rep.Last, fmt.Sprintf("%x", rep.Head.Hash), rep.Behind})
	}
	waiting := ""
	if rep.Behind > 0 {
		waiting = fmt.Sprintf("; %d more wait for it in the spool", rep.Behind)
	}
	_, err = fmt.Fprintf(a.out, "%s: %d records from %s to %s, unbroken%s\n", name, rep.Records, rep.First.Format(time.RFC3339), rep.Last.Format(time.RFC3339), waiting)
	return err
}
