package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/commucat/commucat/core/server"
	"github.com/commucat/commucat/core/transfer"
)

func (a *app) storageCommand() *cobra.Command {
	return group("storage", "Where the relay keeps accounts and messages", a.storageCopyCommand())
}

func (a *app) storageCopyCommand() *cobra.Command {
	var (
		f        relayFlags
		from, to string
	)
	c := &cobra.Command{
		Use:   "copy --from NAME --to NAME [--data DIR] [--config FILE]",
		Short: "Copy a stopped relay's accounts and messages into another storage",
		Long: "Copy a stopped relay's accounts and messages into another storage, read both and\n" +
			"compare. The backend's keys stand in [storage], those of the other in [plugin.NAME].\n\n" +
			"The target must be empty. A copy that was interrupted goes on when the command is\n" +
			"given again. Nothing in the source is changed.",
		Args: exactly(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			if from == "" || to == "" {
				return usageError{errors.New("name both storages, for example --from sqlite --to postgres")}
			}
			cfg, env, data, err := f.load()
			if err != nil {
				return err
			}
			opt := a.relayOptions(cfg, env, data, slog.New(slog.DiscardHandler))
			if a.verbose {
				opt.Log = a.log()
			}
			return a.storageCopy(c.Context(), opt, from, to)
		},
	}
	f.add(c)
	c.Flags().StringVar(&from, "from", "", "storage that has the data")
	c.Flags().StringVar(&to, "to", "", "storage that gets it")
	return c
}

// copied is the result of a copy.
type copied struct {
	From    string `json:"from"`
	To      string `json:"to"`
	Resumed bool   `json:"resumed"`
	transfer.Counts
	Digest  string `json:"digest"`
	Seconds string `json:"seconds"`
}

func (a *app) storageCopy(ctx context.Context, opt server.Options, from, to string) error {
	p := new(transfer.Progress)
	done := make(chan struct{})
	shown := make(chan struct{})
	go func() {
		defer close(shown)
		a.copyProgress(p, done)
	}()
	began := time.Now()
	rep, err := server.CopyStorage(ctx, opt, from, to, p)
	close(done)
	<-shown
	if err != nil {
		return err
	}
	took := time.Since(began)
	if a.json {
		return a.emit(copied{from, to, rep.Resumed, rep.Counts, fmt.Sprintf("%x", rep.Digest), fmt.Sprintf("%.1f", took.Seconds())})
	}
	_, err = fmt.Fprintf(a.out, "%d records, %d marks and %d messages in %d queues, the same in both: sha256 %x\n",
		rep.Records, rep.Marks, rep.Messages, rep.Queues, rep.Digest)
	a.say("took %s; now set storage.backend = %q and start the relay", took.Round(100*time.Millisecond), to)
	return err
}

// copyProgress shows how far a copy is, until done.
func (a *app) copyProgress(p *transfer.Progress, done <-chan struct{}) {
	a.progress(done, func(bar bool) { a.showCopy(p, bar) })
}

// progress shows how far something is, until done: a bar on a terminal, else a JSON line
// or a sentence now and then.
func (a *app) progress(done <-chan struct{}, show func(bar bool)) {
	bar := onTerminal(a.err)
	every := 5 * time.Second
	if bar {
		every = 200 * time.Millisecond
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-done:
			if bar {
				fmt.Fprint(a.err, "\r\x1b[K")
			}
			return
		case <-tick.C:
			show(bar)
		}
	}
}

func (a *app) showCopy(p *transfer.Progress, bar bool) {
	n, all := p.Counts(), p.Queues()
	what := "copying"
	if p.Checking() {
		what = "checking"
	}
	switch {
	case bar:
		const width = 30
		filled := 0
		if all > 0 {
			filled = int(width * min(n.Queues, all) / all)
		}
		fmt.Fprintf(a.err, "\r%-8s [%s%s] %d of %d queues, %d messages\x1b[K", what,
			strings.Repeat("#", filled), strings.Repeat(".", width-filled), n.Queues, all, n.Messages)
	case a.json:
		// A closed pipe ends no copy: the result tells.
		_ = a.emit(struct {
			Event string `json:"event"`
			Of    uint64 `json:"all_queues"`
			transfer.Counts
		}{what, all, n})
	default:
		a.say("%s: %d of %d queues, %d messages", what, n.Queues, all, n.Messages)
	}
}

// onTerminal says whether somebody looks at w.
func onTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
