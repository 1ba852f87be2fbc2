package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/commucat/commucat/core/reference"
	"github.com/commucat/commucat/core/server"
)

func (a *app) migrateCommand() *cobra.Command {
	return group("migrate", "Take over what another program kept", a.importReferenceCommand())
}

// referenceStorage is the plugin that shows the reference's database.
const referenceStorage = "reference"

func (a *app) importReferenceCommand() *cobra.Command {
	var (
		f   relayFlags
		dry bool
	)
	c := &cobra.Command{
		Use:   "import-reference [--dry-run] [--data DIR] [--config FILE]",
		Short: "Import accounts, groups and waiting messages of the reference server into a stopped relay",
		Long: "Import accounts, devices, friend lists, groups and waiting messages from the PostgreSQL\n" +
			"database of the reference server into this relay's storage. Where it is stands in\n" +
			"[plugin.reference]. It is read in one transaction and never changed.\n\n" +
			"The report says for each table what was carried, what was there already and what was left\n" +
			"out, and why. Given again, the command imports nothing twice. Where the relay holds other\n" +
			"records in the place of some, it names them and changes nothing.",
		Args: exactly(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, env, data, err := f.load()
			if err != nil {
				return err
			}
			opt := a.relayOptions(cfg, env, data, slog.New(slog.DiscardHandler))
			if a.verbose {
				opt.Log = a.log()
			}
			return a.importReference(c.Context(), opt, dry)
		},
	}
	f.add(c)
	c.Flags().BoolVar(&dry, "dry-run", false, "report only, and change nothing")
	return c
}

func (a *app) importReference(ctx context.Context, opt server.Options, dry bool) error {
	p := new(reference.Progress)
	done, shown := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(shown)
		a.importProgress(p, done)
	}()
	rep, err := server.ImportReference(ctx, opt, referenceStorage, dry, p)
	close(done)
	<-shown
	if rep == nil {
		return err
	}
	if a.json {
		return errors.Join(a.emit(rep), err)
	}
	return errors.Join(a.showImport(rep), err)
}

// importProgress tells how far an import is, until done.
func (a *app) importProgress(p *reference.Progress, done <-chan struct{}) {
	a.progress(done, func(bar bool) {
		table, writing, rows := p.Now()
		what := "checking"
		if writing {
			what = "importing"
		}
		switch {
		case bar:
			fmt.Fprintf(a.err, "\r%-9s %s, %d rows\x1b[K", what, tableName(table), rows)
		case a.json:
			// A closed pipe ends no import: the result tells.
			_ = a.emit(struct {
				Event string `json:"event"`
				Table string `json:"table"`
				Rows  uint64 `json:"rows"`
			}{what, table, rows})
		default:
			a.say("%s: %s, %d rows", what, tableName(table), rows)
		}
	})
}

func (a *app) showImport(rep *reference.Report) error {
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "table\trows\tcarried\tthere already\tleft out\t")
	for _, t := range rep.Tables {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t\n", tableName(t.Name), t.Rows, t.Carried, t.Present, t.Left)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, t := range rep.Tables {
		for _, list := range [][]*reference.Reason{t.Reasons, t.Notes} {
			for _, r := range list {
				what := ""
				if r.Conflict {
					what = "CONFLICT, "
				}
				fmt.Fprintf(a.out, "%s: %s%d × %s", tableName(t.Name), what, r.Rows, r.Text)
				if len(r.Names) > 0 {
					more := ""
					if r.Rows > uint64(len(r.Names)) {
						more = ", …"
					}
					fmt.Fprintf(a.out, ": %s%s", strings.Join(r.Names, ", "), more)
				}
				fmt.Fprintln(a.out)
			}
		}
	}
	if rep.DryRun {
		a.say("nothing was changed: this was a dry run")
	}
	return nil
}

// tableName is a table's name in the reference's database; kinds of records have no _.
func tableName(kind string) string { return strings.ReplaceAll(kind, "-", "_") }
