package pluginhost

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"

	"github.com/commucat/commucat/core/pluginhost/sandbox"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/host"
	"github.com/commucat/commucat/sdk/transport"
)

// Limits of a plugin's process.
const (
	maxDescriptors = 65536
	maxThreads     = 4096
)

// child is a process to be started.
type child struct {
	h        *Host
	name     string // in logs
	file     *os.File
	profile  sandbox.Profile // without user, folders and limits
	owner    owner
	state    string // its own folder, "" none
	settings Settings
	log      *slog.Logger
}

// launch starts the process inside its sandbox.
func (c *child) launch(ctx context.Context) (*host.Process, error) {
	k := c.h.kernel
	if missing := k.Missing(); missing != "" && !c.settings.BestEffort && !c.h.opt.Unconfined {
		return nil, refuse(c.name, "this kernel has no %s, so that the plugin cannot be confined; set plugin.NAME.sandbox = \"best-effort\" to run it all the same", missing)
	}
	o := host.Options{File: c.file, Name: c.name, Log: c.log, Runtime: c.h.opt.Runtime, Command: c.command}
	if c.owner.uid != 0 {
		o.Owner = &host.Owner{UID: c.owner.uid, GID: c.owner.gid}
	}
	return host.Start(ctx, o)
}

// complete is the profile with everything that is known at the start.
func (c *child) complete() sandbox.Profile {
	p := c.profile
	p.UID, p.GID = c.owner.uid, c.owner.gid
	p.Descriptors, p.Memory = maxDescriptors, c.settings.Memory
	if c.owner.uid != 0 {
		p.Processes = maxThreads
	}
	p.Read = append(slices.Clone(p.Read), c.settings.Read...)
	p.Write = append(slices.Clone(p.Write), c.settings.Write...)
	if c.state != "" {
		p.Write = append([]string{c.state}, p.Write...)
	}
	p.BestEffort = c.settings.BestEffort
	return p
}

// command is the last change before the start.
func (c *child) command(cmd *exec.Cmd) error {
	if c.h.opt.Unconfined {
		return nil
	}
	p := c.complete()
	for _, v := range cmd.Env {
		if dir, ok := strings.CutPrefix(v, "PLUGIN_UNIX_SOCKET_DIR="); ok {
			// Its control socket, and a place for temporary files.
			p.Write = append(p.Write, dir)
			cmd.Env = append(cmd.Env, "TMPDIR="+dir)
		}
	}
	if c.state != "" {
		cmd.Env = append(cmd.Env, "HOME="+c.state)
	}
	return sandbox.Wrap(cmd, p, c.h.opt.Trampoline)
}

// pick finds the listed plugin in a process and checks that it is what the list says:
// a binary may lie about itself.
func pick(p *host.Process, e Entry) (sdk.Plugin, error) {
	for _, plugin := range p.Plugins() {
		if KindName(plugin.Kind()) != e.Kind || plugin.Name() != e.Name {
			continue
		}
		if v := plugin.Version(); v != e.Version {
			return nil, refuse(e.key(), "it calls itself version %q, the list says %q; run 'commucat plugin add %s' if that is right", transport.Shorten(v, 64), e.Version, e.File)
		}
		needs, err := needsOf(plugin.Kind(), transport.DescriptorOf(plugin).Needs)
		if err != nil {
			return nil, refuse(e.key(), "%v", err)
		}
		for _, n := range needs {
			if !slices.Contains(e.Needs, n) {
				return nil, refuse(e.key(), "it needs %s, which was not granted; run 'commucat plugin add %s' if that is right", n, e.File)
			}
		}
		return plugin, nil
	}
	return nil, refuse(e.key(), "the binary does not hold this plugin; run 'commucat plugin add %s' again", e.File)
}

// pinned is the binary that one configured plugin runs, opened once: what lies under
// its name later counts with the next upgrade.
type pinned struct {
	h    *Host
	kind sdk.Kind
	name string
	// dials says that the client half is wanted, which reaches other hosts.
	dials bool
	mu    sync.Mutex
	b     *Binary
}

// open gives the binary, hashed anew.
func (p *pinned) open() (*Binary, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.b == nil {
		b, err := p.h.opt.Catalog.Open(p.kind, p.name)
		if err != nil {
			return nil, err
		}
		p.b = b
		return b, nil
	}
	return p.b, p.b.Check()
}

// found is what was opened, zero before that.
func (p *pinned) found() Found {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.b == nil {
		return Found{}
	}
	return p.b.Found
}

func (p *pinned) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.b != nil {
		p.b.Close()
		p.b = nil
	}
}

// process is a started plugin process and the plugin in it that was asked for.
type process struct {
	*host.Process
	h       *Host
	entry   Entry
	plugin  sdk.Plugin
	profile sandbox.Profile
	state   string
	log     *slog.Logger
}

// Spec says which plugin runs under which name, and how.
type Spec struct {
	// Name is the configured name, Plugin the plugin's.
	Name, Plugin string
	// Raw is its table, Files resolves what it refers to.
	Raw      map[string]any
	Files    sdk.Resolver
	Settings Settings
}

// begin starts the process of a spec.
func (h *Host) begin(ctx context.Context, kind sdk.Kind, s Spec, bin *pinned) (_ *process, err error) {
	b, err := bin.open()
	if err != nil {
		return nil, err
	}
	title := KindName(kind) + " " + s.Name
	p := &process{h: h, entry: b.Entry, log: h.opt.Log.With("plugin", s.Name)}
	profile, err := b.profile(s.Raw)
	if err != nil {
		return nil, refuse(title, "%v", err)
	}
	profile.Outbound = profile.Outbound || bin.dials
	c := child{h: h, name: title, file: b.File, profile: profile, settings: s.Settings, log: p.log}
	if c.owner, err = h.ownerOf(b.Entry); err != nil {
		return nil, err
	}
	if b.granted(transport.StateFolder) {
		if p.state, err = c.owner.folder(h.opt.State, KindName(kind)+"-"+s.Name); err != nil {
			return nil, refuse(title, "%v", err)
		}
		c.state = p.state
	}
	p.profile = c.complete()
	if p.Process, err = c.launch(ctx); err != nil {
		if sdk.KindOf(err) == sdk.Unavailable {
			err = endedError{err}
		}
		return nil, err
	}
	if p.plugin, err = pick(p.Process, b.Entry); err != nil {
		p.Process.Close()
		return nil, err
	}
	return p, nil
}

// failed closes a process whose work could not begin; an end of its own is told as
// such.
func (p *process) failed(err error) error {
	if why := p.Err(); why != nil {
		err = endedError{why}
	}
	p.Process.Close()
	return err
}

// raw resolves the spec's table with the plugin's own fields.
func (p *process) raw(s Spec) (map[string]any, error) {
	return sdk.Resolve(p.plugin.Config(), s.Raw, s.Files)
}

// items says what the sandbox enforces on the process.
func (p *process) items() []sandbox.Item {
	if p.h.opt.Unconfined {
		return nil
	}
	items, err := sandbox.Inspect(p.PID(), p.profile, p.h.kernel)
	if err != nil {
		return nil // it has just ended
	}
	return items
}
