package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/commucat/commucat/core/api"
	"github.com/commucat/commucat/core/demo"
	"github.com/commucat/commucat/core/pluginhost"
	"github.com/commucat/commucat/plugins/transport/onion/tornet"
	"github.com/commucat/commucat/sdk/transport"
)

// stage is what the plugin transports of a demonstration need on this machine.
type stage struct {
	shown  []transport.Dialer
	absent []demo.Row // of transports whose program is not installed
	tables strings.Builder
	tor    *tornet.Network
}

// set makes the stage; tor's network lies in dir and never leaves this machine.
func set(ctx context.Context, dir string, ds []transport.Dialer) (*stage, error) {
	s := &stage{}
	for _, d := range ds {
		p, ok := d.(*processDialer)
		if !ok {
			s.shown = append(s.shown, d)
			continue
		}
		if missing := p.missing(); missing != "" {
			s.absent = append(s.absent, demo.Row{Transport: p.name, Error: missing})
			continue
		}
		fmt.Fprintf(&s.tables, "[transport.%s]\nplugin = %q\n", p.name, p.plugin)
		if p.plugin != "onion" {
			s.tables.WriteString("listen = \"127.0.0.1:0\"\n")
			if p.plugin == "reality" { // it draws its keys; strangers see the relay's site
				if err := demoSite(&s.tables, dir); err != nil {
					return s, err
				}
			}
			s.shown = append(s.shown, d)
			continue
		}
		if s.tor == nil {
			folder := filepath.Join(dir, "tor")
			if err := os.Mkdir(folder, 0o700); err != nil {
				return s, err
			}
			limit, cancel := context.WithTimeoutCause(ctx, 2*time.Minute, errors.New("not within two minutes"))
			var err error
			s.tor, err = tornet.Start(limit, folder)
			cancel()
			if err != nil {
				return s, fmt.Errorf("a Tor network on this machine: %w", err)
			}
		}
		var lines []any
		for _, l := range s.tor.Torrc() {
			lines = append(lines, l)
		}
		fmt.Fprintf(&s.tables, "stall = \"20s\"\ntorrc = [%s]\n", quotedList(s.tor.Torrc()))
		s.shown = append(s.shown, &processDialer{name: p.name, plugin: p.plugin, table: map[string]any{"torrc": lines, "stall": "20s"}})
	}
	return s, nil
}

func quotedList(all []string) string {
	out := make([]string, len(all))
	for i, s := range all {
		out[i] = fmt.Sprintf("%q", s)
	}
	return strings.Join(out, ", ")
}

func (s *stage) close() {
	if s.tor != nil {
		s.tor.Close()
	}
}

// missing says what must be installed for a transport, "" if nothing.
func (d *processDialer) missing() string {
	var program, pkg string
	switch {
	case d.plugin == "onion":
		program, pkg = "tor", "tor"
	case d.plugin == "pt" && (d.name == "obfs4" || d.name == "pt"):
		program, pkg = "obfs4proxy", "obfs4proxy"
	default:
		return ""
	}
	if _, err := exec.LookPath(program); err != nil {
		return fmt.Sprintf("%s is not installed: install the package %s", program, pkg)
	}
	return ""
}

// ways waits for the plugin transports and makes a link over each: one link has no room for
// many. A transport that does not come shows in its row.
func (s *stage) ways(ctx context.Context, admin string) ([]demo.Way, error) {
	cl := api.NewClient(strings.TrimPrefix(admin, "unix:"))
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		states, err := pluginStates(ctx, cl)
		if err != nil {
			return nil, err
		}
		waits := slices.ContainsFunc(states, func(p pluginhost.State) bool {
			return p.Kind == "transport" && p.State != pluginhost.Parked && (p.State != pluginhost.Running || p.Degraded != "")
		})
		if !waits || ctx.Err() != nil {
			break
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	var ways []demo.Way
	for _, d := range s.shown {
		made, err := cl.CreateLink(context.WithoutCancel(ctx), api.LinkRequest{
			Kind: api.InviteLink, Quota: 2, TTLSeconds: 3600, Transports: []string{d.Name()},
		})
		ways = append(ways, demo.Way{Dialer: d, Link: made.Text, Err: err})
	}
	return ways, nil
}
