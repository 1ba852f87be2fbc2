package sandboxtest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// World is what the attempts aim at.
type World struct {
	// Key is another's secret file, Folder another's folder, Outside a folder that
	// may be written by anybody, Writable a file there with mode 0666.
	Key, Folder, Outside, Writable string
	// State is the process's own folder, "" where it has none.
	State string
	// TCP is a listener's address, Unix a listener's path, Abstract one's name.
	TCP, Unix, Abstract string
	// Parent is the process that started this one.
	Parent int
	// Memory is the limit in bytes, 0 none.
	Memory int
}

// Result is the outcome of one attempt.
type Result struct {
	Name string `json:"name"`
	// Denied says that it failed, Error why.
	Denied bool   `json:"denied"`
	Error  string `json:"error,omitempty"`
}

// Attempt is one forbidden act.
type Attempt struct {
	Name string
	// Rights says that it needs rights which an ordinary user lacks anyway.
	Rights bool
	try    func(World) error
}

// Try makes all attempts.
func Try(list []Attempt, w World) []Result {
	out := make([]Result, 0, len(list))
	for _, a := range list {
		r := Result{Name: a.Name}
		if err := a.try(w); err != nil {
			r.Denied, r.Error = true, err.Error()
		}
		out = append(out, r)
	}
	return out
}

// Always are denied to every plugin.
func Always() []Attempt {
	return append([]Attempt{
		{"read a key file", false, func(w World) error { _, err := os.ReadFile(w.Key); return err }},
		{"list another's folder", false, func(w World) error { _, err := os.ReadDir(w.Folder); return err }},
		{"list /etc", false, func(World) error { _, err := os.ReadDir("/etc"); return err }},
		{"read /etc/passwd", false, func(World) error { _, err := os.ReadFile("/etc/passwd"); return err }},
		{"write outside", false, func(w World) error {
			return os.WriteFile(filepath.Join(w.Outside, "new-"+strconv.Itoa(os.Getpid())), nil, 0o600)
		}},
		{"truncate a file of all", false, func(w World) error { return os.Truncate(w.Writable, 0) }},
		{"remove a file of all", false, func(w World) error {
			return os.Rename(w.Writable, w.Writable) //nolint:gocritic // to itself: it would succeed and change nothing
		}},
		{"make a link outside", false, func(w World) error {
			return os.Symlink("x", filepath.Join(w.Outside, "link-"+strconv.Itoa(os.Getpid())))
		}},
		{"read the parent's environment", false, func(w World) error {
			_, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", w.Parent))
			return err
		}},
		{"list the parent's descriptors", false, func(w World) error {
			_, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", w.Parent))
			return err
		}},
		{"open the parent's memory", false, func(w World) error {
			return opened(fmt.Sprintf("/proc/%d/mem", w.Parent), os.O_RDWR)
		}},
		{"signal the parent", false, func(w World) error { return unix.Kill(w.Parent, 0) }},
		{"limit the parent", false, func(w World) error {
			var l unix.Rlimit
			return unix.Prlimit(w.Parent, unix.RLIMIT_NOFILE, nil, &l)
		}},
		{"slow the parent down", false, func(w World) error { return unix.Setpriority(unix.PRIO_PROCESS, w.Parent, 19) }},
		{"take the parent's descriptor", false, func(w World) error {
			fd, err := unix.PidfdOpen(w.Parent, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			got, err := unix.PidfdGetfd(fd, 1, 0)
			return closed(got, err)
		}},
		{"outlive the parent", false, func(World) error { return unix.Prctl(unix.PR_SET_PDEATHSIG, 0, 0, 0, 0) }},
		{"execute another program", false, func(World) error { return exec.Command("/bin/true").Run() }},
		{"connect to an abstract socket", false, func(w World) error { return connected("unix", "@"+w.Abstract) }},
	}, kernel()...)
}

// Closed are denied to plugins without a need for other hosts.
func Closed() []Attempt {
	return []Attempt{
		{"connect by TCP", false, func(w World) error { return connected("tcp", w.TCP) }},
		{"connect to a unix socket", false, func(w World) error { return connected("unix", w.Unix) }},
		{"open a UDP socket", false, func(World) error { return socket(unix.AF_INET, unix.SOCK_DGRAM, 0) }},
		{"open an IPv6 socket", false, func(World) error { return socket(unix.AF_INET6, unix.SOCK_STREAM, 0) }},
		{"have a child", false, func(World) error {
			pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
			if errno != 0 {
				return errno
			}
			for pid == 0 {
				_, _, _ = syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
			}
			_, err := unix.Wait4(int(pid), nil, 0, nil)
			return err
		}},
	}
}

// Quiet are denied to plugins that start no other programs.
func Quiet() []Attempt {
	return []Attempt{
		{"bind a TCP port", false, func(World) error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.Bind(fd, &unix.SockaddrInet4{Port: 0, Addr: [4]byte{127, 0, 0, 1}})
		}},
		{"listen by Go", false, func(World) error {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			return ln.Close()
		}},
	}
}

