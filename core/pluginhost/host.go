package pluginhost

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/commucat/commucat/core/metrics"
	"github.com/commucat/commucat/core/pluginhost/sandbox"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/host"
)

// Options are what a Host is made of. Catalog is required.
type Options struct {
	Catalog *Catalog
	// State is the folder in which plugins get folders of their own.
	State string
	// Runtime is the folder of control sockets; "" is the system's for temporary
	// files.
	Runtime string
	// Trampoline is the program that applies the sandbox, see package sandbox; "" is
	// this one.
	Trampoline string
	// Unconfined starts plugins without the sandbox. For a program that trusts its
	// plugins as it does itself, never for a relay.
	Unconfined bool
	// Accept runs a session on a transport's connection, to its end.
	Accept func(*Conn)
	// Move asks the sessions on these connections to go elsewhere; may be nil.
	Move func(match func(*Conn) bool)
	// Changed is told when a transport becomes reachable and when it stops to be,
	// one call at a time; may be nil.
	Changed func(Reachable)
	// Drain bounds how long a process may finish its streams.
	Drain time.Duration
	// CallWait is how long a call of a storage or ledger waits for its process;
	// 10 s.
	CallWait time.Duration
	Log      *slog.Logger
	Metrics  *metrics.Set
}

// Reachable is a change of a transport's standing.
type Reachable struct {
	Transport string
	// Address is where it listens, "" when it does not any more.
	Address string
	// Err is why not.
	Err error
}

// Host runs plugins. All methods may be called concurrently.
type Host struct {
	opt    Options
	kernel sandbox.Kernel
	pace   pace
	// serving is closed when connections are taken.
	serving chan struct{}
	once    sync.Once

	mu    sync.Mutex
	units map[string]unit   // by kind and configured name
	over  map[sdk.Kind]bool // kinds of which no more may come
	users map[string]int
}

// unit is what the Host supervises.
type unit interface {
	state() State
	stop()
}

// New makes a Host, without starting anything.
func New(opt Options) *Host {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Drain == 0 {
		opt.Drain = 20 * time.Second
	}
	if opt.CallWait == 0 {
		opt.CallWait = 10 * time.Second
	}
	if opt.Changed == nil {
		opt.Changed = func(Reachable) {}
	}
	return &Host{opt: opt, kernel: sandbox.Probe(), serving: make(chan struct{}), units: map[string]unit{}, over: map[sdk.Kind]bool{}, users: map[string]int{}}
}

// Serve lets connections in: before it, transports listen and nothing is accepted.
func (h *Host) Serve() { h.once.Do(func() { close(h.serving) }) }

// StopTransports drains all transports beside each other and waits for them. No other one
// may be started then.
func (h *Host) StopTransports() {
	h.refuse(sdk.Transport)
	h.stopWhere(func(u unit) bool { _, ok := u.(*Transport); return ok })
}

// Close ends everything that still runs, for good.
func (h *Host) Close() {
	h.refuse(sdk.Storage, sdk.Ledger)
	h.StopTransports()
	h.stopWhere(func(unit) bool { return true })
}

// refuse lets no plugin of these kinds come any more: it would outlive the Host.
func (h *Host) refuse(kinds ...sdk.Kind) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, k := range kinds {
		h.over[k] = true
	}
}

func (h *Host) stopWhere(want func(unit) bool) {
	h.mu.Lock()
	var all []unit
	for key, u := range h.units {
		if want(u) {
			all = append(all, u)
			delete(h.units, key)
		}
	}
	h.mu.Unlock()
	var group sync.WaitGroup
	for _, u := range all {
		group.Go(u.stop)
	}
	group.Wait()
}

// Settings are an operator's, for one plugin.
type Settings struct {
	// BestEffort runs it where the kernel cannot confine it.
	BestEffort bool
	// Memory bounds its private memory in bytes; 0 is no bound.
	Memory uint64
	// Read and Write are further files and folders that it may use.
	Read, Write []string
}

// State is what is known of one configured plugin.
type State struct {
	// Name is the configured name, Kind and Plugin what provides it.
	Name    string    `json:"name"`
	Kind    string    `json:"kind"`
	Plugin  string    `json:"plugin"`
	Version string    `json:"version,omitempty"`
	File    string    `json:"file,omitempty"`
	State   Phase     `json:"state"`
	Since   time.Time `json:"since,omitzero"`
	PID     int       `json:"pid,omitempty"`
	// Leaving is how many earlier processes still finish their streams.
	Leaving  int    `json:"leaving,omitempty"`
	Restarts int    `json:"restarts"`
	Error    string `json:"last_error,omitempty"`
	// Degraded is why a running one is not offered to clients.
	Degraded string         `json:"degraded,omitempty"`
	Address  string         `json:"address,omitempty"`
	Sandbox  []sandbox.Item `json:"sandbox,omitempty"`
	// Streams that the process carries, Sockets that it has handed over for good.
	Streams int `json:"streams"`
	Sockets int `json:"sockets"`
	// Foreign descriptors, cut off and malformed messages, dropped lines of the log:
	// of all its processes.
	Foreign    uint64 `json:"foreign_descriptors"`
	Truncated  uint64 `json:"truncated_messages"`
	Malformed  uint64 `json:"malformed_messages"`
	LogDropped uint64 `json:"log_lines_dropped"`
}

