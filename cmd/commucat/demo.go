package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/commucat/commucat/core/config"
	"github.com/commucat/commucat/core/demo"
	"github.com/commucat/commucat/core/server"
)

func (a *app) demoCommand() *cobra.Command {
	var (
		transports string
		messages   int
	)
	c := &cobra.Command{
		Use:   "demo [--transports a,b] [--messages N]",
		Short: "Show a relay and two devices on this machine, through every transport",
		Long: "Start a relay on a free loopback port with a data folder that is thrown away, and let two\n" +
			"devices talk through each transport: handshake, messages both ways, delivery to a device\n" +
			"that was away, and resumption after the connections are cut. Ends with 1 if a row failed.",
		Args: exactly(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			if messages < 1 {
				return usageError{errors.New("--messages: at least one each way")}
			}
			return a.demo(c.Context(), transports, messages)
		},
	}
	c.Flags().StringVar(&transports, "transports", "", "comma-separated transports (default: all)")
	c.Flags().IntVar(&messages, "messages", 1000, "messages each way")
	return c
}

func (a *app) demo(ctx context.Context, list string, messages int) (err error) {
	if list == "" {
		list = strings.Join(builtIn(), ",")
	}
	ds, err := chosen(list)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "commucat-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	st, err := set(ctx, dir, ds)
	if st != nil {
		defer st.close()
	}
	if err != nil {
		return err
	}
	env := config.Env{Plugins: known()}
	cfg, err := config.Parse("demo.toml", []byte("[server]\nlisten = [\"127.0.0.1:0\"]\ndrain = \"1s\"\n"+st.tables.String()), env)
	if err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	if a.verbose {
		log = slog.New(slog.NewTextHandler(a.err, nil))
	}
	s, err := server.New(ctx, a.relayOptions(cfg, env, dir, log))
	if err != nil {
		return err
	}
	run, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- s.Run(run) }()
	defer func() {
		stop()
		err = errors.Join(err, <-ended)
	}()
	ways, err := st.ways(ctx, s.Ready().Admin)
	if err != nil {
		return err
	}
	limit := time.Minute
	if st.tor != nil {
		limit = 3 * time.Minute
	}
	rows, err := demo.Run(ctx, demo.Options{
		Ways: ways, Messages: messages, Timeout: limit,
		Row: func(r demo.Row) {
			if a.json {
				_ = a.emit(r) // what cannot be written shows in the exit code
			} else {
				a.say("%s: done", r.Transport)
			}
		},
	})
	if err != nil {
		return err
	}
	for _, r := range st.absent {
		rows = append(rows, r)
		if a.json {
			_ = a.emit(r) // what cannot be written shows in the exit code
		}
	}
	if !a.json {
		if err := demo.Print(a.out, rows); err != nil {
			return err
		}
	}
	for _, r := range rows {
		if !r.OK {
			return silent{exitFailed}
		}
	}
	return nil
}
