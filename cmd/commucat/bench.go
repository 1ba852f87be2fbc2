package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/commucat/commucat/core/api"
	"github.com/commucat/commucat/core/bench"
	"github.com/commucat/commucat/sdk/client"
)

// benchConfig widens the limits that protect a relay from strangers: here every
// client comes from one address.
const benchConfig = `[server]
listen = ["127.0.0.1:0"]
drain = "1s"
[limits]
new_contacts = 1000000
handshake_rate = 6000000
handshake_burst = 100000
pending = 20000
pending_per_source = 20000
http_rate = 1000000
queue_messages = 1000000
queue_bytes = "4GiB"
sessions = 100000
[log]
level = "error"
`

func (a *app) benchCommand() *cobra.Command {
	var (
		cases, transport, out string
		o                     bench.Options
	)
	c := &cobra.Command{
		Use:   "bench [--cases a,b] [--transport T]",
		Short: "Measure a relay on this machine",
		Long:  "Start a fresh relay for each case, load it, and report rates, percentiles and CPU time.\n\nCases: " + strings.Join(bench.Names(), ", "),
		Args:  exactly(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			ds, err := chosen(transport)
			if err != nil {
				return err
			}
			if len(ds) != 1 {
				return usageError{errors.New("--transport: name one transport to load")}
			}
			for name, n := range map[string]int{
				"size": o.Size, "clients": o.Clients, "rate": o.Rate, "members": o.Members, "messages": o.Messages,
				"sessions": o.Sessions, "duration": int(o.Duration),
			} {
				if n < 1 {
					return usageError{fmt.Errorf("--%s: must be more than nothing", name)}
				}
			}
			if o.Size > client.MaxBody {
				return usageError{fmt.Errorf("--size: a message holds %d bytes at most", client.MaxBody)}
			}
			for name := range strings.SplitSeq(cases, ",") {
				if !slices.Contains(bench.Names(), strings.TrimSpace(name)) {
					return usageError{fmt.Errorf("there is no case %q, but %s", name, strings.Join(bench.Names(), ", "))}
				}
			}
			if os.Getenv("GOGC") == "" {
				// Its garbage is that of many clients: each by itself would hardly
				// ever collect.
				debug.SetGCPercent(400)
			}
			o.Dialer, o.Start = ds[0], a.startBench
			o.Progress = func(s string) { a.say("%s", s) }
			return a.bench(c.Context(), cases, out, o)
		},
	}
	f := c.Flags()
	f.StringVar(&cases, "cases", strings.Join(bench.Names(), ","), "what to measure")
	f.StringVar(&transport, "transport", "http2", "transport to load")
	f.StringVar(&out, "out", "", "write the JSON report to this file as well")
	f.DurationVar(&o.Duration, "duration", 5*time.Second, "length of each timed case")
	f.IntVar(&o.Size, "size", 256, "bytes of a message")
	f.IntVar(&o.Clients, "clients", 100, "clients of the 1:1 cases")
	f.IntVar(&o.Rate, "rate", 2000, "messages a second of the latency case")
	f.IntVar(&o.Members, "members", 100, "members of the fan-out")
	f.IntVar(&o.Messages, "messages", 200_000, "messages of the offline case")
	f.IntVar(&o.Sessions, "sessions", 5000, "sessions of the idle case")
	return c
}

func (a *app) bench(ctx context.Context, cases, out string, o bench.Options) error {
	if out != "" { // before minutes of work, not after them
		f, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE, 0o644)
		if err != nil {
			return fmt.Errorf("--out: %w", err)
		}
		if err := f.Close(); err != nil {
			return fmt.Errorf("--out: %w", err)
		}
	}
	r := bench.NewReport(version, time.Now())
	failed := false
	for name := range strings.SplitSeq(cases, ",") {
		rows, err := bench.Run(ctx, strings.TrimSpace(name), o)
		if err != nil {
			failed = true
			rows = append(rows, bench.Case{Name: name, Transport: o.Dialer.Name(), Error: err.Error()})
		}
		r.Cases = append(r.Cases, rows...)
		if ctx.Err() != nil {
			break
		}
	}
	var err error
	if a.json {
		err = a.emit(r)
	} else {
		err = r.Print(a.out)
	}
	if out != "" {
		b, no := json.MarshalIndent(r, "", "  ")
		if no == nil {
			no = os.WriteFile(out, append(b, '\n'), 0o644)
		}
		err = errors.Join(err, no)
	}
	if err == nil && failed {
		err = silent{exitFailed}
	}
	return err
}

// startBench starts this program as a relay of its own with a data folder that is
// thrown away.
func (a *app) startBench(ctx context.Context) (t *bench.Target, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "commucat-bench-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(dir)
		}
	}()
	file := filepath.Join(dir, "commucat.toml")
	if err := os.WriteFile(file, []byte(benchConfig), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "serve", "--json", "--config", file, "--data", dir)
	cmd.Stderr = a.err
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop := func() error {
		err := cmd.Process.Signal(syscall.SIGTERM)
		return errors.Join(err, cmd.Wait(), os.RemoveAll(dir))
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, stop())
		}
	}()
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err != nil {
		return nil, fmt.Errorf("the relay did not start: %w", err)
	}
	var ready struct {
		Admin string `json:"admin"`
	}
	if err := json.Unmarshal(line, &ready); err != nil {
		return nil, fmt.Errorf("the relay's first line: %w", err)
	}
	l, err := api.NewClient(strings.TrimPrefix(ready.Admin, "unix:")).CreateLink(ctx, api.LinkRequest{Kind: api.InviteLink, Quota: 10_000, TTLSeconds: 3600})
	if err != nil {
		return nil, err
	}
	return &bench.Target{Link: l.Text, Dir: dir, PID: cmd.Process.Pid, Stop: stop}, nil
}
