//go:build linux

// Command hostile is a plugin that does what no plugin should. The argument chooses
// what it does before it can be opened, its configuration what it does afterwards.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/internal/wire"
	"github.com/commucat/commucat/sdk/internal/wire/handoff"
	"github.com/commucat/commucat/sdk/plugin"
	"github.com/commucat/commucat/sdk/transport"
)

// Config says what Listen does.
type Config struct {
	Mode string `cfg:"mode" doc:"what it does"`
}

func main() {
	switch mode := strings.Join(os.Args[1:], " "); mode {
	case "silent":
		time.Sleep(time.Hour) // the runtime ends a program in which nothing can ever happen
	case "noise":
		fmt.Println(strings.Repeat("noise ", 10_000))
		time.Sleep(time.Hour)
	case "leaves":
		leave()
		os.Exit(4)
	case "dies":
		fmt.Fprintln(os.Stderr, "panic: at once")
		os.Exit(2)
	case "outside":
		fmt.Println("1|1|tcp|127.0.0.1:1|grpc|")
		select {}
	case "elsewhere":
		fmt.Println("1|1|unix|/tmp/../tmp/x|grpc|")
		select {}
	case "generation":
		fmt.Println("1|99|unix|" + os.Getenv("PLUGIN_UNIX_SOCKET_DIR") + "/x|grpc|")
		select {}
	case "describe":
		fmt.Println(strings.Repeat("x", 2<<20))
	case "future", "liar", "garbage", "huge", "deaf":
		serveRaw(mode)
	default:
		plugin.Serve(transport.Define(transport.Descriptor{
			Name: "hostile", Version: "0.0.1", Summary: "does what no plugin should",
		}, transport.Funcs[Config]{Listen: listen, Dial: dial, Probe: probe, NewKey: func() ([]byte, []byte, error) { panic("no keys") }}))
	}
}

func probe(ctx context.Context, env sdk.Env, c Config) error {
	switch c.Mode {
	case "hang":
		select {}
	case "health":
		for i := range 10_000 {
			env.Degraded(fmt.Errorf("reason %d \x1b[31m", i))
		}
	case "error":
		return fmt.Errorf("\x1b[2J%s", strings.Repeat("long ", 10_000))
	}
	return nil
}

func dial(ctx context.Context, _ sdk.Env, c Config, _ transport.Endpoint, with transport.Dial) (net.Conn, error) {
	if c.Mode == "hang" {
		select {}
	}
	return new(net.Dialer).DialContext(ctx, "tcp", "127.0.0.1:1")
}

func listen(_ context.Context, env sdk.Env, c Config) (net.Listener, error) {
	switch c.Mode {
	case "panic":
		panic("boom \x1b[31m")
	case "exit":
		os.Exit(3)
	case "hang":
		select {}
	case "log":
		flood(env)
	case "let go":
		syscall.Close(wire.Handoff)
		select {}
	case "escape":
		leave()
		os.Exit(4)
	case "orphan":
		cmd := exec.Command("/bin/sleep", "1000")
		cmd.ExtraFiles = []*os.File{os.NewFile(wire.Handoff, "")}
		cmd.Stderr = os.NewFile(2, "")
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		env.Log().Info("orphan", "orphan", cmd.Process.Pid)
		time.Sleep(100 * time.Millisecond)
		os.Exit(0)
	case "bind":
		s := mainSocket()
		for i := range 1000 {
			_ = s.Send(&handoff.Message{Type: handoff.Bind, Number: uint64(i + 1), Instance: 1, Network: "tcp", Address: "127.0.0.1:0"}, -1, time.Time{})
		}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		go misuse(c.Mode)
	}
	return ln, err
}

