package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/commucat/commucat/core/api"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/client"
)

// Version is stamped by the Makefile.
var version = "devel"

// Exit codes of every command.
const (
	exitOK      = 0
	exitFailed  = 1
	exitUsage   = 2
	exitRefused = 3
	exitTimeout = 4
	exitConfig  = 78
)

// streams are the program's files.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// app is what the commands share.
type app struct {
	streams
	stdout  *results
	json    bool
	verbose bool
}

// results is standard output; it keeps its first error.
type results struct {
	w   io.Writer
	err error
}

func (r *results) Write(b []byte) (int, error) {
	n, err := r.w.Write(b)
	if r.err == nil {
		r.err = err
	}
	return n, err
}

// usageError is a mistake in the command line.
type usageError struct{ error }

// silent ends with a code; what there is to say has been said.
type silent struct{ code int }

func (silent) Error() string { return "" }

// run executes one command line and gives the exit code.
func run(ctx context.Context, s streams, args []string) int {
	a := &app{streams: s, stdout: &results{w: s.out}}
	a.out = a.stdout
	root := a.command()
	root.SetArgs(args)
	root.SetIn(s.in)
	root.SetOut(a.out)
	root.SetErr(s.err)
	ran, err := root.ExecuteContextC(ctx)
	if err == nil {
		err = a.stdout.err // a result that nobody could read is none
	}
	if err == nil {
		return exitOK
	}
	code := exitCode(err)
	if text := err.Error(); text != "" {
		if code != exitConfig {
			text = "commucat: " + text // mistakes in a file begin with its name
		}
		fmt.Fprintln(s.err, text)
		if code == exitUsage {
			fmt.Fprintf(s.err, "Run '%s --help' for how it is used.\n", ran.CommandPath())
		}
	}
	return code
}

func exitCode(err error) int {
	var (
		usage  usageError
		quiet  silent
		config sdk.ConfigErrors
		file   configFailure
		ce     *client.Error
		no     *api.Problem
	)
	switch {
	case errors.As(err, &quiet):
		return quiet.code
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &config), errors.As(err, &file):
		return exitConfig
	case errors.Is(err, context.DeadlineExceeded):
		return exitTimeout
	case errors.As(err, &ce) && ce.Kind == client.Refused, errors.As(err, &no) && no.Status/100 == 4:
		return exitRefused
	}
	return exitFailed
}

func (a *app) command() *cobra.Command {
	root := &cobra.Command{
		Use:   "commucat",
		Short: "A relay for secure messaging that stays reachable in hostile networks",
		Long: "A relay for secure messaging that stays reachable in hostile networks.\n\n" +
			"Start one with 'commucat serve', register with the link that it prints, and send a message.",
		SilenceErrors: true, SilenceUsage: true, Version: version,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return noCommand(c, "there", args[0])
			}
			return nil
		},
		PersistentPreRunE: notNegative,
		RunE:              func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetHelpCommand(&cobra.Command{
		Use: "help [COMMAND]", Short: "Help about any command", Args: cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			c, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return noCommand(root, "there", strings.Join(args, " "))
			}
			c.InitDefaultHelpFlag()
			c.InitDefaultVersionFlag()
			return c.Help()
		},
	})
	root.SetVersionTemplate("commucat {{.Version}}\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print JSON on standard output")
	root.PersistentFlags().BoolVarP(&a.verbose, "verbose", "v", false, "say more on standard error")
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(
		a.serveCommand(), a.initCommand(), a.configCommand(), a.clientCommand(), a.linkCommand(),
		a.userCommand(), a.deviceCommand(), a.keysCommand(), a.storageCommand(), a.migrateCommand(), a.backupCommand(), a.auditCommand(), a.pluginCommand(), a.transportCommand(), a.statusCommand(), a.doctorCommand(), a.probeCommand(), a.demoCommand(), a.benchCommand(),
	)
	return root
}

// noCommand is the error for a word that is no command of c; it names the one that
// was probably meant.
func noCommand(c *cobra.Command, where, name string) error {
	text := fmt.Sprintf("%s is no command %q", where, name)
	var known []string
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			known = append(known, sub.Name())
		}
	}
	if s := sdk.Suggest(name, known); s != "" {
		text += fmt.Sprintf(" (did you mean %q?)", s)
	} else if s := elsewhere(name); s != "" && !c.HasParent() {
		text += ": " + s
	}
	return usageError{errors.New(text)}
}

// elsewhere says what does here what a command of the reference's program did.
func elsewhere(name string) string {
	switch name {
	case "register-user":
		return "an account begins with a link, on its first device; 'commucat link create' makes one"
	case "rotate-keys":
		return "devices make their own keys; 'commucat keys rotate' renews the relay's"
	case "diagnostics", "diagnose":
		return "it is 'commucat doctor'"
	}
	return ""
}

// notNegative refuses what would else be taken for "without a limit".
func notNegative(c *cobra.Command, _ []string) (err error) {
	c.Flags().Visit(func(f *pflag.Flag) {
		if kind := f.Value.Type(); (kind == "duration" || kind == "int") && strings.HasPrefix(f.Value.String(), "-") {
			err = usageError{fmt.Errorf("--%s: %s is less than nothing", f.Name, f.Value)}
		}
	})
	return err
}

// exactly refuses another number of arguments with a usage error.
func exactly(n int, names string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != n {
			if n == 0 {
				return usageError{errors.New("this command takes no arguments")}
			}
			return usageError{fmt.Errorf("expected %s", names)}
		}
		return nil
	}
}

// group is a command that only has sub-commands.
func group(use, short string, subs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return noCommand(c, "in '"+use+"' there", args[0])
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(subs...)
	return c
}

// emit prints one JSON line.
func (a *app) emit(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = a.out.Write(append(b, '\n'))
	return err
}

// say prints a line for people, on standard error.
func (a *app) say(format string, args ...any) { fmt.Fprintf(a.err, format+"\n", args...) }

// log is the client commands' logger.
func (a *app) log() *slog.Logger {
	level := slog.LevelWarn
	if a.verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: level}))
}