// Stored are about the process's own folder.
func Stored() []Attempt {
	return []Attempt{
		{"execute what was written", false, func(w World) error {
			b, err := os.ReadFile("/proc/self/exe")
			if err != nil {
				return err
			}
			name := filepath.Join(w.State, "program")
			if err := os.WriteFile(name, b, 0o700); err != nil {
				return nil //nolint:nilerr // not what is tried here: it counts as not denied
			}
			return exec.Command(name, "-test.run", "^$").Run()
		}},
	}
}

// Granted is what a process may do that has a folder of its own; "denied" is a fault
// here.
func Granted() []Attempt {
	return []Attempt{
		{"write, move and remove in the own folder", false, func(w World) error {
			a, b := filepath.Join(w.State, "a"), filepath.Join(w.State, "b")
			return errors.Join(os.MkdirAll(a, 0o700), os.MkdirAll(b, 0o700), os.WriteFile(filepath.Join(a, "x"), []byte("x"), 0o600),
				os.Rename(filepath.Join(a, "x"), filepath.Join(b, "x")), os.RemoveAll(a), os.RemoveAll(b))
		}},
		{"listen on a unix socket there", false, func(w World) error {
			ln, err := net.Listen("unix", filepath.Join(w.State, "s"))
			if err != nil {
				return err
			}
			return ln.Close()
		}},
		{"have a socket pair", false, func(World) error {
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			return errors.Join(err, unix.Close(fds[0]), unix.Close(fds[1]))
		}},
		{"use Go's runtime", false, func(World) error {
			_, err := os.ReadFile("/proc/self/status")
			runtime.GC()
			return err
		}},
		{"know the machine's boot", false, func(World) error {
			_, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
			return err
		}},
	}
}

// Outbound is what a process may do that needs other hosts.
func Outbound() []Attempt {
	return []Attempt{
		{"connect by TCP", false, func(w World) error { return connected("tcp", w.TCP) }},
		{"send by UDP", false, func(w World) error {
			c, err := net.Dial("udp", w.TCP)
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = c.Write([]byte("x"))
			return err
		}},
		{"read the resolver's file", false, func(World) error {
			_, err := os.ReadFile("/etc/resolv.conf")
			if errors.Is(err, os.ErrNotExist) {
				return nil
			}
			return err
		}},
	}
}

// Starts is what a process may do that needs the program.
func Starts(program string) []Attempt {
	return []Attempt{
		{"start " + program, false, func(World) error { return exec.Command(program).Run() }},
		{"bind a TCP port", false, func(World) error {
			ln, err := net.Listen("tcp4", "127.0.0.1:0")
			if err != nil {
				return err
			}
			return ln.Close()
		}},
	}
}

