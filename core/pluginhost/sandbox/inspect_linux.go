package sandbox

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// Probe asks the kernel.
func Probe() Kernel {
	k := Kernel{Seccomp: seccompThere(), Root: os.Geteuid() == 0}
	if abi, err := ll.LandlockGetABIVersion(); err == nil {
		k.Landlock = abi
	}
	return k
}

// Inspect says what holds for the process pid, which was started with p: what the
// kernel shows of it is read there, the rest follows from the profile and k.
func Inspect(pid int, p Profile, k Kernel) ([]Item, error) {
	s, err := readStatus(pid)
	if err != nil {
		return nil, err
	}
	own := os.Geteuid()
	items := []Item{
		{ItemUser, s.uid != 0 && s.uid != own, fmt.Sprintf("uid %d", s.uid)},
		{ItemCapabilities, s.capabilities == 0, fmt.Sprintf("%x", s.capabilities)},
		{ItemPrivileges, s.noNewPrivs, "no_new_privs"},
	}
	if s.uid == own {
		items[0].Detail += ", the relay's own"
	}
	return append(items, landlockItems(p, k)...), nil
}

func landlockItems(p Profile, k Kernel) []Item {
	abi := fmt.Sprintf("Landlock %d", k.Landlock)
	files := Item{ItemFiles, k.Landlock >= 1, abi}
	scope := Item{ItemScope, k.Landlock >= 6, "signals and abstract sockets stay inside, " + abi}
	calls := Item{ItemSystemCalls, k.Seccomp, "ptrace, mount, bpf, keyctl, namespaces … refused"}
	network := Item{Name: ItemNetwork}
	switch {
	case p.children():
		network.On, network.Detail = k.Seccomp, "TCP and UDP; no MPTCP, no raw sockets"
	case p.Outbound:
		network.On, network.Detail = k.Seccomp && k.Landlock >= 4, "outbound TCP and UDP; no TCP bind, no MPTCP, no raw sockets"
	default:
		network.On, network.Detail = k.Seccomp, "lent sockets only"
	}
	memory := Item{ItemMemory, p.Memory > 0, "no limit"}
	if p.Memory > 0 {
		memory.Detail = fmt.Sprintf("%d MiB", p.Memory>>20)
	}
	return []Item{files, network, scope, calls, memory}
}

// status are the lines of /proc/PID/status that matter here.
type status struct {
	uid          int
	capabilities uint64
	noNewPrivs   bool
	filters      int
}

func readStatus(pid int) (status, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return status{}, fmt.Errorf("process %d: %w", pid, reason(err))
	}
	return parseStatus(b)
}

func parseStatus(b []byte) (s status, err error) {
	lines := bufio.NewScanner(bytes.NewReader(b))
	seen := 0
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ":")
		fields := strings.Fields(value)
		if len(fields) == 0 {
			continue
		}
		var e error
		switch name {
		case "Uid": // real, effective, saved, file system
			s.uid, e = strconv.Atoi(fields[min(1, len(fields)-1)])
		case "CapEff":
			s.capabilities, e = strconv.ParseUint(fields[0], 16, 64)
		case "NoNewPrivs":
			s.noNewPrivs = fields[0] == "1"
		case "Seccomp_filters":
			s.filters, e = strconv.Atoi(fields[0])
		default:
			continue
		}
		if e != nil {
			return s, fmt.Errorf("%s: %q is no number", name, value)
		}
		seen++
	}
	if seen < 3 {
		return s, fmt.Errorf("only %d of the lines that were looked for", seen)
	}
	return s, nil
}

// Confined says that a process is a plugin of this relay, or was started by one: it has
// system call filters that this process does not have (one never loses any), or has
// ended. A service manager
// that filters the relay filters its plugins as well; an operator's command that is
// filtered on its own cannot be told from a plugin.
func Confined(pid int) bool {
	ours, err := readStatus(os.Getpid())
	if err != nil {
		return true
	}
	theirs, err := readStatus(pid)
	return err != nil || theirs.noNewPrivs && theirs.filters > ours.filters
}
