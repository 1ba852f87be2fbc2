package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	gorunner "github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/internal/wire"
	"github.com/commucat/commucat/sdk/internal/wire/handoff"
	"github.com/commucat/commucat/sdk/internal/wire/wirepb"
)

// execPath is how a child executes the binary: its descriptor in the child.
var execPath = fmt.Sprintf("/proc/self/fd/%d", wire.Binary)

// command is the command of a binary, without the hand-off socket.
func (o *Options) command(args ...string) *exec.Cmd {
	return &exec.Cmd{Path: execPath, Args: append(append([]string{o.Name}, o.Args...), args...), Env: []string{}}
}

// Start starts a binary, asks for its description and returns when its plugins can be
// opened. ctx bounds the start alone. An error names the binary and what to do; one of
// kind sdk.Unsupported says that the binary speaks no protocol of this program's.
func Start(ctx context.Context, o Options) (*Process, error) {
	o.fill()
	p, err := start(ctx, o)
	if err != nil {
		return nil, &sdk.Error{Kind: sdk.KindOf(err), Op: "plugin " + o.Name, Err: err}
	}
	return p, nil
}

func start(ctx context.Context, o Options) (_ *Process, err error) {
	if o.File == nil {
		return nil, &sdk.Error{Kind: sdk.Invalid, Text: "no file"}
	}
	ctx, cancel := context.WithTimeout(ctx, o.StartTimeout)
	defer cancel()
	sweep(o, time.Now())
	dir, err := privateFolder(o)
	if err != nil {
		return nil, err
	}
	p := &Process{
		o: o, log: o.Log.With("plugin_binary", o.Name), dir: dir, pumps: handoff.NewPumps(), ended: make(chan struct{}), done: make(chan struct{}), leave: make(chan struct{}),
		instances: map[uint64]*instance{}, dials: map[uint64]chan handed{},
	}
	p.life, p.cancel = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			p.abandon()
		}
	}()
	main, theirs, err := handoff.Pair(&p.counters)
	if err != nil {
		return nil, err
	}
	p.main = main
	client := goplugin.NewClient(p.config(ctx, theirs))
	p.client = client
	conn, err := p.connect(ctx, client)
	theirs.Close()
	if err != nil {
		return nil, p.why(ctx, err)
	}
	p.conn, p.control = conn, wirepb.NewControlClient(conn)
	if err := p.describe(ctx); err != nil {
		return nil, p.why(ctx, err)
	}
	p.begin()
	return p, nil
}

func (p *Process) config(ctx context.Context, theirs *os.File) *goplugin.ClientConfig {
	deadline, _ := ctx.Deadline()
	p.stray = newLogs(0, time.Now, p.logger)
	return &goplugin.ClientConfig{
		HandshakeConfig:  goplugin.HandshakeConfig{MagicCookieKey: wire.CookieKey, MagicCookieValue: wire.CookieValue},
		VersionedPlugins: map[int]goplugin.PluginSet{wire.Base: {wire.Service: dispenser{}}},
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		StartTimeout:     time.Until(deadline),
		AutoMTLS:         true,
		SkipHostEnv:      true,
		UnixSocketConfig: &goplugin.UnixSocketConfig{TempDir: p.dir.path},
		Logger:           hclog.New(&hclog.LoggerOptions{Level: hclog.Off, Output: io.Discard}),
		SyncStdout:       io.Discard,
		SyncStderr:       p.stray,
		GRPCDialOptions: []grpc.DialOption{
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(wire.MaxControl), grpc.MaxCallSendMsgSize(wire.MaxMessage)),
			grpc.WithChainStreamInterceptor(p.paceOutput),
		},
		RunnerFunc: func(_ hclog.Logger, spec *exec.Cmd, dir string) (gorunner.Runner, error) {
			cmd := p.o.command()
			cmd.Env = append(cmd.Env, spec.Env...)
			cmd.ExtraFiles = []*os.File{theirs, p.o.File} // descriptors 3 and 4
			r, err := newRunner(cmd, &p.o, dir)
			if err != nil {
				return nil, err
			}
			p.runner, r.pace = r, p.pace()
			r.onStart = func() {
				p.logs, p.stray.pid = newLogs(r.pid, time.Now, p.logger), r.pid
				p.group.Go(func() {
					defer close(r.heard)
					p.logs.read(pacedReader{r.stderr, p.pace()})
				})
			}
			return r, nil
		},
	}
}

// pace is one for output of this process, until Close.
func (p *Process) pace() *pace {
	return newPace(time.Now, func(d time.Duration) { pause(p.life, d) })
}

// paceOutput slows that call down like the pipes.
func (p *Process) paceOutput(ctx context.Context, d *grpc.StreamDesc, c *grpc.ClientConn, method string, open grpc.Streamer, o ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := open(ctx, d, c, method, o...)
	if err != nil || method != wire.OutputCall {
		return s, err
	}
	return &pacedStream{s, p.pace()}, nil
}