// Memory asks for more than the limit.
func Memory() []Attempt {
	return []Attempt{
		{"use more memory than allowed", false, func(w World) error {
			b, err := unix.Mmap(-1, 0, w.Memory, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
			if err != nil {
				return err
			}
			return unix.Munmap(b)
		}},
	}
}

// kernel are the attempts on system calls.
func kernel() []Attempt {
	return []Attempt{
		{"MPTCP socket", false, func(World) error { return socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP) }},
		{"MPTCP socket, high bits", false, func(World) error {
			const high = 1 << 32
			return socket(unix.AF_INET|high, unix.SOCK_STREAM|high, unix.IPPROTO_MPTCP|high)
		}},
		{"raw socket", true, func(World) error { return socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP) }},
		{"packet socket", true, func(World) error { return socket(unix.AF_PACKET, unix.SOCK_DGRAM, 0) }},
		{"netlink socket", false, func(World) error { return socket(unix.AF_NETLINK, unix.SOCK_RAW, 0) }},
		{"ptrace", false, func(w World) error {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			if err := unix.PtraceSeize(w.Parent); err != nil {
				return err
			}
			return errors.Join(unix.PtraceInterrupt(w.Parent), nil)
		}},
		{"process_vm_readv", false, func(w World) error {
			b := make([]byte, 1)
			local := []unix.Iovec{{Base: &b[0], Len: 1}}
			_, err := unix.ProcessVMReadv(w.Parent, local, []unix.RemoteIovec{{Base: uintptr(unsafe.Pointer(&b[0])), Len: 1}}, 0)
			if errors.Is(err, unix.EFAULT) {
				return nil // allowed, only the address was not good
			}
			return err
		}},
		{"mount", true, func(w World) error {
			if err := unix.Mount("none", w.Folder, "tmpfs", 0, ""); err != nil {
				return err
			}
			return unix.Unmount(w.Folder, 0)
		}},
		{"chroot", true, func(World) error { return unix.Chroot("/") }},
		{"user namespace", false, func(World) error { return cloned(unix.CLONE_NEWUSER) }},
		{"network namespace", true, func(World) error { return inThread(func() error { return unix.Unshare(unix.CLONE_NEWNET) }) }},
		{"namespace of names", true, func(World) error { return cloned(unix.CLONE_NEWUTS) }},
		{"bpf", true, func(World) error {
			attr := [16]uint32{2, 4, 4, 1} // an array of one
			return call(unix.SYS_BPF, 0, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
		}},
		{"perf_event_open", true, func(World) error {
			a := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_DUMMY}
			a.Size = uint32(unsafe.Sizeof(a))
			fd, err := unix.PerfEventOpen(&a, 0, -1, -1, 0)
			return closed(fd, err)
		}},
		{"keyctl", false, func(World) error {
			_, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, true)
			return err
		}},
		{"io_uring", false, func(World) error {
			var params [120]byte
			return call(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)), 0)
		}},
		{"memfd_create", false, func(World) error { fd, err := unix.MemfdCreate("x", 0); return closed(fd, err) }},
		{"shared memory", false, func(World) error { _, err := unix.SysvShmGet(0, 4096, unix.IPC_CREAT|0o600); return err }},
		{"shared anonymous mapping", false, func(World) error {
			b, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ, unix.MAP_SHARED|unix.MAP_ANON)
			if err != nil {
				return err
			}
			return unix.Munmap(b)
		}},
		{"set the clock", true, func(World) error {
			var now unix.Timespec
			if err := unix.ClockGettime(unix.CLOCK_REALTIME, &now); err != nil {
				return nil //nolint:nilerr // not what is tried here
			}
			return unix.ClockSettime(unix.CLOCK_REALTIME, &now)
		}},
		{"load a module", true, func(World) error {
			err := unix.FinitModule(0, "", 0)
			if errors.Is(err, unix.EPERM) {
				return err
			}
			return nil // another error is from beyond the check
		}},
		{"another personality", false, func(World) error { return call(unix.SYS_PERSONALITY, 0xffffffff, 0, 0) }},
	}
}

// cloned starts a child in namespaces of its own; by clone, since the filter hides
// clone3.
func cloned(flags uintptr) error {
	return (&exec.Cmd{Path: "/proc/self/exe", Args: []string{"x", "-test.run", "^$"}, SysProcAttr: &syscall.SysProcAttr{Cloneflags: flags}}).Run()
}

func inThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		done <- f()
	}()
	return <-done
}

func call(nr, a, b, c uintptr) error {
	r, _, errno := unix.Syscall(nr, a, b, c)
	if errno != 0 {
		return errno
	}
	if nr != unix.SYS_PERSONALITY && int(r) > 2 {
		unix.Close(int(r))
	}
	return nil
}

func socket(family, kind, protocol uintptr) error {
	return call(unix.SYS_SOCKET, family, kind, protocol)
}

func closed(fd int, err error) error {
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func opened(name string, flag int) error {
	f, err := os.OpenFile(name, flag, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

func connected(network, address string) error {
	c, err := net.Dial(network, address)
	if err != nil {
		return err
	}
	return c.Close()
}