// States are all configured plugins, sorted by kind and name.
func (h *Host) States() []State {
	h.mu.Lock()
	all := make([]unit, 0, len(h.units))
	for _, u := range h.units {
		all = append(all, u)
	}
	h.mu.Unlock()
	out := make([]State, len(all))
	for i, u := range all {
		out[i] = u.state()
	}
	slices.SortFunc(out, func(a, b State) int { return strings.Compare(a.Kind+" "+a.Name, b.Kind+" "+b.Name) })
	return out
}

// add puts a unit under its name, which must be free.
func (h *Host) add(kind sdk.Kind, name string, u unit) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := KindName(kind) + " " + name
	if h.over[kind] {
		return &sdk.Error{Kind: sdk.Closed, Op: key, Text: "the relay is stopping"}
	}
	if _, taken := h.units[key]; taken {
		return &sdk.Error{Kind: sdk.Conflict, Op: key, Text: "it runs already"}
	}
	h.units[key] = u
	return nil
}

// remove takes a unit away again, if it is still this one.
func (h *Host) remove(kind sdk.Kind, name string, u unit) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if key := KindName(kind) + " " + name; h.units[key] == u {
		delete(h.units, key)
	}
}

// Describe starts the binary in a closed sandbox and asks what it holds. It is a
// Describer.
func (h *Host) Describe(ctx context.Context, file *os.File) ([]Described, error) {
	d, err := h.Description(ctx, file)
	if err != nil {
		return nil, err
	}
	var out []Described
	for _, p := range d.Plugins {
		one := Described{Kind: p.Kind, Name: p.Name, Version: p.Version, Needs: p.Needs}
		for _, n := range p.Protocols {
			one.Protocols = append(one.Protocols, int(n))
		}
		out = append(out, one)
	}
	return out, nil
}

// Description is everything that a binary says of itself.
func (h *Host) Description(ctx context.Context, file *os.File) (host.Description, error) {
	c := child{h: h, name: file.Name(), file: file, settings: Settings{Memory: 1 << 30}, log: slog.New(slog.DiscardHandler)}
	if h.kernel.Root {
		c.owner = owner{lastUser, lastUser}
	}
	p, err := c.launch(ctx)
	if err != nil {
		return host.Description{}, err
	}
	return p.Description(), p.Close()
}

// Config is a plugin's configuration struct with its defaults, for checking keys
// before anything is started.
func (h *Host) Config(ctx context.Context, kind sdk.Kind, name string) (cfg any, err error) {
	err = h.closed(ctx, kind, name, func(_ *host.Process, p sdk.Plugin) error {
		cfg = p.Config()
		return nil
	})
	return cfg, err
}

// Check asks a plugin what is wrong with its keys, whose files have been read, before
// anything is started: the mistakes are an sdk.ConfigErrors with keys and places as raw
// has them. The process has no network, no folder and no port. Any other error says why
// the plugin was not asked.
func (h *Host) Check(ctx context.Context, kind sdk.Kind, name string, raw map[string]any) error {
	return h.closed(ctx, kind, name, func(p *host.Process, plugin sdk.Plugin) error { return p.Check(ctx, plugin, raw) })
}

// closed runs a plugin's process in a sandbox that lets it do nothing, for a question.
func (h *Host) closed(ctx context.Context, kind sdk.Kind, name string, ask func(*host.Process, sdk.Plugin) error) error {
	b, err := h.opt.Catalog.Open(kind, name)
	if err != nil {
		return err
	}
	defer b.Close()
	c := child{h: h, name: b.key(), file: b.File, settings: Settings{Memory: 1 << 30}, log: slog.New(slog.DiscardHandler)}
	if c.owner, err = h.ownerOf(b.Entry); err != nil {
		return err
	}
	p, err := c.launch(ctx)
	if err != nil {
		return err
	}
	defer p.Close()
	plugin, err := pick(p, b.Entry)
	if err != nil {
		return err
	}
	return ask(p, plugin)
}
