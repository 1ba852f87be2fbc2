package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/commucat/commucat/core/api"
	"github.com/commucat/commucat/core/config"
)

func (a *app) transportCommand() *cobra.Command {
	return group("transport", "Ways between clients and the relay",
		a.transportListCommand(), a.transportSwitchCommand("enable", true), a.transportSwitchCommand("disable", false), a.transportTestCommand(),
		a.transportExportCommand())
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
	var f operatorFlags
	c := &cobra.Command{
		Use: use + " NAME", Short: "Write enabled = " + fmt.Sprint(on) + " into the configuration, and reload", Args: exactly(1, "the name of one transport"),
		RunE: func(c *cobra.Command, args []string) error {
			_, env, data, err := f.load()
			if err != nil {
				return err
			}
			file := f.config
			if file == "" {
				file = filepath.Join(data, "commucat.toml")
			}
			text, err := os.ReadFile(file)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			next, err := config.EnableTransport(file, text, args[0], on)
			if err != nil {
				return err
			}
			if _, err := config.Parse(file, next, env); err != nil {
				return configFailure{err}
			}
			if err := replaceFile(file, next); err != nil {
				return err
			}
			cl, err := f.client()
			if err != nil {
				return err
			}
			state := "reloaded"
			if err := cl.Reload(c.Context()); errors.Is(err, api.ErrNotRunning) {
				state = "no relay runs"
			} else if err != nil {
				return err
			}
			if a.json {
				return a.emit(map[string]any{"transport": args[0], "enabled": on, "relay": state})
			}
			_, err = fmt.Fprintf(a.out, "%sd %s (%s)\n", use, args[0], state)
			return err
		},
	}
	f.relayFlags.add(c)
	return c
}

// replaceFile writes beside the file and moves, with the mode that it had.
func replaceFile(name string, content []byte) error {
	mode := fs.FileMode(0o600)
	if info, err := os.Stat(name); err == nil {
		mode = info.Mode().Perm()
	}
	temp, err := os.CreateTemp(filepath.Dir(name), ".commucat-*")
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
	return a.operator(&cobra.Command{
		Use: "test NAME", Short: "Dial the running relay through a transport from this machine", Args: exactly(1, "the name of one transport"),
	}, func(ctx context.Context, cl *api.Client, args []string) error {
		if !slices.Contains(builtIn(), args[0]) {
			if err := cl.ProbeTransport(ctx, args[0]); err != nil {
				return err
			}
		}
		if err := a.dialThrough(ctx, cl, args[0]); err != nil {
			return err
		}
		if a.json {
			return a.emit(map[string]any{"transport": args[0], "ok": true})
		}
		_, err := fmt.Fprintf(a.out, "%s works from here\n", args[0])
		return err
	})
}
