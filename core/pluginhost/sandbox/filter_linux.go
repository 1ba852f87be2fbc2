package sandbox

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"unsafe"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// never are the system calls that no plugin needs: they reach into other processes,
// the kernel or the machine, or go round the other parts of the sandbox. A deny list,
// because an allow list breaks with each release of Go.
var never = []string{
	// other processes
	"ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "process_mrelease", "kcmp", "pidfd_getfd", "move_pages", "migrate_pages",
	"setpriority", "ioprio_set", "sched_setscheduler", "sched_setparam", "sched_setattr",
	"rt_sigqueueinfo", "rt_tgsigqueueinfo", "tkill",
	// file systems and namespaces
	"mount", "umount2", "pivot_root", "chroot", "move_mount", "open_tree", "open_tree_attr", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr",
	"unshare", "setns", "open_by_handle_at", "name_to_handle_at", "quotactl", "quotactl_fd", "swapon", "swapoff", "acct", "fanotify_init",
	// kernel
	"bpf", "perf_event_open", "keyctl", "add_key", "request_key", "init_module", "finit_module", "delete_module",
	"kexec_load", "kexec_file_load", "reboot", "syslog", "userfaultfd", "iopl", "ioperm", "modify_ldt", "personality", "vhangup",
	"sethostname", "setdomainname", "settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "lookup_dcookie", "uselib", "nfsservctl",
	// would do socket calls and opens unseen by the filter
	"io_uring_setup", "io_uring_enter", "io_uring_register",
	// memory that no limit counts
	"memfd_create", "memfd_secret", "shmget", "shmat", "shmctl", "shmdt", "semget", "semop", "semtimedop", "semctl",
	"msgget", "msgsnd", "msgrcv", "msgctl", "mq_open", "mq_unlink", "mbind", "set_mempolicy", "set_mempolicy_home_node",
}

// cond is one condition on an argument. The kernel looks at 32 bits of what it calls
// an int, a filter at 64: conditions are therefore written so that additional high
// bits refuse, never allow.
func cond(arg uint32, op seccomp.Operation, value uint64) seccomp.Condition {
	return seccomp.Condition{Argument: arg, Operation: op, Value: value}
}

func when(name string, c ...seccomp.Condition) seccomp.NameWithConditions {
	return seccomp.NameWithConditions{Name: name, Conditions: c}
}

// noneOf matches an argument that is none of the values.
func noneOf(arg uint32, values ...uint64) []seccomp.Condition {
	out := make([]seccomp.Condition, len(values))
	for i, v := range values {
		out[i] = cond(arg, seccomp.NotEqual, v)
	}
	return out
}

// is matches the low 32 bits of an argument, whatever the high ones are.
func is(arg uint32, value uint32) []seccomp.Condition {
	out := []seccomp.Condition{cond(arg, seccomp.BitsNotSet, uint64(^value))}
	for bit := uint32(1); bit != 0; bit <<= 1 {
		if value&bit != 0 {
			out = append(out, cond(arg, seccomp.BitsSet, uint64(bit)))
		}
	}
	return out
}

// policy is the deny list for a profile; pid is the process that will run under it.
func policy(p Profile, pid int) seccomp.Policy {
	deny := seccomp.SyscallGroup{Action: seccomp.ActionErrno, Names: slices.Clone(never)}
	args := []seccomp.NameWithConditions{
		// Shared anonymous memory is counted by no limit.
		when("mmap", cond(3, seccomp.BitsSet, unix.MAP_SHARED), cond(3, seccomp.BitsSet, unix.MAP_ANONYMOUS)),
		// The limits of other processes of the same user.
		when("prlimit64", cond(0, seccomp.NotEqual, 0)),
		// The relay's death must go on to end the process: only SIGKILL may be set.
		when("prctl", append(is(0, unix.PR_SET_PDEATHSIG), cond(1, seccomp.NotEqual, uint64(unix.SIGKILL)))...),
		when("clone", cond(0, seccomp.BitsSet, unix.CLONE_NEWNS|unix.CLONE_NEWCGROUP|unix.CLONE_NEWUTS|unix.CLONE_NEWIPC|
			unix.CLONE_NEWUSER|unix.CLONE_NEWPID|unix.CLONE_NEWNET)),
	}
	args = append(args, sockets(p)...)
	if !p.children() {
		deny.Names = append(deny.Names, "fork", "vfork", "pidfd_open", "pidfd_send_signal")
		args = append(args,
			when("clone", cond(0, seccomp.BitsNotSet, unix.CLONE_THREAD)),
			when("kill", cond(0, seccomp.NotEqual, uint64(pid))),
			when("tgkill", cond(0, seccomp.NotEqual, uint64(pid))))
	}
	if !p.Outbound && !p.children() {
		deny.Names = append(deny.Names, "connect")
	}
	deny.NamesWithCondtions = args
	// The flags of clone3 lie in memory, out of a filter's sight; programs fall back
	// to clone.
	absent := seccomp.SyscallGroup{Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS), Names: []string{"clone3"}}
	return seccomp.Policy{DefaultAction: seccomp.ActionAllow, Syscalls: []seccomp.SyscallGroup{deny, absent}}
}

