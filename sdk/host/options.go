package host

import (
	"log/slog"
	"os"
	"os/exec"
	"time"

	"github.com/commucat/commucat/sdk"
)

// Options say what is started and how.
type Options struct {
	// File is the opened binary. It is executed through its descriptor and never
	// looked up again; it stays the caller's.
	File *os.File
	// Name is the binary's name in logs and errors; "" is File's.
	Name string
	// Args are additional arguments.
	Args []string
	// Command may change the command before it is started: credentials, limits,
	// more environment, a sandbox around it. The command executes
	// /proc/self/fd/4; descriptors 3 (hand-off socket) and 4 (the binary) are its
	// first ExtraFiles and must reach whatever executes the binary in the end.
	// What Command appends to ExtraFiles stays the caller's.
	Command func(*exec.Cmd) error
	// Env is what is lent to a plugin that is opened without an Env; its Log also
	// gets what that plugin logs. May be nil.
	Env func(plugin string) sdk.Env
	// Log gets what the process writes outside of any plugin's Env, and what
	// this package has to say; nil discards.
	Log *slog.Logger
	// Runtime is the folder in which the private folder is made; "" is the
	// system's for temporary files. Its path must be short: socket addresses end
	// at 107 bytes.
	Runtime string
	// Owner owns the private folder when the plugin runs as another user.
	Owner *Owner
	// StartTimeout bounds the start where ctx does not; 0 is 30 s.
	StartTimeout time.Duration

	protocols func(sdk.Kind) []uint32 // of tests; nil is wire.Protocols
}

// Owner is a user and group.
type Owner struct{ UID, GID int }

func (o *Options) fill() {
	if o.Name == "" && o.File != nil {
		o.Name = o.File.Name()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.StartTimeout == 0 {
		o.StartTimeout = 30 * time.Second
	}
}

// env is what an open without an Env gets.
func (o *Options) env(plugin string) sdk.Env {
	if o.Env != nil {
		if e := o.Env(plugin); e != nil {
			return e
		}
	}
	return sdk.NewEnv(sdk.EnvOptions{Log: o.Log.With("plugin", plugin)})
}
