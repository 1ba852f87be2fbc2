package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/commucat/commucat/core/api"
	"github.com/commucat/commucat/core/config"
	"github.com/commucat/commucat/core/doctor"
	"github.com/commucat/commucat/core/pluginhost"
	"github.com/commucat/commucat/core/server"
)

func (a *app) doctorCommand() *cobra.Command {
	var f relayFlags
	c := &cobra.Command{
		Use:   "doctor [--config FILE] [--data DIR]",
		Short: "Say what is misconfigured, weak or missing, and the command that mends it",
		Long: "Look at the configuration, the files, the machine and, where it runs, the relay. Nothing is\n" +
			"changed. Ends with 1 if something is wrong; what is only weak costs a promise and is named.",
		Args: exactly(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			report := doctor.Run(c.Context(), a.patient(&f))
			var err error
			if a.json {
				err = a.emit(report)
			} else {
				err = report.Print(a.out)
			}
			if err == nil && !report.OK {
				err = silent{exitFailed}
			}
			return err
		},
	}
	f.add(c)
	return c
}

// patient is what the doctor looks at.
func (a *app) patient(f *relayFlags) doctor.Options {
	cfg, env, data, err := f.load()
	if data == "" {
		if data = f.data; data == "" {
			data, _ = server.DefaultData(os.Getenv) // the configuration's error is said
		}
	}
	opt := doctor.Options{Config: cfg, ConfigError: err, Data: data, Layout: server.Layout}
	if err != nil {
		opt.Config, cfg = nil, config.Default()
	}
	opt.Verify = func(ctx context.Context) (uint64, error) {
		o := a.relayOptions(cfg, env, data, slog.New(slog.DiscardHandler))
		var records uint64
		for _, name := range server.VerifiedLedgers(o) {
			rep, err := server.VerifyAudit(ctx, o, name, nil)
			if err != nil {
				return records, fmt.Errorf("ledger %s: %w", name, err)
			}
			records = rep.Records
		}
		return records, nil
	}
	socket := string(cfg.Admin.Socket)
	if socket == "" {
		socket = filepath.Join(data, "admin.sock")
	}
	opt.Relay = func(ctx context.Context) (*doctor.Status, error) {
		cl := api.NewClient(socket)
		st, err := relayStatus(ctx, cl)
		if err != nil || st == nil {
			return nil, err
		}
		rows, err := pluginStates(ctx, cl)
		for _, p := range rows {
			st.Plugins = append(st.Plugins, doctor.Plugin{
				Name: p.Name, Kind: p.Kind, State: string(p.State), Error: p.Error, Degraded: p.Degraded,
				Down: p.State == pluginhost.Parked || p.State == pluginhost.Backoff,
			})
		}
		return st, err
	}
	return opt
}

// relayStatus asks the running relay; nil when none runs.
func relayStatus(ctx context.Context, cl *api.Client) (*doctor.Status, error) {
	b, err := cl.Status(ctx)
	if errors.Is(err, api.ErrNotRunning) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var in struct {
		Version string            `json:"version"`
		Failed  map[string]string `json:"failed"`
		Relay   struct {
			Sessions  int               `json:"sessions"`
			Degraded  map[string]string `json:"degraded"`
			Listeners []server.Listener `json:"listeners"`
		} `json:"relay"`
	}
	if err := json.Unmarshal(b, &in); err != nil {
		return nil, err
	}
	out := &doctor.Status{Version: in.Version, Failed: in.Failed, Degraded: in.Relay.Degraded, Sessions: in.Relay.Sessions}
	for _, l := range in.Relay.Listeners {
		out.Listeners = append(out.Listeners, doctor.Listener{Transport: l.Transport, Address: l.Address, Network: l.Network, Web: l.Web})
	}
	return out, nil
}
