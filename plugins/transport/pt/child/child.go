package child

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/commucat/commucat/plugins/transport/pt/managed"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// Method is one transport that is offered.
type Method struct {
	// Name is what Tor calls it.
	Name   string
	Plugin sdk.Plugin
	// Prepare completes the table of the server side, for example by a key that is
	// kept in the state folder; may be nil.
	Prepare func(state string, table map[string]any) error
	// Site says that the server side shows strangers a web site that it is lent: the
	// option "cover" is that site's URL, which is no key of the transport's then.
	Site bool
}

// Main is the program: it returns the exit code when the parent has gone.
func Main(methods ...Method) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if os.Getenv("TOR_PT_MANAGED_TRANSPORT_VER") == "" {
		fmt.Fprintf(os.Stderr, "%s is a pluggable transport: tor starts it, by ClientTransportPlugin or ServerTransportPlugin.\nIt offers %s.\n",
			filepath.Base(os.Args[0]), strings.Join(names(methods), ", "))
		return 2
	}
	if os.Getenv("TOR_PT_EXIT_ON_STDIN_CLOSE") == "1" {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		go func() {
			defer cancel()
			_, _ = io.Copy(io.Discard, os.Stdin) // its end is all that matters
		}()
	}
	if err := Run(ctx, os.Getenv, os.Stdout, methods...); err != nil {
		return 1
	}
	return 0
}

func names(methods []Method) []string {
	var out []string
	for _, m := range methods {
		out = append(out, m.Name)
	}
	return out
}

// parent is what the parent wants.
type parent struct {
	state   string
	wanted  []string
	server  bool
	bind    map[string]netip.AddrPort
	options string
	orport  string
	ext     string
	cookie  *managed.Cookie
}

// read reads the environment (pt-spec, section 3.2).
func read(getenv func(string) string) (p parent, err error) {
	if !slices.Contains(strings.Split(getenv("TOR_PT_MANAGED_TRANSPORT_VER"), ","), "1") {
		return p, errVersion
	}
	if p.state = getenv("TOR_PT_STATE_LOCATION"); p.state == "" {
		return p, errors.New("TOR_PT_STATE_LOCATION is missing")
	}
	client, server := getenv("TOR_PT_CLIENT_TRANSPORTS"), getenv("TOR_PT_SERVER_TRANSPORTS")
	if (client == "") == (server == "") {
		return p, errors.New("one of TOR_PT_CLIENT_TRANSPORTS and TOR_PT_SERVER_TRANSPORTS must be there")
	}
	p.wanted = strings.Split(client+server, ",")
	if server == "" {
		if getenv("TOR_PT_PROXY") != "" {
			return p, errProxy
		}
		return p, nil
	}
	p.server, p.options, p.orport, p.ext = true, getenv("TOR_PT_SERVER_TRANSPORT_OPTIONS"), getenv("TOR_PT_ORPORT"), getenv("TOR_PT_EXTENDED_SERVER_PORT")
	p.bind = map[string]netip.AddrPort{}
	for part := range strings.SplitSeq(getenv("TOR_PT_SERVER_BINDADDR"), ",") {
		name, at, ok := strings.Cut(part, "-")
		if !ok {
			continue
		}
		if p.bind[name], err = netip.ParseAddrPort(at); err != nil {
			return p, fmt.Errorf("TOR_PT_SERVER_BINDADDR: %w", err)
		}
	}
	if p.ext != "" {
		if p.cookie, err = managed.ReadCookie(getenv("TOR_PT_AUTH_COOKIE_FILE")); err != nil {
			return p, fmt.Errorf("TOR_PT_AUTH_COOKIE_FILE: %w", err)
		}
	} else if p.orport == "" {
		return p, errors.New("neither TOR_PT_ORPORT nor TOR_PT_EXTENDED_SERVER_PORT is there")
	}
	return p, nil
}

var (
	errVersion = errors.New("no-version")
	errProxy   = errors.New("proxies are not supported")
)

// output is the standard output, one line at a time.
type output struct {
	mu sync.Mutex
	w  io.Writer
}

func (o *output) line(l managed.Line) {
	o.mu.Lock()
	defer o.mu.Unlock()
	fmt.Fprintln(o.w, oneLine(l.String()))
}

func oneLine(s string) string {
	return strings.NewReplacer("\n", " ", "\r", " ", "\x00", " ").Replace(s)
}

// Run speaks with the parent and carries connections until ctx ends. The error is what
// the parent has been told.
func Run(ctx context.Context, getenv func(string) string, stdout io.Writer, methods ...Method) error {
	out := &output{w: stdout}
	p, err := read(getenv)
	switch {
	case errors.Is(err, errVersion):
		out.line(managed.Line{Word: managed.VersionError, Text: err.Error()})
		return err
	case errors.Is(err, errProxy):
		out.line(managed.Line{Word: managed.Version, Text: "1"})
		out.line(managed.Line{Word: managed.ProxyError, Text: err.Error()})
		return err
	case err != nil:
		out.line(managed.Line{Word: managed.EnvError, Text: err.Error()})
		return err
	}
	out.line(managed.Line{Word: managed.Version, Text: "1"})
	var group sync.WaitGroup
	defer group.Wait()
	bad, done := managed.CMethodError, managed.CMethodsDone
	if p.server {
		bad, done = managed.SMethodError, managed.SMethodsDone
	}
	for _, name := range p.wanted {
		i := slices.IndexFunc(methods, func(m Method) bool { return m.Name == name })
		if i < 0 {
			if managed.ValidMethod(name) {
				out.line(managed.Line{Word: bad, Method: name, Text: "there is no such transport here"})
			}
			continue
		}
		c := &carrier{parent: p, method: methods[i], out: out}
		begin := c.client
		if p.server {
			begin = c.server
		}
		if err := begin(ctx, &group); err != nil {
			out.line(managed.Line{Word: bad, Method: name, Text: err.Error()})
		}
	}
	out.line(managed.Line{Word: done})
	<-ctx.Done()
	return nil
}

// carrier is one method at work.
type carrier struct {
	parent
	method Method
	out    *output
}

// env is what the transport is lent.
func (c *carrier) env(state string, cover http.Handler) sdk.Env {
	return sdk.NewEnv(sdk.EnvOptions{State: state, Cover: cover, Log: slog.New(&lines{c.out, c.method.Name})})
}

// site shows the web site at a URL.
func site(text string) (http.Handler, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("option cover: the URL of the web site that strangers are shown is required")
	}
	// Its log holds addresses, and the parent writes down what its child says.
	return &httputil.ReverseProxy{ErrorLog: log.New(io.Discard, "", 0), Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(u) }}, nil
}

// open opens the transport.
func (c *carrier) open(ctx context.Context, env sdk.Env, table map[string]any) (transport.Opened, error) {
	return transport.Open(ctx, c.method.Plugin, env, table)
}

// lines writes a transport's warnings as LOG lines.
type lines struct {
	out  *output
	name string
}

// Enabled lets warnings and errors through.
func (l *lines) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

// Handle writes one record.
func (l *lines) Handle(_ context.Context, r slog.Record) error {
	severity := "warning"
	if r.Level >= slog.LevelError {
		severity = "error"
	}
	l.out.line(managed.Line{Word: managed.Log, Args: managed.Args{{Key: "SEVERITY", Value: severity}, {Key: "MESSAGE", Value: l.name + ": " + r.Message}}})
	return nil
}

// WithAttrs leaves attributes out: they may hold addresses.
func (l *lines) WithAttrs([]slog.Attr) slog.Handler { return l }

// WithGroup changes nothing.
func (l *lines) WithGroup(string) slog.Handler { return l }
