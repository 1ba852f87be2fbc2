package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/commucat/commucat/core/api"
	"github.com/commucat/commucat/core/pluginhost"
	"github.com/commucat/commucat/core/server"
)

// relayView is the answer to /v1/status as far as people want to see it.
type relayView struct {
	Version string            `json:"version"`
	Uptime  int64             `json:"uptime_seconds"`
	Ready   bool              `json:"ready"`
	Failed  map[string]string `json:"failed"`
	Relay   struct {
		Domain    string            `json:"domain"`
		Sessions  int               `json:"sessions"`
		Opening   int               `json:"opening"`
		Listeners []server.Listener `json:"listeners"`
		Ledgers   []server.Ledger   `json:"ledgers"`
		Degraded  map[string]string `json:"degraded"`
	} `json:"relay"`
}

func (a *app) statusCommand() *cobra.Command {
	return a.operator(&cobra.Command{
		Use: "status", Short: "Show the running relay: whether it is ready, what is degraded, how far its ledgers are",
		Long: "Show the running relay: readiness, sessions, listeners, plugins, how far each ledger is, and what does\n" +
			"not work ('nodes': the other nodes are not reached). 'commucat doctor' says what to do about it.",
		Args: exactly(0, ""),
	}, func(ctx context.Context, cl *api.Client, _ []string) error {
		raw, err := cl.Status(ctx)
		if err != nil {
			return err
		}
		plugins, err := pluginStates(ctx, cl)
		if err != nil {
			return err
		}
		if a.json {
			return a.emit(struct {
				Status  json.RawMessage    `json:"status"`
				Plugins []pluginhost.State `json:"plugins"`
			}{raw, plugins})
		}
		var v relayView
		if err := json.Unmarshal(raw, &v); err != nil {
			return err
		}
		return v.print(a.out, plugins)
	})
}

func (v relayView) print(w io.Writer, plugins []pluginhost.State) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		text := strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " ")
		fmt.Fprintf(t, "%s\t%s\n", name, text)
	}
	state := "ready"
	if !v.Ready {
		state = "not ready"
	}
	row("relay", "%s, %s, version %s, up %v", v.Relay.Domain, state, v.Version, time.Duration(v.Uptime)*time.Second)
	row("sessions", "%d, and %d being opened", v.Relay.Sessions, v.Relay.Opening)
	for _, l := range v.Relay.Listeners {
		row("listener "+l.Transport, "%s/%s", l.Network, l.Address)
	}
	for _, p := range plugins {
		row(p.Kind+" "+p.Name, "plugin %s, %d restarts %s", p.State, p.Restarts, p.Error)
	}
	for _, l := range v.Relay.Ledgers {
		row("ledger "+l.Name, "%d records behind", l.Behind)
	}
	for _, name := range slices.Sorted(maps.Keys(v.Failed)) {
		row(name, "not ready: %s", v.Failed[name])
	}
	for _, name := range slices.Sorted(maps.Keys(v.Relay.Degraded)) {
		row(name, "degraded: %s", v.Relay.Degraded[name])
	}
	return t.Flush()
}
