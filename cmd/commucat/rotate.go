package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/commucat/commucat/core/config"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

const rotateHelp = `Have a transport draw new keys, and reload.

For transports that draw their keys themselves, such as reality. Links that are made from now
on have the new keys. The former ones stay good for --overlap: until then links made earlier
work, and devices that connect learn the new keys. After that they are refused. --end ends
the former keys at once, also those of an overlap that runs.

The command writes "rotated" and "overlap" into the transport's table and has a running relay
read it; without one the keys are drawn at the next start. Keys that the table itself names
are not drawn, and are changed there.`

// transportRotateCommand writes what was asked into the configuration: a transport draws
// its keys itself, where nobody else can read them.
func (a *app) transportRotateCommand() *cobra.Command {
	var (
		f       operatorFlags
		overlap string
		end     bool
	)
	c := &cobra.Command{
		Use: "rotate NAME [--overlap 14d] [--end]", Short: "Have a transport draw new keys, beside the former ones for a while",
		Long: rotateHelp, Args: exactly(1, "the name of one transport"),
		RunE: func(c *cobra.Command, args []string) error {
			if end && c.Flags().Changed("overlap") {
				return usageError{errors.New("--end and --overlap exclude each other")}
			}
			r, err := f.rotate(args[0], overlap, end, a)
			if err != nil {
				return err
			}
			state, err := f.reload(c.Context())
			if err != nil {
				return err
			}
			return a.rotated(args[0], r, state)
		},
	}
	f.relayFlags.add(c)
	c.Flags().StringVar(&overlap, "overlap", "14d", "how long the former keys stay good")
	c.Flags().BoolVar(&end, "end", false, "end the former keys now, without drawing new ones")
	return c
}

// rotate writes the keys of a rotation into the configuration file.
func (f *relayFlags) rotate(name, overlap string, end bool, a *app) (r transport.Rotation, err error) {
	file, text, cfg, env, err := f.written()
	if err != nil {
		return r, err
	}
	if err := rotatable(name, cfg, env.Plugins); err != nil {
		return r, err
	}
	if before, ok := config.Bare(cfg.Transports[name].Keys)[transport.KeyRotated].(string); ok {
		if err := r.At.UnmarshalText([]byte(before)); err != nil {
			return r, err
		}
	}
	if end {
		if r.At.IsZero() {
			return r, fmt.Errorf("%s was never rotated: it has no former keys to end", name)
		}
	} else {
		if r.Overlap, err = sdk.ParseDuration(overlap); err != nil {
			return r, usageError{fmt.Errorf("--overlap: %w", err)}
		}
		now := time.Now().UTC().Truncate(time.Second)
		if !now.After(r.At.Time) {
			return r, fmt.Errorf("%s was rotated at %s, which is now or later: is this machine's clock right?", name, r.At.Format(time.RFC3339))
		}
		r.At.Time = now
	}
	for key, value := range map[string]string{transport.KeyRotated: r.At.Format(time.RFC3339), transport.KeyOverlap: sdk.FormatDuration(r.Overlap)} {
		if text, err = config.SetTransportKey(file, text, name, key, value); err != nil {
			return r, err
		}
	}
	env.Plugins = a.asked()
	if _, err := config.Parse(file, text, env); err != nil {
		return r, configFailure{err}
	}
	return r, replaceFile(file, text)
}

// rotatable refuses a transport that is not in the file, or draws no keys.
func rotatable(name string, cfg *config.Config, known []config.Known) error {
	if err := knownTransport(name, cfg, known); err != nil {
		return err
	}
	if slices.Contains(builtIn(), name) {
		return usageError{fmt.Errorf("%s draws no keys", name)}
	}
	if _, ok := cfg.Transports[name]; !ok {
		return usageError{fmt.Errorf("%s is not in the configuration; 'commucat transport enable %s' puts it there", name, name)}
	}
	plugin := cfg.PluginOf(name)
	i := slices.IndexFunc(known, func(k config.Known) bool { return k.Kind == sdk.Transport && k.Name == plugin })
	if i < 0 {
		return fmt.Errorf("plugin %s is not installed", plugin)
	}
	has := func(key string) bool {
		return slices.ContainsFunc(sdk.Fields(known[i].Plugin.Config()), func(f sdk.Field) bool { return f.Name == key })
	}
	if !has(transport.KeyRotated) || !has(transport.KeyOverlap) {
		return usageError{fmt.Errorf("plugin %s draws no keys that can be drawn anew; see its page in docs/transports", plugin)}
	}
	return nil
}

func (a *app) rotated(name string, r transport.Rotation, state string) error {
	until := r.At.Add(r.Overlap).Format(time.RFC3339)
	if a.json {
		return a.emit(map[string]any{"transport": name, "rotated": r.At.Format(time.RFC3339), "until": until, "relay": state})
	}
	var err error
	if r.Overlap == 0 {
		_, err = fmt.Fprintf(a.out, "the former keys of %s have ended (%s)\n", name, state)
	} else {
		_, err = fmt.Fprintf(a.out, "rotated %s; the former keys are good until %s (%s)\n", name, until, state)
	}
	return err
}
