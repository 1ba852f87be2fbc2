package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Exit codes of the trampoline, for who reads a log.
const exitRefused = 126

var errNoLandlock = errors.New("this kernel has no Landlock; set sandbox = \"best-effort\" to run the plugin without it")

// Main is the trampoline: it applies the profile in args and executes the plugin. It
// returns only if that failed, with the exit code; errors are one line on stderr.
func Main(args []string, stderr io.Writer) int {
	// What is set for a thread counts for what that thread executes.
	runtime.LockOSThread()
	err := confine(args)
	fmt.Fprintf(stderr, "sandbox: %v\n", err)
	return exitRefused
}

// confine does not return when all went well.
func confine(args []string) error {
	p, program, argv, err := unwrap(args)
	if err != nil {
		return err
	}
	if err := user(p); err != nil {
		return err
	}
	if err := orphan(p.Parent); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	if err := capabilities(); err != nil {
		return err
	}
	if err := files(p, program); err != nil {
		return err
	}
	if err := limits(p); err != nil {
		return err
	}
	hide(program)
	if err := filter(p); err != nil && !p.BestEffort {
		return fmt.Errorf("seccomp: %w; set sandbox = \"best-effort\" to run the plugin without it", err)
	}
	return fmt.Errorf("%s cannot be executed: %w", argv[0], syscall.Exec(program, argv, os.Environ()))
}

// user changes to the plugin's own user, without any group of the relay's.
func user(p Profile) error {
	if p.UID == 0 {
		return nil
	}
	if err := syscall.Setgroups([]int{}); err != nil {
		return fmt.Errorf("groups: %w", err)
	}
	if err := syscall.Setgid(p.GID); err != nil {
		return fmt.Errorf("group %d: %w", p.GID, err)
	}
	if err := syscall.Setuid(p.UID); err != nil {
		return fmt.Errorf("user %d: %w", p.UID, err)
	}
	return nil
}

// orphan has the kernel kill the process when the relay ends. A change of user has
// undone what the relay had set, so that it is set here.
func orphan(parent int) error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("parent's death: %w", err)
	}
	if os.Getppid() != parent {
		return errors.New("the relay has ended")
	}
	return nil
}

// capabilities drops all, also those that a service manager let the relay keep.
func capabilities() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("capabilities: %w", err)
	}
	if os.Getuid() == 0 {
		// Root would get them back with the exec, but for this.
		const noRoot = 1<<0 | 1<<1 // SECBIT_NOROOT and its lock
		if err := unix.Prctl(unix.PR_SET_SECUREBITS, noRoot, 0, 0, 0); err != nil {
			return fmt.Errorf("capabilities: %w", err)
		}
	}
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&h, &none[0]); err != nil {
		return fmt.Errorf("capabilities: %w", err)
	}
	return nil
}

// limits are applied last: the trampoline is a larger program than a plugin.
func limits(p Profile) error {
	set := func(name string, which int, value uint64) error {
		if err := syscall.Setrlimit(which, &syscall.Rlimit{Cur: value, Max: value}); err != nil {
			return fmt.Errorf("limit of %s: %w", name, err)
		}
		return nil
	}
	err := set("core files", unix.RLIMIT_CORE, 0)
	if p.Descriptors > 0 {
		var have syscall.Rlimit
		if e := syscall.Getrlimit(unix.RLIMIT_NOFILE, &have); e == nil {
			err = errors.Join(err, set("descriptors", unix.RLIMIT_NOFILE, min(p.Descriptors, have.Max)))
		}
	}
	if p.Memory > 0 {
		// Private writable memory is what a program uses; Go reserves far more address
		// space, which costs nothing.
		err = errors.Join(err, set("memory", unix.RLIMIT_DATA, p.Memory))
	}
	if p.Processes > 0 && p.UID != 0 { // counted by user: never where that is the relay's
		err = errors.Join(err, set("processes", unix.RLIMIT_NPROC, p.Processes))
	}
	return err
}

// hide has the exec close the descriptor of the program, which the plugin would
// inherit otherwise.
func hide(program string) {
	if fd, err := strconv.Atoi(strings.TrimPrefix(program, "/proc/self/fd/")); err == nil {
		unix.CloseOnExec(fd)
	}
}

// Undumpable keeps other processes of the same user from reading this one's memory
// and descriptors, and it from leaving a core file.
func Undumpable() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }

// seccompThere asks without changing anything.
func seccompThere() bool {
	action := uint32(unix.SECCOMP_RET_ERRNO)
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action)))
	return errno == 0
}
