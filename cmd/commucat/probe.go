package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/commucat/commucat/core/probe"
	"github.com/commucat/commucat/core/server"
)

func (a *app) probeCommand() *cobra.Command {
	var (
		cover, domain, altSvc string
		rate                  float64
		limit                 time.Duration
		o                     probe.Options
	)
	c := &cobra.Command{
		Use:   "probe HOST[:PORT] [--cover URL|FOLDER]",
		Short: "Compare a server with its cover site, as a stranger who suspects a relay would",
		Long: "Send a battery of well-formed and malformed requests to a server and to its cover site,\n" +
			"which is started alone in this process, and show every difference. Ends with 1 if there is one.\n\n" +
			"A relay limits new connections from one address; --rate stays below its default. An input whose\n" +
			"answers differ is sent up to 8 times, since some are a race inside the server. How far it is\n" +
			"is told while it runs; --timeout ends it, with what was found until then and exit code 4.",
		Args: exactly(1, "the server's host, with :PORT if that is not 443"),
		RunE: func(c *cobra.Command, args []string) error {
			target, name, err := probed(args[0])
			if err != nil {
				return err
			}
			if domain != "" {
				name = domain
			}
			o.ServerName = name
			switch {
			case len(probe.Chosen(o)) == 0:
				return usageError{fmt.Errorf("--only: no input has %s in its name", strings.Join(o.Only, " or "))}
			case o.Rounds < 1 || o.Parallel < 1 || o.Timing < 0 || o.Wait <= 0 || rate < 0:
				return usageError{errors.New("--rounds, --parallel and --wait are more than nothing, --timing and --rate not less")}
			}
			if rate > 0 {
				o.Every = time.Duration(float64(time.Minute) / rate)
			}
			ctx, cancel := context.WithCancel(c.Context())
			if limit > 0 {
				ctx, cancel = context.WithTimeout(c.Context(), limit)
			}
			defer cancel()
			return a.probe(ctx, target, cover, altSvc, o)
		},
	}
	f := c.Flags()
	f.StringVar(&cover, "cover", "", "what the server shows to strangers: cover.origin or cover.site of its configuration (default: the built-in site)")
	f.StringVar(&altSvc, "alt-svc", "", "cover.alt_svc of its configuration")
	f.StringVar(&domain, "domain", "", "name of the relay, if HOST is an address")
	f.Uint64Var(&o.Seed, "seed", 1, "chooses the random parts of the inputs")
	f.IntVar(&o.Rounds, "rounds", 1, "how often each kind of input is sent")
	f.IntVar(&o.Timing, "timing", 0, "samples of the time to the first byte, for a plain page and two requests that a relay looks at closer")
	f.DurationVar(&o.Wait, "wait", 1500*time.Millisecond, "how long an answer may take")
	f.DurationVar(&limit, "timeout", 30*time.Minute, "end after this time (0: never)")
	f.IntVar(&o.Parallel, "parallel", 8, "inputs at one time")
	f.StringSliceVar(&o.Only, "only", nil, "only inputs whose name contains one of these words")
	f.StringSliceVar(&o.Paths, "path", nil, "further paths to ask for")
	f.Float64Var(&rate, "rate", 50, "connections a minute (0: as fast as they go)")
	return c
}

// tellEvery is how often it is said how far a run is.
const tellEvery = 5 * time.Second

// probed splits HOST[:PORT] into the address to dial and the name to ask for.
func probed(host string) (address, name string, err error) {
	if strings.Contains(host, "/") {
		return "", "", usageError{fmt.Errorf("%q is a URL: give the host alone", host)}
	}
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		name, port = strings.Trim(host, "[]"), "443"
	}
	if name == "" {
		return "", "", usageError{errors.New("which host?")}
	}
	address = net.JoinHostPort(name, port)
	if _, err := netip.ParseAddr(name); err == nil {
		name = "localhost"
	}
	return address, name, nil
}

func (a *app) probe(ctx context.Context, target, cover, altSvc string, o probe.Options) (err error) {
	so := server.CoverOptions{Domain: o.ServerName, Log: slog.New(slog.DiscardHandler)}
	if u, err := url.Parse(cover); err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" {
		so.Origin = u
	} else {
		so.Folder = cover
	}
	site, err := coverSite(so)
	if err != nil {
		return usageError{err}
	}
	alone, err := server.ServeAlone(ctx, site, o.ServerName, altSvc)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, alone.Close()) }()
	if o.Every == 0 {
		a.say("%d inputs, %d at one time, each answer within %v or a few times that", len(probe.Chosen(o))*max(o.Rounds, 1), o.Parallel, o.Wait)
	} else {
		n := len(probe.Chosen(o)) * max(o.Rounds, 1)
		a.say("at most %d inputs, about %v; --rate 0 is faster where the server allows it", n, (time.Duration(n) * o.Every).Round(time.Second))
	}
	all, told := len(probe.Chosen(o))*max(o.Rounds, 1), time.Now()
	o.Progress = func(p probe.Progress) {
		if now := time.Now(); now.Sub(told) >= tellEvery {
			told = now
			a.say("%d of %d inputs, %d differ", p.Done, p.All, p.Differ)
		}
	}
	report, err := probe.Run(ctx, target, alone.Address, o)
	ended := err
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if a.json {
		err = a.emit(report)
	} else {
		_, err = fmt.Fprintln(a.out, strings.TrimRight(report.String(), "\n"))
	}
	switch {
	case err != nil:
	case ended != nil:
		err = timeout{fmt.Sprintf("%d of %d inputs were compared in time; --timeout gives it more, --only and --rate make it shorter", len(report.Results), all)}
	case !report.Equal():
		err = silent{exitFailed}
	}
	return err
}
