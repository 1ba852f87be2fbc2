package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/commucat/commucat/core/api"
	"github.com/commucat/commucat/core/config"
	"github.com/commucat/commucat/core/doctor"
	"github.com/commucat/commucat/core/pluginhost"
	"github.com/commucat/commucat/sdk"
)

func (a *app) transportCommand() *cobra.Command {
	return group("transport", "Ways between clients and the relay",
		a.transportListCommand(), a.transportSwitchCommand("enable", true), a.transportSwitchCommand("disable", false), a.transportTestCommand(),
		a.transportExportCommand(), a.transportRotateCommand())
}

func (a *app) transportListCommand() *cobra.Command {
	var f relayFlags
	c := &cobra.Command{
		Use: "list", Short: "List the transports of the configuration", Args: exactly(0, ""),
		RunE: func(*cobra.Command, []string) error {
			cfg, _, _, err := f.load()
			if err != nil {
				return err
			}
			type row struct {
				Name    string `json:"name"`
				Plugin  string `json:"plugin,omitempty"`
				Enabled bool   `json:"enabled"`
			}
			var rows []row
			for _, name := range builtIn() {
				rows = append(rows, row{name, "", cfg.Enabled(name)})
			}
			for _, name := range slices.Sorted(maps.Keys(cfg.Transports)) {
				if !slices.Contains(builtIn(), name) {
					rows = append(rows, row{name, cfg.PluginOf(name), cfg.Enabled(name)})
				}
			}
			if a.json {
				return a.emit(list[row]{rows})
			}
			t := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "transport\tprovided by\tenabled")
			for _, r := range rows {
				by := "the program"
				if r.Plugin != "" {
					by = "plugin " + r.Plugin
				}
				fmt.Fprintf(t, "%s\t%s\t%v\n", r.Name, by, r.Enabled)
			}
			return t.Flush()
		},
	}
	f.add(c)
	return c
}

// transportSwitchCommand edits the file's text, so that comments stay, and has a running
// relay read it.
func (a *app) transportSwitchCommand(use string, on bool) *cobra.Command {
	var (
		f    operatorFlags
		keys []string
	)
	c := &cobra.Command{
		Use: use + " NAME", Short: "Write enabled = " + fmt.Sprint(on) + " into the configuration, and reload", Args: exactly(1, "the name of one transport"),
		RunE: func(c *cobra.Command, args []string) error {
			changed, err := f.switchTransport(args[0], on, keys, a)
			if err != nil {
				return err
			}
			state := "unchanged"
			if changed {
				if state, err = f.reload(c.Context()); err != nil {
					return err
				}
				if state == reloaded && slices.Contains(builtIn(), args[0]) {
					state = f.builtInState(c.Context(), args[0], on)
				}
			}
			if a.json {
				return a.emit(map[string]any{"transport": args[0], "enabled": on, "relay": state})
			}
			if !changed {
				_, err = fmt.Fprintf(a.out, "%s is %sd already\n", args[0], use)
				return err
			}
			_, err = fmt.Fprintf(a.out, "%sd %s (%s)\n", use, args[0], state)
			return err
		},
	}
	f.relayFlags.add(c)
	if on {
		c.Flags().StringArrayVar(&keys, "set", nil, "KEY=VALUE to write into the transport's table as well (may be repeated)")
	}
	return c
}

// switchTransport writes the configuration file, unless it says so already. What is switched
// on passes the check of 'config check' first, the plugins' own included.
func (f *relayFlags) switchTransport(name string, on bool, keys []string, a *app) (changed bool, err error) {
	file, text, before, env, err := f.written()
	if err != nil {
		return false, err
	}
	if err := knownTransport(name, before, env.Plugins); err != nil {
		return false, err
	}
	_, there := before.Transports[name]
	if is := before.Enabled(name) && (there || slices.Contains(builtIn(), name)); is == on && len(keys) == 0 {
		return false, nil
	}
	next, err := config.EnableTransport(file, text, name, on)
	if err != nil {
		return false, err
	}
	for _, pair := range slices.Backward(keys) { // each is put first
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			return false, usageError{fmt.Errorf("--set: %q is not KEY=VALUE", pair)}
		}
		if next, err = config.AddTransportKey(file, next, name, strings.TrimSpace(key), strings.TrimSpace(value)); err != nil {
			return false, err
		}
	}
	if on {
		env.Plugins = a.asked()
	}
	if _, err := config.Parse(file, next, env); err != nil {
		return false, configFailure{err}
	}
	return true, replaceFile(file, next)
}

