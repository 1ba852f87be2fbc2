package plugin

import (
	"context"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"reflect"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/internal/wire"
	"github.com/commucat/commucat/sdk/internal/wire/handoff"
	"github.com/commucat/commucat/sdk/internal/wire/wirepb"
)

// closing is how long open plugins may take to close when the host has gone.
const closing = 2 * time.Second

// Serve runs a plugin binary and does not return. Plugins of one binary must have
// different names. Nothing may be written to the standard output before it.
//
// Records of Env.Log go to the relay's log as JSON on the standard error. Interrupts
// and terminations are left to the relay, which drains a plugin before it ends it;
// the process ends when the relay does.
func Serve(plugins ...sdk.Plugin) {
	m := &program{plugins: plugins, protocols: wire.Protocols, stdout: os.Stdout, stderr: os.Stderr}
	os.Exit(m.run(os.Args, os.Getenv))
}

// program is what main works with.
type program struct {
	plugins        []sdk.Plugin
	protocols      func(sdk.Kind) []uint32
	stdout, stderr *os.File
}

func (m *program) run(args []string, getenv func(string) string) int {
	switch {
	case len(m.plugins) == 0:
		fmt.Fprintln(m.stderr, "plugin.Serve was called without a plugin")
		return 1
	case len(args) == 2 && args[1] == "describe":
		return m.describe()
	case getenv(wire.CookieKey) != wire.CookieValue:
		m.explain(m.stderr, filepath.Base(args[0]))
		return 2
	}
	showName(filepath.Base(args[0]))
	if err := m.serve(); err != nil {
		fmt.Fprintln(m.stderr, err)
		return 1
	}
	return 0
}

func (m *program) describe() int {
	e := json.NewEncoder(m.stdout)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(wire.Describe(m.plugins, m.protocols)); err != nil {
		fmt.Fprintln(m.stderr, err)
		return 1
	}
	return 0
}

// explain says to who started the binary by hand what it is.
func (m *program) explain(w io.Writer, name string) {
	fmt.Fprintf(w, "%s is a plugin of a CommuCat relay, which starts it:\n\n", name)
	for _, p := range m.plugins {
		fmt.Fprintf(w, "  %s %s %s: %s\n", wire.KindName(p.Kind()), p.Name(), p.Version(), p.Summary())
	}
	fmt.Fprintf(w, "\n  %s describe              shows all of it, and its configuration, as JSON\n", name)
	fmt.Fprintf(w, "  commucat plugin add FILE    lets a relay use it\n")
}

// serve runs until the host has gone or ended this process.
func (m *program) serve() error {
	main, err := handoff.NewSocket(wire.Handoff, new(handoff.Counters))
	if err != nil {
		return fmt.Errorf("%w: a plugin is started by its relay", err)
	}
	dropBinary()
	// The relay drains plugins; a signal to its whole group must not anticipate that.
	// The handlers, unlike ignored signals, are not inherited by other programs.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	s := newServer(m.plugins, m.protocols, main, m.stderr)
	go s.receive()
	go func() {
		<-s.gone
		ctx, cancel := context.WithTimeout(context.Background(), closing)
		defer cancel()
		s.close(ctx)
		os.Exit(0)
	}()
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig:  goplugin.HandshakeConfig{MagicCookieKey: wire.CookieKey, MagicCookieValue: wire.CookieValue},
		VersionedPlugins: map[int]goplugin.PluginSet{wire.Base: {wire.Service: &service{server: s}}},
		GRPCServer: func(o []grpc.ServerOption) *grpc.Server {
			return grpc.NewServer(append(o, grpc.MaxRecvMsgSize(wire.MaxMessage), grpc.MaxConcurrentStreams(4096))...)
		},
		Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Warn, Output: m.stderr, JSONFormat: true}),
	})
	return nil
}

// service registers the server with go-plugin.
type service struct {
	goplugin.NetRPCUnsupportedPlugin
	server *server
}

// GRPCServer implements goplugin.GRPCPlugin.
func (s *service) GRPCServer(_ *goplugin.GRPCBroker, g *grpc.Server) error {
	wirepb.RegisterControlServer(g, &control{server: s.server})
	wirepb.RegisterTransportServer(g, &transports{server: s.server})
	wirepb.RegisterStorageServer(g, &storages{server: s.server})
	wirepb.RegisterLedgerServer(g, &ledgers{server: s.server})
	return nil
}

// GRPCClient implements goplugin.GRPCPlugin; the client is sdk/host.
func (s *service) GRPCClient(context.Context, *goplugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.New("not a host")
}

// newLog is the logger of one opened plugin. Values arrive as they would be shown here:
// an address is a text.
func newLog(w io.Writer, name string, level slog.Level) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: text})).With("plugin", name)
}

func text(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() != slog.KindAny {
		return a
	}
	switch v := a.Value.Any().(type) {
	case json.Marshaler, encoding.TextMarshaler, error:
	case fmt.Stringer:
		if !isNil(v) {
			a.Value = slog.StringValue(v.String())
		}
	}
	return a
}

func isNil(v any) bool {
	r := reflect.ValueOf(v)
	return r.Kind() == reflect.Pointer && r.IsNil()
}
