package doctor

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/commucat/commucat/core/config"
	"github.com/commucat/commucat/sdk"
)

// Level is how bad a finding is.
type Level string

// Levels of findings.
const (
	OK    Level = "ok"
	Weak  Level = "weak"
	Wrong Level = "wrong"
)

// Finding is the result of one check.
type Finding struct {
	Check string `json:"check"`
	Level Level  `json:"level"`
	Text  string `json:"text"`
	// Mend is the command, or the line of the configuration, that mends it.
	Mend string `json:"mend,omitempty"`
}

// Report is the result of all checks.
type Report struct {
	// OK: nothing is wrong; something may be weak.
	OK       bool      `json:"ok"`
	Findings []Finding `json:"findings"`
}

// Listener is an address that the running relay listens on.
type Listener struct {
	Transport, Address string
	// Network is "tcp", "udp" or one of a plugin's own, in which nothing is dialled.
	Network string
	// Web: the relay itself answers there, with TLS.
	Web bool
}

// Plugin is a plugin process of the running relay.
type Plugin struct {
	// Name is the configured name, Kind "transport", "storage" or "ledger".
	Name, Kind string
	// State is what the relay says of the process, Error why it ended last.
	State, Error string
	// Degraded is why its plugin, which runs, cannot serve: its own words.
	Degraded string
	// Down: it serves nobody, and either waits for its next start or was given up.
	Down bool
}

func (p Plugin) title() string { return p.Kind + " " + p.Name }

// Status is what a running relay says of itself.
type Status struct {
	Version string
	// Failed are readiness checks with their reasons.
	Failed    map[string]string
	Degraded  map[string]string
	Sessions  int
	Listeners []Listener
	Plugins   []Plugin
}

// Options say what to look at.
type Options struct {
	// Config is the configuration, nil when ConfigError says why there is none.
	Config      *config.Config
	ConfigError error
	// Data is the data folder, Layout the newest layout that the program knows.
	Data   string
	Layout int
	// Relay asks the running relay; (nil, nil) when none runs.
	Relay func(context.Context) (*Status, error)
	// Verify checks the audit chain of a relay that does not run.
	Verify func(context.Context) (records uint64, err error)
	// Roots replaces the system's web roots.
	Roots *x509.CertPool
	Now   func() time.Time
	// Sysctl reads a setting of the kernel, such as net.core.rmem_max; nil asks the
	// kernel itself.
	Sysctl func(key string) (string, error)
}

// examination collects findings.
type examination struct {
	Options
	status *Status
	hidden bool // whether a relay runs could not be found out
	out    []Finding
}

func (e *examination) add(check string, level Level, text, mend string) {
	e.out = append(e.out, Finding{check, level, text, mend})
}

func (e *examination) fine(check, format string, a ...any) {
	e.add(check, OK, fmt.Sprintf(format, a...), "")
}

// Run makes all checks. One that cannot be made is a finding, not an error.
func Run(ctx context.Context, opt Options) Report {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Sysctl == nil {
		opt.Sysctl = sysctl
	}
	e := &examination{Options: opt}
	e.configuration()
	if e.Config == nil {
		// Files and machine can be looked at all the same.
		e.Config = config.Default()
	} else {
		e.compat()
		e.settings()
	}
	e.relay(ctx)
	made := e.data()
	if made {
		e.keys()
	}
	e.secrets()
	e.certificate()
	e.disk()
	e.files()
	e.buffers()
	e.clock()
	e.listeners(ctx)
	e.ledger(ctx, made)
	r := Report{OK: true, Findings: e.out}
	for _, f := range e.out {
		r.OK = r.OK && f.Level != Wrong
	}
	return r
}

// Print writes the report for people.
func (r Report) Print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	weak, wrong := 0, 0
	for _, f := range r.Findings {
		switch f.Level {
		case Weak:
			weak++
		case Wrong:
			wrong++
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", f.Level, f.Check, f.Text)
		if f.Mend != "" {
			fmt.Fprintf(t, "\t\t  mend: %s\n", f.Mend)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%d wrong, %d weak, %d checks\n", wrong, weak, len(r.Findings))
	return err
}

// configuration names every mistake in the file.
func (e *examination) configuration() {
	if e.ConfigError == nil {
		name := "no file: everything at its default"
		if e.Config != nil && e.Config.File != "" {
			name = e.Config.File
		}
		e.fine("configuration", "%s", name)
		return
	}
	var many sdk.ConfigErrors
	if !errors.As(e.ConfigError, &many) {
		e.add("configuration", Wrong, e.ConfigError.Error(), "commucat config check")
		return
	}
	for _, m := range many {
		e.add("configuration", Wrong, m.Error(), "commucat config check "+m.Pos.File)
	}
}

// relay asks the running relay.
func (e *examination) relay(ctx context.Context) {
	status, err := e.Relay(ctx)
	switch {
	case errors.Is(err, fs.ErrPermission):
		e.hidden = true
		e.add("relay", Weak, "not known whether it runs: "+err.Error(), "run this as the relay's own user")
		return
	case err != nil:
		e.add("relay", Wrong, "the running relay does not answer: "+err.Error(), "journalctl -u commucat")
		return
	case status == nil:
		e.fine("relay", "not running")
		e.fine("plugins", "not looked at: the relay does not run")
		return
	}
	e.status = status
	e.fine("relay", "running, version %s, %d sessions", status.Version, status.Sessions)
	for _, name := range sorted(status.Failed) {
		e.add(name, Wrong, "not ready: "+status.Failed[name], "journalctl -u commucat")
	}
	for _, name := range sorted(status.Degraded) {
		if !slices.ContainsFunc(status.Plugins, func(p Plugin) bool { return (p.Down || p.Degraded != "") && p.title() == name }) {
			e.add(name, Weak, "degraded: "+status.Degraded[name], "journalctl -u commucat")
		}
	}
	if _, bad := status.Failed["storage"]; !bad {
		e.fine("storage", "ready")
	}
	e.plugins()
}

// plugins looks at the processes of a running relay.
func (e *examination) plugins() {
	for _, p := range e.status.Plugins {
		_, degraded := e.status.Degraded[p.title()]
		switch {
		case p.Down:
			text := "its plugin does not run (" + p.State + ")"
			if p.Error != "" {
				text += ": " + p.Error
			}
			e.add(p.title(), Wrong, text, "mend what it says, then: "+e.command("plugin upgrade", p.Name))
		case p.Degraded != "":
			e.add(p.title(), Wrong, "its plugin is "+p.State+" and serves nobody: "+p.Degraded, "mend what it says; to try it: "+e.command("transport test", p.Name))
		case !degraded:
			e.fine(p.title(), "its plugin is %s", p.State)
		}
	}
}

// command is one for this relay, wherever its data folder is.
func (e *examination) command(verb, name string) string {
	return fmt.Sprintf("commucat %s %s --data %s", verb, name, e.Data)
}

// file names the configuration's file in a mend.
func (e *examination) file() string {
	if e.Config.File != "" {
		return e.Config.File
	}
	return "commucat.toml"
}

// set is a mend by a line of the configuration.
func (e *examination) set(lines ...string) string {
	return fmt.Sprintf("in %s: %s; then restart", e.file(), strings.Join(lines, ", "))
}