// written is the configuration file as it stands, and what it says by itself.
func (f *relayFlags) written() (file string, text []byte, cfg *config.Config, env config.Env, err error) {
	_, env, data, err := f.load()
	if err != nil {
		return "", nil, nil, env, err
	}
	if file = f.config; file == "" {
		file = filepath.Join(data, "commucat.toml")
	}
	if text, err = os.ReadFile(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", nil, nil, env, err
	}
	alone := env
	alone.Variables = nil // it is the file that is to say so
	if cfg, err = config.Parse(file, text, alone); err != nil {
		return "", nil, nil, env, configFailure{err}
	}
	return file, text, cfg, env, nil
}

// knownTransport refuses a name that neither the file nor the program nor a list of
// plugins has.
func knownTransport(name string, cfg *config.Config, known []config.Known) error {
	if _, ok := cfg.Transports[name]; ok || slices.Contains(builtIn(), name) {
		return nil
	}
	verdicts, _ := catalog().Verify() // what cannot be read is no hint
	for _, v := range verdicts {
		if v.Kind == pluginhost.KindName(sdk.Transport) && v.Name == name {
			return v.Err
		}
	}
	all := slices.Collect(maps.Keys(cfg.Transports))
	for _, k := range known {
		if k.Kind == sdk.Transport {
			all = append(all, k.Name)
		}
	}
	return noTransport(name, all)
}

// noTransport says which transports there are.
func noTransport(name string, all []string) error {
	slices.Sort(all)
	all = slices.Compact(all)
	text := fmt.Sprintf("there is no transport %q: there are %s", name, strings.Join(all, ", "))
	if s := sdk.Suggest(name, all); s != "" {
		text += fmt.Sprintf(" (did you mean %q?)", s)
	}
	return usageError{errors.New(text)}
}

// unlessNamed replaces an error by a better one if the running relay knows no such name.
func (a *app) unlessNamed(ctx context.Context, cl *api.Client, name string, others []string, err error) error {
	states, failed := pluginStates(ctx, cl)
	if failed != nil {
		return err
	}
	all := slices.Clone(others)
	for _, s := range states {
		all = append(all, s.Name)
	}
	if slices.Contains(all, name) {
		return err
	}
	if len(all) == 0 {
		return fmt.Errorf("%q is nothing that the relay runs: no plugin is enabled there", name)
	}
	slices.Sort(all)
	text := fmt.Sprintf("%q is nothing that the relay runs; it runs %s", name, strings.Join(slices.Compact(all), ", "))
	if s := sdk.Suggest(name, all); s != "" {
		text += fmt.Sprintf(" (did you mean %q?)", s)
	}
	return usageError{errors.New(text)}
}

// reload has a running relay read its configuration, and says what came of it.
func (f *operatorFlags) reload(ctx context.Context) (string, error) {
	cl, err := f.client()
	if err != nil {
		return "", err
	}
	if err := cl.Reload(ctx); errors.Is(err, api.ErrNotRunning) {
		return "no relay runs", nil
	} else if err != nil {
		return "", err
	}
	return reloaded, nil
}

const reloaded = "reloaded"

// builtInState says whether a running relay does what its file says of a built-in
// transport: its listener has them from the start.
func (f *operatorFlags) builtInState(ctx context.Context, name string, on bool) string {
	cl, err := f.client()
	if err != nil {
		return reloaded
	}
	st, err := relayStatus(ctx, cl)
	if err != nil || st == nil {
		return reloaded
	}
	is := slices.ContainsFunc(st.Listeners, func(l doctor.Listener) bool { return l.Web && l.Transport == name })
	if is == on {
		return reloaded
	}
	return "restart the relay, which goes on as before until then"
}

