package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/commucat/commucat/core/api"
	"github.com/commucat/commucat/core/pluginhost"
	"github.com/commucat/commucat/sdk"
)

func (a *app) pluginListCommand() *cobra.Command {
	var f operatorFlags
	c := &cobra.Command{
		Use: "list", Short: "Show the plugins of the catalog, and what runs of them", Args: exactly(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			found, err := catalog().List()
			if err != nil {
				a.say("%v", err) // the others are shown
			}
			var rows []pluginhost.State
			cl, err := f.client()
			if err != nil {
				a.say("%v\nuntil that is mended a relay is looked for in its usual place alone", err)
				if cl, err = f.usualClient(); err != nil {
					return err
				}
			}
			if rows, err = pluginStates(c.Context(), cl); err != nil && !errors.Is(err, api.ErrNotRunning) {
				return err
			}
			return a.showPlugins(found, rows)
		},
	}
	f.relayFlags.add(c)
	return c
}

// pluginStates asks the running relay.
func pluginStates(ctx context.Context, cl *api.Client) ([]pluginhost.State, error) {
	answer, err := cl.Plugins(ctx)
	if err != nil {
		return nil, err
	}
	var out []pluginhost.State
	for _, raw := range answer.Items {
		var s pluginhost.State
		if err := json.Unmarshal(raw, &s); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

func (a *app) showPlugins(found []pluginhost.Found, rows []pluginhost.State) error {
	for _, f := range found { // what does not run stands there as well
		used := false
		for _, r := range rows {
			used = used || r.Kind == f.Kind && r.Plugin == f.Name
		}
		if !used {
			rows = append(rows, pluginhost.State{Name: f.Name, Kind: f.Kind, Plugin: f.Name, Version: f.Version, File: f.Path(), State: pluginhost.Stopped})
		}
	}
	if a.json {
		return a.emit(list[pluginhost.State]{append([]pluginhost.State{}, rows...)})
	}
	t := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "name\tkind\tplugin\tversion\tstate\tpid\trestarts\tsandbox\tlast error")
	for _, r := range rows {
		var on, off []string
		for _, i := range r.Sandbox {
			if i.On {
				on = append(on, i.Name)
			} else {
				off = append(off, "no "+i.Name)
			}
		}
		pid, boxed := "-", strings.Join(append(on, off...), ",")
		if r.PID != 0 {
			pid = fmt.Sprint(r.PID)
		}
		if boxed == "" {
			boxed = "-"
		}
		reason := r.Degraded
		if reason == "" {
			reason = r.Error
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\n", r.Name, r.Kind, r.Plugin, r.Version, r.State, pid, r.Restarts, boxed, reason)
	}
	return t.Flush()
}

func (a *app) pluginDescribeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "describe FILE", Short: "Show what a plugin binary says of itself, as JSON", Args: exactly(1, "one plugin binary"),
		RunE: func(c *cobra.Command, args []string) error {
			file, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer file.Close()
			d, err := pluginHost("").Description(c.Context(), file)
			if err != nil {
				return err
			}
			return a.object(d)
		},
	}
}

func (a *app) pluginAddCommand() *cobra.Command {
	var o pluginhost.AddOptions
	c := &cobra.Command{
		Use: "add FILE…", Short: "Trust plugin binaries as they are now: write them into plugins.lock",
		Long: "Trust plugin binaries as they are now: their hashes, and what they may use, go into the\n" +
			"plugins.lock of their folder, or of --folder, into which they are copied.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{errors.New("expected plugin binaries")}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			o.Describe = pluginHost("").Describe
			for _, path := range args {
				path, err := filepath.Abs(path)
				if err != nil {
					return err
				}
				added, err := pluginhost.Add(c.Context(), path, o)
				if err != nil {
					return err
				}
				for _, f := range added {
					if a.json {
						err = a.emit(f)
					} else {
						_, err = fmt.Fprintf(a.out, "added %s %s %s (%s; may use: %s)\n", f.Kind, f.Name, f.Version, f.Profile, strings.Join(f.Needs, ", "))
					}
					if err != nil {
						return err
					}
				}
			}
			return nil
		},
	}
	c.Flags().StringVar(&o.Folder, "folder", "", "folder of plugins (default: the file's own)")
	c.Flags().StringVar(&o.User, "user", "", "user that it runs as where the relay is root (default: one of its own)")
	return c
}

