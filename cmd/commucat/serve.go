package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/commucat/commucat/core/config"
	"github.com/commucat/commucat/core/pluginhost/sandbox"
	"github.com/commucat/commucat/core/server"
)

// relayFlags choose a relay's configuration and data.
type relayFlags struct {
	config, data string
	listen       []string
}

func (f *relayFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.config, "config", "", "configuration file (default: commucat.toml in the data folder, if there is one)")
	c.Flags().StringVar(&f.data, "data", "", "data folder (default: $STATE_DIRECTORY, else the XDG state folder)")
}

// load reads the configuration and settles the data folder.
func (f *relayFlags) load() (*config.Config, config.Env, string, error) {
	env := config.Process(known()...)
	data := f.data
	var err error
	if data == "" && f.config == "" {
		if data, err = server.DefaultData(os.Getenv); err != nil {
			return nil, env, "", err
		}
	}
	file := f.config
	if file == "" {
		file = defaultConfig(data)
	}
	for _, a := range f.listen {
		var to config.Address
		if err := to.UnmarshalText([]byte(a)); err != nil || a == "" {
			return nil, env, "", usageError{fmt.Errorf("--listen: %w", cmp.Or(err, errors.New("give an address such as \":8443\"")))}
		}
	}
	if len(f.listen) > 0 {
		// A flag counts more than file and environment.
		env.Variables = append(env.Variables, config.Variable("server.listen")+"="+strings.Join(f.listen, ","))
	}
	cfg, err := config.Load(file, env)
	if err != nil {
		return nil, env, "", err
	}
	switch {
	case f.data != "":
		data = f.data
	case cfg.Server.Data != "":
		data = string(cfg.Server.Data)
	case data == "":
		if data, err = server.DefaultData(os.Getenv); err != nil {
			return nil, env, "", err
		}
	}
	return cfg, env, data, nil
}

// defaultConfig is commucat.toml in the data folder, or "".
func defaultConfig(data string) string {
	name := data + "/commucat.toml"
	if _, err := os.Stat(name); err != nil {
		return ""
	}
	return name
}

// collect is the collector's pace of a relay (Options.Collect); GOGC in the
// environment overrides it. With thousands of sessions a slower pace leaves holes
// between what lives, which are not given back (7 KiB a session at 100).
const collect = 50

func (a *app) serveCommand() *cobra.Command {
	var f relayFlags
	c := &cobra.Command{
		Use:   "serve [--config FILE] [--data DIR] [--listen ADDRESS]",
		Short: "Run the relay",
		Long: "Run the relay. An empty data folder is filled at the first start: keys, a self-signed\n" +
			"certificate, a database, and an invitation link for the first accounts.\n\n" +
			"SIGTERM drains and ends, SIGHUP reads the configuration and the certificate again.",
		Args: exactly(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, env, data, err := f.load()
			if err != nil {
				return err
			}
			return a.serve(c.Context(), cfg, env, data, func() (*config.Config, error) {
				next, _, _, err := f.load()
				return next, err
			})
		},
	}
	f.add(c)
	c.Flags().StringArrayVar(&f.listen, "listen", nil, "TCP address of the public listener, port 0 takes a free one (may be repeated)")
	return c
}

// relayOptions wires the built-ins.
func (a *app) relayOptions(cfg *config.Config, env config.Env, data string, log *slog.Logger) server.Options {
	return server.Options{
		Config: cfg, Environment: env, Data: data, Version: version, Webs: webs, Cover: coverSite, Plugins: plugins(), Log: log,
		BuiltIn: builtIn(), Catalog: catalog(),
	}
}

func (a *app) serve(ctx context.Context, cfg *config.Config, env config.Env, data string, load func() (*config.Config, error)) error {
	log, level, err := a.serverLog(cfg)
	if err != nil {
		return err
	}
	opt := a.relayOptions(cfg, env, data, log)
	opt.Load, opt.Level = load, level
	if os.Getenv("GOGC") == "" {
		opt.Collect = collect
	}
	if err := sandbox.Undumpable(); err != nil {
		return err
	}
	told := &arrivals{a: a}
	opt.OnTransport = told.note
	hup := make(chan os.Signal, 1) // also one that comes while the relay starts must not end it
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	s, err := server.New(ctx, opt)
	if err != nil {
		return err
	}
	go a.reloads(ctx, hup, s, log)
	ready := s.Ready()
	if a.json {
		err = a.emit(ready)
	} else {
		err = a.announce(ready, data)
	}
	if err == nil {
		notify("READY=1")
		err = told.begin()
	}
	return errors.Join(err, s.Run(ctx))
}

// firstInvitation is shown while it is good.
const firstInvitation = "first invitation (16 accounts in all, for 24 hours from the first start)"

// announce tells a person what runs where and what to do next.
func (a *app) announce(r server.Ready, data string) error {
	fmt.Fprintf(a.err, "commucat %s, data in %s\n", version, data)
	shown := map[string]bool{}
	for _, l := range r.Listeners {
		if !shown[l.Address] {
			shown[l.Address] = true
			if l.Web {
				fmt.Fprintf(a.err, "  https://%s\n", l.Address)
			} else {
				fmt.Fprintf(a.err, "  %s %s (%s)\n", l.Transport, l.Address, l.Network)
			}
		}
	}
	if r.Invite != "" {
		fmt.Fprintf(a.err, "  %s:\n", firstInvitation)
		fmt.Fprintln(a.out, r.Invite)
	} else {
		fmt.Fprintf(a.err, "  invite others with: commucat link create --data %s\n", shellWord(data))
	}
	_, err := fmt.Fprintln(a.err, "ready")
	return err
}

// shellWord quotes a word for the shell where it must be.
func shellWord(s string) string {
	special := func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("/._-+:,@%", r)
	}
	if s != "" && !strings.ContainsFunc(s, special) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// serverLog makes the relay's logger.
func (a *app) serverLog(cfg *config.Config) (*slog.Logger, *slog.LevelVar, error) {
	level := new(slog.LevelVar)
	if err := level.UnmarshalText([]byte(cfg.Log.Level)); err != nil {
		return nil, nil, fmt.Errorf("log.level: %w", err)
	}
	if a.verbose {
		level.Set(slog.LevelDebug)
	}
	o := &slog.HandlerOptions{Level: level}
	if cfg.Log.Format == "json" {
		return slog.New(slog.NewJSONHandler(a.err, o)), level, nil
	}
	return slog.New(slog.NewTextHandler(a.err, o)), level, nil
}

// reloads follows SIGHUP until ctx ends.
func (a *app) reloads(ctx context.Context, hup <-chan os.Signal, s *server.Server, log *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
			notify("RELOADING=1")
			// What follows later the log tells by itself.
			if _, err := s.Reload(); err != nil {
				log.Error("the configuration stays as it was", "error", err)
			}
			notify("READY=1")
		}
	}
}
