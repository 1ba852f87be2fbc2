package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/cobra"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/host"
	"github.com/commucat/commucat/sdk/plugintest"
	"github.com/commucat/commucat/sdk/storage"
)

const checkHelp = `Run the conformance suite against a plugin's binary, in any language.

The configuration is a TOML file with the plugin's own keys. A transport has two tables,
[server] and [client], one for each half. Storages and ledgers are opened empty many
times: {id} in a text stands for something that is different each time, for example
schema = "check_{id}". One that is not empty is refused before anything is written.
Files are looked up beside the configuration.

The binary runs without a sandbox and with your rights: check only what you would run.`

func (a *app) pluginCheckCommand() *cobra.Command {
	var o checkOptions
	c := &cobra.Command{
		Use:   "check FILE [--config FILE] [--plugin NAME]",
		Short: "Run the conformance suite against a plugin's binary",
		Long:  checkHelp,
		Args:  exactly(1, "the plugin's binary"),
		RunE: func(c *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeout(c.Context(), o.timeout)
			defer cancel()
			return a.pluginCheck(ctx, args[0], o)
		},
	}
	c.Flags().StringVar(&o.config, "config", "", "TOML file with the plugin's keys")
	c.Flags().StringVar(&o.plugin, "plugin", "", "check this plugin of the binary alone")
	c.Flags().IntVar(&o.clients, "clients", 1000, "clients of a transport at once")
	c.Flags().BoolVar(&o.forgets, "forgets", false, "the storage keeps nothing over a restart")
	c.Flags().DurationVar(&o.timeout, "timeout", 15*time.Minute, "give up after this time")
	return c
}

type checkOptions struct {
	config, plugin string
	clients        int
	forgets        bool
	timeout        time.Duration
}

// checker is one run of the suite.
type checker struct {
	checkOptions
	file *os.File
	keys map[string]any
	dir  string // of the configuration
}

