package doctor

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// tight is the free space below which the relay soon refuses messages, little
	// that which deserves a word.
	tight  = 64 << 20
	little = 1 << 30
	// inodes are the files that a storage and a ledger may need at once.
	inodes = 1000
)

// disk looks at the file system of the data folder, or of the nearest folder
// above that exists.
func (e *examination) disk() {
	const check = "disk space"
	dir, err := filepath.Abs(e.Data)
	if err != nil {
		e.add(check, Wrong, err.Error(), "give --data with its whole path, from a folder that exists")
		return
	}
	for dir != "/" {
		if _, err := os.Stat(dir); err == nil {
			break
		}
		dir = filepath.Dir(dir)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		e.add(check, Wrong, fmt.Sprintf("%s: %v", dir, err), "run this as the relay's own user; df "+dir)
		return
	}
	free := st.Bavail * uint64(st.Bsize)
	mend := fmt.Sprintf("free some: du -xh %s | sort -h | tail, or move the folder (server.data)", dir)
	switch {
	case free < tight:
		e.add(check, Wrong, fmt.Sprintf("%d MiB free: messages will be refused", free>>20), mend)
	case st.Files > 0 && st.Ffree < inodes:
		e.add(check, Wrong, fmt.Sprintf("%d files can be made yet", st.Ffree), mend)
	case free < little:
		e.add(check, Weak, fmt.Sprintf("%d MiB free", free>>20), mend)
	default:
		e.fine(check, "%d GiB free", free>>30)
	}
}

// spare are files that the relay opens beside its sessions.
const spare = 512

// files compares the limit of open files with that of sessions: of the running
// relay where it can be read, else of this process.
func (e *examination) files() {
	const check = "open files"
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		e.add(check, Wrong, err.Error(), "ulimit -n")
		return
	}
	most, whose := limit.Max, "this shell"
	if e.status != nil {
		if n, ok := processFiles(e.Data); ok {
			most, whose = n, "the relay"
		}
	}
	if need := uint64(e.Config.Limits.Sessions) + spare; most < need {
		e.add(check, Weak, fmt.Sprintf("%s may open %d files, too few for limits.sessions = %d", whose, most, e.Config.Limits.Sessions),
			fmt.Sprintf("LimitNOFILE=%d in the unit file, or ulimit -n %d", need, need))
		return
	}
	e.fine(check, "enough for %d sessions", e.Config.Limits.Sessions)
}

// processFiles reads the limit of the process that holds the data folder.
func processFiles(dir string) (uint64, bool) {
	b, err := os.ReadFile(filepath.Join(dir, "lock"))
	if err != nil {
		return 0, false
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(b)))
	if err != nil {
		return 0, false
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(text)) {
		rest, ok := strings.CutPrefix(line, "Max open files")
		if f := strings.Fields(rest); ok && len(f) >= 2 {
			if n, err := strconv.ParseUint(f[0], 10, 64); err == nil {
				return n, true
			}
		}
	}
	return 0, false
}

// clock asks the kernel whether the time is kept, and looks for files from the
// future.
func (e *examination) clock() {
	const check, mend = "clock", "timedatectl set-ntp true"
	var newest time.Time
	var name string
	walk := func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil //nolint:nilerr // what cannot be read was found before
		}
		if st, err := d.Info(); err == nil && st.ModTime().After(newest) {
			newest, name = st.ModTime(), path
		}
		return nil
	}
	err := filepath.WalkDir(filepath.Join(e.Data, "keys"), walk)
	if now := e.Now(); err == nil && newest.After(now.Add(5*time.Minute)) {
		e.add(check, Wrong, fmt.Sprintf("%s is from the future (%s): certificates and tokens will be refused", name, newest.UTC().Format(time.DateTime)), mend)
		return
	}
	kept, err := synchronised()
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		e.fine(check, "%s; whether it is kept cannot be seen here", e.Now().UTC().Format(time.DateTime))
	case err != nil:
		e.add(check, Weak, err.Error(), mend)
	case !kept:
		e.add(check, Weak, "nothing keeps the time: entry tokens allow for two minutes of difference", mend)
	default:
		e.fine(check, "synchronised")
	}
}

// udpBuffer is what transports over UDP ask for a socket, each way.
const udpBuffer = 7 << 20

// udpTransports are the plugins that ask for it.
var udpTransports = []string{"amnesiawg", "masque"}

// buffers compares what the kernel allows a socket with what the transports that are
// enabled ask for.
func (e *examination) buffers() {
	const check = "udp buffers"
	var names []string
	for _, name := range sorted(e.Config.Transports) {
		t := e.Config.Transports[name]
		plugin := t.Plugin
		if plugin == "" {
			plugin = name
		}
		if t.Enabled && slices.Contains(udpTransports, plugin) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return
	}
	var small, mend []string
	for _, key := range []string{"net.core.rmem_max", "net.core.wmem_max"} {
		text, err := e.Sysctl(key)
		if err != nil {
			e.fine(check, "what the kernel allows cannot be seen here")
			return
		}
		if n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64); err != nil || n < udpBuffer {
			small = append(small, fmt.Sprintf("%s = %s", key, strings.TrimSpace(text)))
			mend = append(mend, fmt.Sprintf("%s=%d", key, udpBuffer))
		}
	}
	if len(small) > 0 {
		e.add(check, Weak, fmt.Sprintf("%s: packets of %s are lost under load", strings.Join(small, ", "), strings.Join(names, ", ")),
			"sysctl -w "+strings.Join(mend, " ")+" (and a file in /etc/sysctl.d)")
		return
	}
	e.fine(check, "large enough for %s", strings.Join(names, ", "))
}

// sysctl reads a setting of the kernel.
func sysctl(key string) (string, error) {
	b, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(key, ".", "/"))
	return string(b), err
}
