package sandbox

import (
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// Rights of files and folders. Nothing that may be written may be executed.
const (
	readFile  = landlock.AccessFSSet(ll.AccessFSReadFile)
	readDir   = landlock.AccessFSSet(ll.AccessFSReadFile | ll.AccessFSReadDir)
	runFile   = landlock.AccessFSSet(ll.AccessFSReadFile | ll.AccessFSExecute)
	writeFile = landlock.AccessFSSet(ll.AccessFSReadFile | ll.AccessFSWriteFile | ll.AccessFSTruncate)
	writeDir  = landlock.AccessFSSet(ll.AccessFSReadFile | ll.AccessFSReadDir | ll.AccessFSWriteFile | ll.AccessFSTruncate |
		ll.AccessFSRemoveDir | ll.AccessFSRemoveFile | ll.AccessFSMakeDir | ll.AccessFSMakeReg | ll.AccessFSMakeSock |
		ll.AccessFSMakeFifo | ll.AccessFSMakeSym)
)

// system is what Go programs read of their own accord, as far as it is there. Keys
// lie in /etc, so that it is never opened as a whole.
var system = []string{
	"/proc/self", "/proc/sys/net/core/somaxconn", "/proc/sys/net/ipv4/ip_local_port_range", "/proc/sys/vm/overcommit_memory",
	"/proc/stat", "/proc/cpuinfo", "/proc/meminfo", "/proc/loadavg", "/proc/uptime",
	"/sys/kernel/mm/transparent_hugepage", "/sys/devices/system/cpu", "/sys/fs/cgroup",
	// Whether the machine went down since: what only a process wrote survives its end.
	"/proc/sys/kernel/random/boot_id",
	"/dev/urandom", "/dev/random", "/dev/zero", "/etc/localtime", "/usr/share/zoneinfo",
}

// network is what looking up names and verifying certificates needs.
var network = []string{
	"/etc/resolv.conf", "/run/systemd/resolve", "/etc/hosts", "/etc/host.conf", "/etc/nsswitch.conf", "/etc/gai.conf",
	"/etc/services", "/etc/protocols", "/etc/ssl/certs", "/etc/ssl/cert.pem", "/etc/pki/tls/certs", "/etc/pki/ca-trust/extracted",
	"/usr/share/ca-certificates", "/usr/local/share/ca-certificates", "/etc/ca-certificates", "/var/lib/ca-certificates",
	"/proc/net/if_inet6", "/proc/sys/net/ipv6",
}

// libraries is what a dynamically linked program loads.
var libraries = []string{"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/libexec", "/usr/local/lib", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d"}

// files applies Landlock on every thread. program is the file to be executed.
func files(p Profile, program string) error {
	abi, err := ll.LandlockGetABIVersion()
	if err != nil || abi < 1 {
		if p.BestEffort {
			return nil
		}
		return errNoLandlock
	}
	rules, err := fileRules(p, program, abi)
	if err != nil {
		return err
	}
	return restrictions(p).BestEffort().Restrict(rules...)
}

// restrictions is everything that Landlock knows, without the parts that the profile
// allows as a whole.
func restrictions(p Profile) landlock.Config {
	c := landlock.V11
	if p.Outbound || p.children() {
		c.HandledAccessNet &^= ll.AccessNetConnectTCP | ll.AccessNetConnectSendUDP | ll.AccessNetBindUDP
	}
	if p.children() {
		c.HandledAccessNet &^= ll.AccessNetBindTCP
	}
	if p.Datagrams {
		c.HandledAccessNet &^= ll.AccessNetConnectSendUDP
	}
	return c
}

func fileRules(p Profile, program string, abi int) ([]landlock.Rule, error) {
	var rules []landlock.Rule
	allow := func(path string, file, dir landlock.AccessFSSet, must bool) error {
		info, err := os.Stat(path)
		if err != nil {
			if must {
				return fmt.Errorf("%s: %w", path, reason(err))
			}
			return nil // this system lacks it, or the user may not reach it anyway
		}
		rights := file
		if info.IsDir() {
			rights = dir
		}
		if rights != 0 {
			rules = append(rules, landlock.PathAccess(rights, path))
		}
		return nil
	}
	optional := append([]string(nil), system...)
	if p.Outbound || p.children() {
		optional = append(optional, network...)
	}
	var programs []string
	for _, name := range append([]string{program}, p.Run...) {
		loader, err := interpreter(name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, reason(err))
		}
		programs = append(programs, name)
		if loader != "" {
			programs = append(programs, loader)
			optional = append(optional, libraries...)
		}
	}
	for _, path := range optional {
		_ = allow(path, readFile, readDir, false) // it is not required
	}
	_ = allow("/dev/null", writeFile, 0, false) // it is not required
	dir := writeDir
	if abi >= 2 {
		dir |= landlock.AccessFSSet(ll.AccessFSRefer) // below it the library would give up all of Landlock
	}
	dir |= landlock.AccessFSSet(ll.AccessFSResolveUnix)
	for _, list := range []struct {
		paths     []string
		file, dir landlock.AccessFSSet
	}{{p.Read, readFile, readDir}, {p.Write, writeFile, dir}, {programs, runFile, 0}} {
		for _, path := range list.paths {
			if err := allow(path, list.file, list.dir, true); err != nil {
				return nil, err
			}
		}
	}
	return rules, nil
}

// interpreter is the loader that an ELF program names, or a script's; "" for a static
// program.
func interpreter(program string) (string, error) {
	f, err := os.Open(program)
	if err != nil {
		return "", err
	}
	defer f.Close()
	var magic [256]byte
	n, err := f.ReadAt(magic[:], 0)
	if n < 4 {
		return "", fmt.Errorf("no program: %w", err)
	}
	if line, ok := strings.CutPrefix(string(magic[:n]), "#!"); ok {
		line, _, _ = strings.Cut(line, "\n")
		fields := strings.Fields(line)
		if len(fields) == 0 || !filepath.IsAbs(fields[0]) {
			return "", errors.New("a script without an interpreter")
		}
		return fields[0], nil
	}
	e, err := elf.NewFile(f)
	if err != nil {
		return "", errors.New("neither an ELF program nor a script")
	}
	for _, s := range e.Progs {
		if s.Type != elf.PT_INTERP || s.Filesz == 0 || s.Filesz > 4096 {
			continue
		}
		b := make([]byte, s.Filesz)
		if _, err := s.ReadAt(b, 0); err != nil {
			return "", err
		}
		return strings.TrimRight(string(b), "\x00"), nil
	}
	return "", nil
}

// reason leaves out a path that the caller names.
func reason(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