// pacedStream is a stream of messages that is read at a pace.
type pacedStream struct {
	grpc.ClientStream
	pace *pace
}

// RecvMsg implements grpc.ClientStream.
func (s *pacedStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err == nil {
		s.pace.took(wire.Size(m) + paceEach)
	}
	return err
}

// dispenser gives the connection itself.
type dispenser struct {
	goplugin.NetRPCUnsupportedPlugin
}

// GRPCServer implements goplugin.GRPCPlugin; the server is sdk/plugin.
func (dispenser) GRPCServer(*goplugin.GRPCBroker, *grpc.Server) error {
	return errors.New("not a plugin")
}

// GRPCClient implements goplugin.GRPCPlugin.
func (dispenser) GRPCClient(_ context.Context, _ *goplugin.GRPCBroker, c *grpc.ClientConn) (any, error) {
	return c, nil
}

// connect starts the process and connects to it; both end with ctx.
func (p *Process) connect(ctx context.Context, client *goplugin.Client) (*grpc.ClientConn, error) {
	type result struct {
		conn *grpc.ClientConn
		err  error
	}
	got := make(chan result, 1)
	go func() {
		c, err := client.Client()
		if err != nil {
			got <- result{err: err}
			return
		}
		conn, err := c.Dispense(wire.Service)
		if err != nil {
			got <- result{err: err}
			return
		}
		got <- result{conn: conn.(*grpc.ClientConn)}
	}()
	// go-plugin heeds its own timeout, which is ctx's; a cancelled ctx ends the
	// process, and with it the wait.
	stop := context.AfterFunc(ctx, func() { client.Kill() })
	defer stop()
	r := <-got
	return r.conn, r.err
}

// why explains a start that went wrong.
func (p *Process) why(ctx context.Context, err error) error {
	if p.runner != nil && p.runner.pid != 0 {
		select {
		case <-p.runner.exited:
			if !p.runner.wasKilled() {
				return &sdk.Error{Kind: sdk.Unavailable, Text: "it ended before it could be used: " + p.reason()}
			}
		case <-time.After(200 * time.Millisecond):
		}
	}
	if ctx.Err() != nil {
		return fmt.Errorf("it did not answer in time: %w", ctx.Err())
	}
	text := err.Error()
	switch {
	case sdk.KindOf(err) != sdk.Other:
		return err
	case strings.HasPrefix(text, "incompatible API version"), strings.Contains(text, "Incompatible API version"):
		return &sdk.Error{Kind: sdk.Unsupported, Text: fmt.Sprintf("it is of another generation than this program (base protocol %d): install matching versions", wire.Base)}
	case strings.HasPrefix(text, "Unrecognized remote plugin message"), strings.HasPrefix(text, "incompatible core API"):
		return &sdk.Error{Kind: sdk.Invalid, Text: "it does not answer as a plugin does: is it one?"}
	}
	line, _, _ := strings.Cut(text, "\n")
	return errors.New(printable(line, 300))
}

// describe asks what the binary holds and chooses protocols.
func (p *Process) describe(ctx context.Context) error {
	r, err := p.control.Describe(ctx, &wirepb.DescribeRequest{})
	if err != nil {
		return wire.CallError(ctx, err, nil)
	}
	d, err := wire.ParseDocument(r.Document)
	if err != nil {
		return err
	}
	speaks := p.o.protocols
	if speaks == nil {
		speaks = wire.Protocols
	}
	for i := range d.Plugins {
		one := &d.Plugins[i]
		r := remote{p: p, d: one}
		if r.protocol, err = wire.Choose(one.Name, speaks(one.SDKKind()), one.Protocols); err != nil {
			return err
		}
		p.protocols = append(p.protocols, r.protocol)
		switch one.SDKKind() {
		case sdk.Transport:
			p.plugins = append(p.plugins, &remoteTransport{r})
		case sdk.Storage:
			p.plugins = append(p.plugins, &remoteStorage{r})
		case sdk.Ledger:
			p.plugins = append(p.plugins, &remoteLedger{r})
		}
	}
	p.description, p.checks = description(d), d.Checks
	return nil
}

// begin starts what lives as long as the process.
func (p *Process) begin() {
	received := make(chan struct{})
	p.group.Go(func() { p.receive(); close(received) })
	p.group.Go(func() { p.events(p.life) })
	go p.watch(received)
}

// abandon undoes a start.
func (p *Process) abandon() {
	p.cancel()
	if p.main != nil {
		p.main.Close()
	}
	go func() {
		defer close(p.done)
		// First: what the process left behind may hold its pipes for ever, and the
		// library waits for their end.
		p.runner.finish()
		if p.client != nil {
			p.client.Kill()
		}
		p.group.Wait()
		p.dir.remove()
	}()
	_ = p.settled(p.done, tidying)
}

// logger is where a plugin's log lines go; "" is the process's own.
func (p *Process) logger(plugin string) *slog.Logger {
	if plugin != "" {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, i := range p.instances {
			if i.plugin == plugin {
				return i.log
			}
		}
	}
	return p.log
}