func (a *app) pluginCheck(ctx context.Context, name string, o checkOptions) error {
	k := &checker{checkOptions: o, keys: map[string]any{}, dir: filepath.Dir(o.config)}
	if o.config != "" {
		b, err := readSmall(o.config)
		if err != nil {
			return err
		}
		if err := toml.Unmarshal(b, &k.keys); err != nil {
			return fmt.Errorf("%s: %w", o.config, err)
		}
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	k.file = f
	d, err := host.Describe(ctx, f)
	if err != nil {
		return err
	}
	found, failed := false, 0
	for _, p := range d.Plugins {
		if o.plugin != "" && p.Name != o.plugin {
			continue
		}
		found = true
		n, err := a.checkOne(ctx, k, p)
		if err != nil {
			return err
		}
		failed += n
	}
	switch {
	case !found:
		return fmt.Errorf("%s holds no plugin %q", name, o.plugin)
	case failed > 0:
		return fmt.Errorf("%d cases failed", failed)
	}
	return nil
}

// checkGrace is how long a case may take to notice that the check is over.
const checkGrace = 5 * time.Second

// checkOne runs the suite of one plugin and counts the cases that failed. A case that
// hangs in its plugin ends with this process.
func (a *app) checkOne(ctx context.Context, k *checker, p host.PluginDescription) (int, error) {
	results, ended := make(chan plugintest.Result), make(chan struct{})
	go func() {
		defer close(ended)
		plugintest.Run(ctx, p.Name, func(r plugintest.Result) {
			select {
			case results <- r:
			case <-ctx.Done():
			}
		}, func(t plugintest.T) {
			switch p.Kind {
			case sdk.Transport:
				k.transport(t, p.Name)
			case sdk.Storage:
				k.storage(t, p.Name)
			case sdk.Ledger:
				k.ledger(t, p.Name)
			default:
				t.Errorf("a plugin of an unknown kind")
			}
		})
	}()
	failed := 0
	for {
		select {
		case r := <-results:
			if r.Failed {
				failed++
			}
			a.reportCase(r)
			continue
		case <-ended:
			return failed, ctx.Err()
		case <-ctx.Done():
		}
		select {
		case <-ended:
			return failed, ctx.Err()
		case <-time.After(checkGrace):
			return failed, fmt.Errorf("the suite of %s was cut off: a case hangs: %w", p.Name, ctx.Err())
		}
	}
}

func (a *app) reportCase(r plugintest.Result) {
	word := "ok"
	switch {
	case r.Failed:
		word = "FAIL"
	case r.Skipped:
		word = "skip"
	}
	if a.json {
		_ = a.emit(struct { // a closed pipe ends the command by itself
			Case    string  `json:"case"`
			Result  string  `json:"result"`
			Seconds float64 `json:"seconds"`
			Log     string  `json:"log,omitempty"`
		}{r.Name, strings.ToLower(word), r.Took.Seconds(), r.Log})
		return
	}
	fmt.Fprintf(a.out, "%-4s  %7.2fs  %s\n", word, r.Took.Seconds(), r.Name)
	if r.Failed || a.verbose {
		for line := range strings.Lines(r.Log) {
			fmt.Fprintf(a.out, "      %s", line)
		}
	}
}

func (k *checker) start(t testing.TB) *host.Process {
	return plugintest.Start(t, k.file, host.Options{Log: slog.New(slog.DiscardHandler)})
}

// find gives the plugin of a process that lives as long as t.
func (k *checker) find(t testing.TB, name string) sdk.Plugin {
	for _, p := range k.start(t).Plugins() {
		if p.Name() == name {
			return p
		}
	}
	t.Fatalf("the binary describes a plugin %q and has none", name)
	return nil
}

// table is a configuration with its files and secrets read, and {id} replaced.
func (k *checker) table(t testing.TB, p sdk.Plugin, raw map[string]any, id string) map[string]any {
	t.Helper()
	out, err := sdk.Resolve(p.Config(), replace(raw, id).(map[string]any), sdk.Files{Dir: k.dir})
	if err != nil {
		t.Fatalf("%s: %v", k.config, err)
	}
	return out
}

// replace puts id in the place of {id}.
func replace(v any, id string) any {
	switch v := v.(type) {
	case string:
		return strings.ReplaceAll(v, "{id}", id)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = replace(v[i], id)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for key := range v {
			out[key] = replace(v[key], id)
		}
		return out
	}
	return v
}

func (k *checker) transport(t plugintest.T, name string) {
	p := k.find(t, name)
	half := func(which string) func(testing.TB) map[string]any {
		raw, _ := k.keys[which].(map[string]any)
		return func(t testing.TB) map[string]any { return k.table(t, p, raw, "") }
	}
	plugintest.ProcessCases(t, k.start, name, plugintest.PluginOptions{
		Server: half("server"), Client: half("client"), Clients: k.clients,
	})
}

// folderID is {id} for a folder of the suite: the same for the same folder.
func folderID(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return hex.EncodeToString(sum[:8])
}

func (k *checker) storage(t plugintest.T, name string) {
	p := k.find(t, name)
	plugintest.StorageCases(t, func(ctx context.Context, dir string) (storage.Store, error) {
		return storage.Open(ctx, p, sdk.NewEnv(sdk.EnvOptions{State: dir}), k.table(t, p, k.keys, folderID(dir)))
	}, plugintest.StorageOptions{Forgets: k.forgets, Source: storage.TraitsOf(p).Source})
}

func (k *checker) ledger(t plugintest.T, name string) {
	p := k.find(t, name)
	plugintest.LedgerCases(t, p, plugintest.LedgerOptions{
		Config: k.table(t, p, k.keys, ""),
		Fresh: func(t testing.TB) map[string]any {
			return k.table(t, p, k.keys, folderID(t.TempDir()))
		},
	})
}