// replaceFile writes beside the file and moves, with the mode that it had.
func replaceFile(name string, content []byte) error {
	mode := fs.FileMode(0o600)
	if info, err := os.Stat(name); err == nil {
		mode = info.Mode().Perm()
	}
	dir := filepath.Dir(name)
	temp, err := os.CreateTemp(dir, ".commucat-*")
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no folder %s: 'commucat init --domain NAME --data %[1]s' prepares a relay there", dir)
	}
	if err != nil {
		return err
	}
	_, err = temp.Write(content)
	err = errors.Join(err, temp.Chmod(mode), temp.Sync(), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	return nil
}

func (a *app) transportTestCommand() *cobra.Command {
	var (
		keys  []string
		cover string
	)
	c := a.operator(&cobra.Command{
		Use: "test NAME [--set KEY=VALUE]", Short: "Dial the running relay through a transport from this machine",
		Long: "Dial the running relay through a transport from this machine.\n\n" +
			"It goes a new device's way: the name is resolved, the port dialled, the transport entered and the\n" +
			"relay's key proved; each stage with its milliseconds, and what to do about the one that fails\n" +
			"(code STAGE_failed or STAGE_timeout). A plugin's client half dials within the stage entry.\n\n" +
			"With --set nothing is dialled and no relay is needed: the plugin called NAME is asked whether\n" +
			"it could serve clients with these keys. So a cover site is tried before it is configured:\n" +
			"commucat transport test reality --cover www.example.org:443",
		Args: exactly(1, "the name of one transport"),
	}, func(ctx context.Context, cl *api.Client, args []string) error {
		if cover != "" {
			keys = append(keys, "cover="+cover)
		}
		if len(keys) > 0 {
			return a.tryTransport(ctx, args[0], keys)
		}
		return a.tryRunning(ctx, cl, args[0])
	})
	c.Flags().StringArrayVar(&keys, "set", nil, "KEY=VALUE of the plugin's table (may be repeated)")
	c.Flags().StringVar(&cover, "cover", "", "HOST:PORT of a site, short for --set cover=HOST:PORT")
	return c
}

// tryRunning asks the relay's plugin and then goes a client's way.
func (a *app) tryRunning(ctx context.Context, cl *api.Client, name string) error {
	t := newTrial(name)
	var err error
	if !slices.Contains(builtIn(), name) {
		if err = cl.ProbeTransport(ctx, name); err != nil {
			err = a.unlessNamed(ctx, cl, name, builtIn(), err)
		}
	}
	if err == nil {
		err = a.dialThrough(ctx, cl, name, t)
	}
	var usage usageError
	switch {
	case errors.As(err, &usage), errors.Is(err, api.ErrNotRunning):
		return err
	case err != nil:
		t.fail(ctx, err)
	default:
		t.end(t.Stage, time.Since(t.began))
		t.OK = true
	}
	return a.showTrial(t, "works from here")
}

// tryTransport asks a plugin about keys that no relay has.
func (a *app) tryTransport(ctx context.Context, name string, keys []string) (err error) {
	if err := knownTransport(name, &config.Config{}, known()); err != nil {
		return err
	}
	if slices.Contains(builtIn(), name) {
		return usageError{fmt.Errorf("%s has no keys", name)}
	}
	raw := map[string]any{}
	for _, pair := range keys {
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			return usageError{fmt.Errorf("--set: %q is not KEY=VALUE", pair)}
		}
		raw[strings.TrimSpace(key)] = config.Value(strings.TrimSpace(value))
	}
	state, err := os.MkdirTemp("", "commucat-try-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(state)) }()
	if err := os.Chmod(state, 0o711); err != nil {
		return err
	}
	here, err := os.Getwd()
	if err != nil {
		return err
	}
	spec := pluginhost.Spec{Name: name, Plugin: name, Raw: raw, Files: sdk.Files{Dir: here}, Settings: pluginhost.Settings{Memory: 1 << 30}}
	// What a plugin warns of, such as a cover that could be better, is for who asks.
	log := slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
	host := pluginhost.New(pluginhost.Options{Catalog: catalog(), State: state, Log: log})
	t := newTrial(name)
	if err := host.Probe(ctx, spec); err != nil {
		return err
	}
	t.end(t.Stage, time.Since(t.began))
	t.OK = true
	return a.showTrial(t, "can serve clients so")
}