func (a *app) pluginVerifyCommand() *cobra.Command {
	return &cobra.Command{
		Use: "verify", Short: "Check every plugin of the catalog against plugins.lock", Args: exactly(0, ""),
		RunE: func(*cobra.Command, []string) error {
			verdicts, err := catalog().Verify()
			bad := err != nil
			if err != nil {
				a.say("%v", err)
			}
			for _, v := range verdicts {
				row := struct {
					Kind  string `json:"kind"`
					Name  string `json:"name"`
					File  string `json:"file"`
					OK    bool   `json:"ok"`
					Error string `json:"error,omitempty"`
				}{v.Kind, v.Name, v.Path(), v.Err == nil, ""}
				if v.Err != nil {
					bad, row.Error = true, v.Err.Error()
				}
				switch {
				case a.json:
					err = a.emit(row)
				case v.Err != nil:
					_, err = fmt.Fprintf(a.out, "BAD  %s\n", row.Error)
				default:
					_, err = fmt.Fprintf(a.out, "ok   %s %s %s\n", v.Kind, v.Name, v.Version)
				}
				if err != nil {
					return err
				}
			}
			if bad {
				return silent{exitFailed}
			}
			return nil
		},
	}
}

func (a *app) pluginUpgradeCommand() *cobra.Command {
	return a.operator(&cobra.Command{
		Use: "upgrade NAME", Short: "Run the plugin's file that lies there now, beside the old process until that is drained",
		Args: exactly(1, "the name of a configured transport, storage or ledger"),
	}, func(ctx context.Context, cl *api.Client, args []string) error {
		if err := cl.UpgradePlugin(ctx, args[0]); err != nil {
			return a.unlessNamed(ctx, cl, args[0], nil, err)
		}
		if a.json {
			return a.emit(map[string]string{"name": args[0], "status": "upgraded"})
		}
		_, err := fmt.Fprintf(a.out, "upgraded %s\n", args[0])
		return err
	})
}

func (a *app) pluginRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "remove [KIND] NAME", Short: "Trust a plugin no longer: take it out of plugins.lock",
		Long: "Trust a plugin no longer: take it out of plugins.lock. Its file stays, and a process that\n" +
			"runs goes on until it ends; the next one is refused.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 && len(args) != 2 {
				return usageError{errors.New("expected the name of one plugin, after its kind where two have that name")}
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			found, err := listedAs(args)
			if err != nil {
				return err
			}
			if found, err = catalog().Remove(found.PluginKind(), found.Name); err != nil {
				return err
			}
			if a.json {
				return a.emit(found)
			}
			_, err = fmt.Fprintf(a.out, "removed %s %s; %s may be deleted\n", found.Kind, found.Name, found.Path())
			return err
		},
	}
}

// listedAs finds the one plugin that [KIND] NAME means.
func listedAs(args []string) (pluginhost.Found, error) {
	list, err := catalog().List()
	name := args[len(args)-1]
	var all []string
	var out []pluginhost.Found
	for _, f := range list {
		all = append(all, f.Name)
		if f.Name == name && (len(args) == 1 || f.Kind == args[0]) {
			out = append(out, f)
		}
	}
	switch {
	case len(out) == 1:
		return out[0], nil
	case len(out) > 1:
		return pluginhost.Found{}, usageError{fmt.Errorf("a %s and a %s have the name %q: name the kind before it", out[0].Kind, out[1].Kind, name)}
	case err != nil:
		return pluginhost.Found{}, err
	}
	text := fmt.Sprintf("no list of plugins has %q; 'commucat plugin list' shows them", strings.Join(args, " "))
	if s := sdk.Suggest(name, all); s != "" {
		text += fmt.Sprintf(" (did you mean %q?)", s)
	}
	return pluginhost.Found{}, usageError{errors.New(text)}
}
