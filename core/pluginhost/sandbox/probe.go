package sandbox

// Item is one part of the sandbox as people and programs are shown it.
type Item struct {
	// Name is a fixed word, see the Item constants.
	Name string `json:"name"`
	// On says that it is in force.
	On bool `json:"on"`
	// Detail says how far, or why not.
	Detail string `json:"detail,omitempty"`
}

// Names of items, in the order in which they are shown.
const (
	ItemUser         = "user"
	ItemCapabilities = "capabilities"
	ItemPrivileges   = "privileges"
	ItemFiles        = "files"
	ItemNetwork      = "network"
	ItemScope        = "scope"
	ItemSystemCalls  = "system-calls"
	ItemMemory       = "memory"
)

// Kernel is what this machine can enforce.
type Kernel struct {
	// Landlock is the version of its interface: 0 none, 4 and more know TCP, 6 and
	// more signals and abstract sockets.
	Landlock int `json:"landlock"`
	// Seccomp says that system calls can be filtered.
	Seccomp bool `json:"seccomp"`
	// Root says that this process may give plugins users of their own.
	Root bool `json:"root"`
}

// Complete says that a profile can be enforced as far as it must be.
func (k Kernel) Complete() bool { return k.Landlock >= 1 && k.Seccomp }

// Missing says what stands in the way of Complete, "" if nothing does.
func (k Kernel) Missing() string {
	switch {
	case k.Landlock < 1:
		return "Landlock"
	case !k.Seccomp:
		return "seccomp"
	}
	return ""
}
