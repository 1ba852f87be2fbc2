package main

import (
	"errors"
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/commucat/commucat/core/config"
	"github.com/commucat/commucat/sdk"
)

func (a *app) configCommand() *cobra.Command {
	var named string
	file := func(args []string) (string, error) {
		if named != "" {
			args = append(args, named)
		}
		switch {
		case len(args) > 1:
			return "", usageError{fmt.Errorf("expected one configuration file")}
		case len(args) == 1:
			return args[0], nil
		}
		var f relayFlags
		_, _, data, err := f.load()
		return defaultConfig(data), err
	}
	var alone bool
	check := &cobra.Command{
		Use: "check [FILE]", Short: "Name every mistake with file, line and column; exit code 78",
		Long: "Name every mistake with file, line and column; exit code 78.\n\n" +
			"Plugins that are installed and listed are asked about their own keys. Each runs for that in a\n" +
			"sandbox without network, ports and files, so a relay may run meanwhile. What only shows when\n" +
			"a transport begins, such as an unfit cover site, 'commucat transport test' finds.",
		Args: cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			name, err := file(args)
			if err != nil {
				return err
			}
			plugins := append(builtInKnown(), unasked()...)
			if !alone {
				plugins = a.asked()
			}
			if _, err := config.Load(name, config.Process(plugins...)); err != nil {
				return a.mistakes(name, err)
			}
			if a.json {
				return a.emit(map[string]any{"ok": true, "file": name})
			}
			if name == "" {
				a.say("there is no configuration file: everything has its default")
			}
			_, err = fmt.Fprintln(a.out, "ok")
			return err
		},
	}
	check.Flags().BoolVar(&alone, "no-plugins", false, "start no plugin; the keys of those that are not built in are not checked")
	show := &cobra.Command{
		Use: "show [FILE]", Short: "Print the configuration in force, secrets redacted", Args: cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			name, err := file(args)
			if err != nil {
				return err
			}
			cfg, err := config.Load(name, config.Process(known()...))
			if err != nil {
				return configFailure{err}
			}
			if a.json {
				return a.emit(list[setting]{settingsOf(cfg)})
			}
			_, err = a.out.Write(cfg.TOML())
			return err
		},
	}
	for _, c := range []*cobra.Command{check, show} {
		c.Flags().StringVar(&named, "config", "", "configuration file, as FILE")
	}
	env := &cobra.Command{
		Use: "env", Short: "List the environment variable of every key", Args: exactly(0, ""),
		RunE: func(*cobra.Command, []string) error {
			if a.json {
				return a.emit(list[setting]{settingsOf(config.Default())})
			}
			t := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
			for _, s := range config.Default().Settings() {
				fmt.Fprintf(t, "%s\t%s\t%s\n", s.Variable, s.Key, s.Value)
			}
			return t.Flush()
		},
	}
	return group("config", "Check and show the configuration", check, show, env)
}

// configFailure ends with 78 whatever was wrong with the file.
type configFailure struct{ error }

func (e configFailure) Unwrap() error { return e.error }

// exists says whether a file is there.
func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

// setting is one row of config show and env --json.
type setting struct {
	Key      string `json:"key"`
	Value    string `json:"value"` // as TOML
	Variable string `json:"variable"`
	Given    bool   `json:"given"`
	Where    string `json:"where,omitempty"`
}

func settingsOf(cfg *config.Config) []setting {
	var out []setting
	for _, s := range cfg.Settings() {
		out = append(out, setting{s.Key, s.Value, s.Variable, s.Given, s.Pos.String()})
	}
	return out
}

// mistakes ends a check: each on a line of standard error, or one JSON object.
func (a *app) mistakes(name string, err error) error {
	var many sdk.ConfigErrors
	if !a.json || !errors.As(err, &many) {
		return configFailure{err}
	}
	type mistake struct {
		File       string `json:"file"`
		Line       int    `json:"line"`
		Column     int    `json:"column"`
		Key        string `json:"key,omitempty"`
		Text       string `json:"text"`
		Suggestion string `json:"suggestion,omitempty"`
	}
	out := struct {
		OK       bool      `json:"ok"`
		File     string    `json:"file"`
		Mistakes []mistake `json:"mistakes"`
	}{File: name}
	for _, m := range many {
		out.Mistakes = append(out.Mistakes, mistake{m.Pos.File, m.Pos.Line, m.Pos.Column, m.Key, m.Text, m.Suggestion})
	}
	if err := a.emit(out); err != nil {
		return err
	}
	return silent{exitConfig}
}