// sockets refuses families, types and protocols: Landlock does not see MPTCP, which
// Go's listeners use by default, nor UDP on most kernels.
func sockets(p Profile) []seccomp.NameWithConditions {
	families := []uint64{unix.AF_UNIX}
	types := []uint64{unix.SOCK_STREAM, unix.SOCK_SEQPACKET}
	protocols := []uint64{0}
	if p.Outbound || p.children() {
		families = append(families, unix.AF_INET, unix.AF_INET6)
		types = append(types, unix.SOCK_DGRAM)
		protocols = append(protocols, unix.IPPROTO_TCP, unix.IPPROTO_UDP)
	}
	var typed []uint64
	for _, t := range types {
		for _, flags := range []uint64{0, unix.SOCK_CLOEXEC, unix.SOCK_NONBLOCK, unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK} {
			typed = append(typed, t|flags)
		}
	}
	return []seccomp.NameWithConditions{
		when("socket", noneOf(0, families...)...),
		when("socket", noneOf(1, typed...)...),
		when("socket", noneOf(2, protocols...)...),
	}
}

// known drops what this architecture does not have.
func known(p seccomp.Policy, a *arch.Info) seccomp.Policy {
	for i := range p.Syscalls {
		g := &p.Syscalls[i]
		g.Names = slices.DeleteFunc(g.Names, func(n string) bool { _, ok := a.SyscallNames[n]; return !ok })
		g.NamesWithCondtions = slices.DeleteFunc(g.NamesWithCondtions, func(n seccomp.NameWithConditions) bool { _, ok := a.SyscallNames[n.Name]; return !ok })
	}
	return p
}

// program is the filter. The library's own would let the calls of another
// architecture (32 bits) pass, so that they come first here; a call that is newer
// than the table does not exist.
func program(p Profile, pid int) ([]bpf.RawInstruction, error) {
	a, err := arch.GetInfo("")
	if err != nil {
		return nil, fmt.Errorf("no filter for %s: %w", runtime.GOARCH, err)
	}
	newest := 0
	for _, n := range a.SyscallNames {
		newest = max(newest, n)
	}
	rules := known(policy(p, pid), a)
	list, err := rules.Assemble()
	if err != nil {
		return nil, err
	}
	const number, architecture = 0, 4 // offsets in struct seccomp_data
	head := []bpf.Instruction{
		bpf.LoadAbsolute{Off: architecture, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(a.ID), SkipTrue: 1},
		bpf.RetConstant{Val: uint32(seccomp.ActionErrno) | uint32(unix.EPERM)},
		bpf.LoadAbsolute{Off: number, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpLessOrEqual, Val: uint32(newest), SkipTrue: 1},
		bpf.RetConstant{Val: uint32(seccomp.ActionErrno) | uint32(unix.ENOSYS)},
	}
	return bpf.Assemble(append(head, list...))
}

// filter installs the system call filter on every thread; no_new_privs is set.
func filter(p Profile) error {
	raw, err := program(p, os.Getpid())
	if err != nil {
		return err
	}
	list := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		list[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	prog := unix.SockFprog{Len: uint16(len(list)), Filter: &list[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(list)
	if errno != 0 {
		return errno
	}
	return nil
}