// leave starts a process in a session of its own that holds everything this one has.
func leave() {
	cmd := exec.Command("/bin/sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.ExtraFiles = []*os.File{os.NewFile(wire.Handoff, "")}
	cmd.Stdout, cmd.Stderr = os.NewFile(1, ""), os.NewFile(2, "")
	if err := cmd.Start(); err != nil {
		panic(err)
	}
	fmt.Fprintf(os.NewFile(2, ""), `{"level":"INFO","msg":"left","left":%d}`+"\n", cmd.Process.Pid)
}

// flood writes everything that a parser of log lines does not like.
func flood(env sdk.Env) {
	w := os.NewFile(2, "stderr")
	fmt.Fprintln(w, `{"@message":1}`)
	fmt.Fprintln(w, `{"level":"INFO","msg":"a record","count":7,"nested":{"a":[1,"b"]},"plugin":"hostile","pid":1}`)
	fmt.Fprintln(w, `{"level":"INFO","msg":"`+"\x1b[31m"+`","key`+"\x07"+`":"`+"\u202e"+`"}`)
	fmt.Fprintln(w, strings.Repeat("{", 20_000))
	fmt.Fprintln(w, `{"level":"INFO","msg":"deep","x":`+strings.Repeat("[", 5000)+strings.Repeat("]", 5000)+`}`)
	fmt.Fprintln(w, strings.Repeat("long ", 200_000))
	fmt.Fprint(w, "\x00\xff\n\n\r\n")
	for i := range 20_000 {
		fmt.Fprintf(w, "line %d\n", i)
	}
	for i := range 20_000 {
		env.Log().Error("record", "number", i)
	}
	fmt.Fprint(w, "half a line")
}

// sockets are the hand-off sockets of this process: the main one and listeners'.
func sockets() []int {
	var out []int
	for fd := 3; fd < 100; fd++ {
		if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err == nil && kind == unix.SOCK_SEQPACKET {
			out = append(out, fd)
		}
	}
	return out
}

func mainSocket() *handoff.Socket {
	fd, _ := unix.FcntlInt(wire.Handoff, unix.F_DUPFD_CLOEXEC, 0)
	s, err := handoff.NewSocket(fd, new(handoff.Counters))
	if err != nil {
		panic(err)
	}
	return s
}

// raw sends bytes and descriptors.
func raw(to int, b []byte, fds ...int) {
	for {
		err := unix.Sendmsg(to, b, unix.UnixRights(fds...), nil, 0)
		if err != unix.EAGAIN {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func pair() [2]int {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		panic(err)
	}
	return fds
}

var accepted = (&handoff.Message{Type: handoff.Accepted, Kind: handoff.KindPump}).Append(nil)

// misuse hands over what it should not.
func misuse(mode string) {
	all := sockets()
	out := all[len(all)-1]
	switch mode {
	case "foreign":
		foreign(out)
		foreign(wire.Handoff)
	case "truncated":
		for range 3 {
			raw(out, make([]byte, 10_000), pair()[0])
			many := make([]int, 200)
			for i := range many {
				many[i] = 0
			}
			raw(out, accepted, many...)
			raw(out, []byte("junk"), pair()[0])
			raw(out, accepted, pair()[0], pair()[0])
		}
		raw(out, accepted)
	case "duplicates":
		// More than are waited for: one that is made blocking in the very moment of
		// its arrival is refused.
		for range 250 {
			p := pair()
			raw(out, accepted, p[0])
			keep(p[0])
		}
		select {}
	case "linger":
		ln, _ := net.Listen("tcp", "127.0.0.1:0")
		for range 20 {
			c, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				panic(err)
			}
			r, _ := c.(*net.TCPConn).SyscallConn()
			_ = r.Control(func(fd uintptr) {
				raw(out, (&handoff.Message{Type: handoff.Accepted, Kind: handoff.KindSocket}).Append(nil), int(fd))
				_ = unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 1000})
			})
			c.Close()
		}
		select {}
	case "endless":
		for {
			p := pair()
			raw(out, accepted, p[0])
			unix.Close(p[0])
			unix.Close(p[1])
		}
	}
	p := pair()
	_, _ = unix.Write(p[1], []byte("good"))
	raw(out, accepted, p[0])
	select {}
}

// keep clears O_NONBLOCK of a descriptor again and again.
func keep(fd int) {
	go func() {
		for {
			_ = unix.SetNonblock(fd, false)
			time.Sleep(time.Millisecond)
		}
	}()
}

// foreign sends descriptors that are no connected stream sockets.
func foreign(out int) {
	file, _ := os.Open("/proc/self/exe")
	null, _ := os.Open("/dev/null")
	var pipe [2]int
	_ = unix.Pipe(pipe[:])
	udp, _ := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	fresh, _ := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	listening, _ := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	_ = unix.Listen(listening, 1)
	packet, _ := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET, 0)
	datagram, _ := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	event, _ := unix.Eventfd(0, 0)
	folder, _ := os.Open("/")
	for _, fd := range []int{int(file.Fd()), int(null.Fd()), pipe[0], udp, fresh, listening, packet[0], datagram[0], event, int(folder.Fd())} {
		raw(out, accepted, fd)
	}
}
