package reality

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/commucat/commucat/sdk/transport"
)

// TestDescriptors: with no descriptors left the port waits, says so, ends strangers
// before it turns anybody away for good, and is well again. It runs in a process of its
// own, whose limit it lowers.
func TestDescriptors(t *testing.T) {
	if os.Getenv("COMMUCAT_FEW_FILES") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestDescriptors$", "-test.v")
		cmd.Env = append(os.Environ(), "COMMUCAT_FEW_FILES=1")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestDescriptors") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	r := startServer(t, baseConfig(t, nginxCover(t)))
	r.echoAll()
	if err := checkEcho(r.endpoint(), "", 1000); err != nil {
		t.Fatal(err)
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	// The strangers' own sockets are made before, so that the server alone is short.
	var idle []int
	for range 60 {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, fd)
	}
	limit.Cur = uint64(openFiles(t) + 30)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	at := transport.ParseAddrPort(r.addr)
	for _, fd := range idle {
		_ = syscall.Connect(fd, &syscall.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()})
	}
	r.awaitHealth(errors.New("no descriptors left"))
	for _, fd := range idle {
		_ = syscall.Close(fd)
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if err := checkEcho(r.endpoint(), "", 1000); err != nil {
		t.Errorf("with descriptors again: %v", err)
	}
	r.awaitHealth(nil)
}

func openFiles(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}
