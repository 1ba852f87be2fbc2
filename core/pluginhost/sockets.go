package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// sockets are what one configured transport listens on. The relay keeps them and
// lends duplicates, so that they outlive the processes: while none runs, clients wait
// in the kernel's queue, and two may accept side by side during an upgrade.
type sockets struct {
	mu      sync.Mutex
	held    map[socketKey]*socket
	lenders map[*lender]bool
	closed  bool
}

// socketKey names a socket by what was asked for; n counts equal questions of one
// process ("127.0.0.1:0" twice are two sockets).
type socketKey struct {
	network, address string
	n                int
}

type socket struct {
	tcp *net.TCPListener
	udp *net.UDPConn
}

func (s *socket) close() {
	if s.tcp != nil {
		s.tcp.Close()
	}
	if s.udp != nil {
		s.udp.Close()
	}
}

func newSockets() *sockets {
	return &sockets{held: map[socketKey]*socket{}, lenders: map[*lender]bool{}}
}

// lender lends to one process.
type lender struct {
	of      *sockets
	allow   claims
	count   map[socketKey]int
	used    map[socketKey]bool
	settled bool // it has asked for all that it needs
}

// lend makes the lender of a new process.
func (s *sockets) lend(allow claims) *lender {
	l := &lender{of: s, allow: allow, count: map[socketKey]int{}, used: map[socketKey]bool{}}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lenders[l] = true
	return l
}

// back ends a lender. Sockets that only it used go, unless no process is left: then
// the next one finds them.
func (l *lender) back() {
	s := l.of
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.lenders, l)
	if len(s.lenders) > 0 {
		s.prune()
	}
}

// settle closes what neither this process nor another one uses.
func (l *lender) settle() {
	l.of.mu.Lock()
	defer l.of.mu.Unlock()
	l.settled = true
	l.of.prune()
}

// prune closes what nobody uses, once nobody is left who may still ask for it.
func (s *sockets) prune() {
	for l := range s.lenders {
		if !l.settled {
			return
		}
	}
	for key, held := range s.held {
		used := false
		for l := range s.lenders {
			used = used || l.used[key]
		}
		if !used {
			held.close()
			delete(s.held, key)
		}
	}
}

// close gives everything up.
func (s *sockets) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.drop()
}

// drop closes all sockets; later questions bind anew.
func (s *sockets) drop() {
	for key, held := range s.held {
		held.close()
		delete(s.held, key)
	}
}

// reset is drop for a transport that is parked: clients are refused, not left
// waiting.
func (s *sockets) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop()
}

// datagrams says that the process has a packet socket.
func (l *lender) datagrams() bool {
	l.of.mu.Lock()
	defer l.of.mu.Unlock()
	for key := range l.used {
		if held := l.of.held[key]; held != nil && held.udp != nil {
			return true
		}
	}
	return false
}

// listen is Env.Listen: a duplicate of a TCP listener.
func (l *lender) listen(ctx context.Context, network, address string) (net.Listener, error) {
	if network != "tcp" && network != "tcp4" && network != "tcp6" {
		return nil, refusedSocket(network, address, "only TCP and UDP sockets are lent")
	}
	held, err := l.get(network, address, func() (*socket, error) {
		var lc net.ListenConfig
		lc.SetMultipathTCP(false) // accepted sockets are handed on as what they are: TCP
		ln, err := lc.Listen(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &socket{tcp: ln.(*net.TCPListener)}, nil
	})
	if err != nil {
		return nil, err
	}
	f, err := held.tcp.File()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return net.FileListener(f)
}

// packet is Env.ListenPacket: a duplicate of a UDP socket, which one process has at a
// time: two readers would take each other's packets.
func (l *lender) packet(ctx context.Context, network, address string) (net.PacketConn, error) {
	if network != "udp" && network != "udp4" && network != "udp6" {
		return nil, refusedSocket(network, address, "only TCP and UDP sockets are lent")
	}
	held, err := l.get(network, address, func() (*socket, error) {
		pc, err := new(net.ListenConfig).ListenPacket(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &socket{udp: pc.(*net.UDPConn)}, nil
	})
	if err != nil {
		return nil, err
	}
	f, err := held.udp.File()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	conn, err := net.FilePacketConn(f)
	if err != nil {
		return nil, err
	}
	return conn, unmark(conn.(*net.UDPConn))
}

// unmark takes from a UDP socket what an earlier process may have left on it: a filter
// would drop another's datagrams, and joined ones come only to who asks for their size.
func unmark(c *net.UDPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0) // ENOENT where there is none
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO, 0)         // ENOPROTOOPT before Linux 5.0
	})
}

func (l *lender) get(network, address string, bind func() (*socket, error)) (*socket, error) {
	if err := l.allow.check(network, address); err != nil {
		return nil, err
	}
	s := l.of
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || !s.lenders[l] {
		return nil, refusedSocket(network, address, "the transport is ending")
	}
	key := socketKey{network: network, address: address}
	if l.count[key] >= 16 {
		return nil, refusedSocket(network, address, "asked for too often")
	}
	l.count[key]++
	key.n = l.count[key]
	held := s.held[key]
	if held != nil && !held.usable() {
		held.close()
		held = nil
	}
	if held == nil {
		var err error
		if held, err = bind(); err != nil {
			return nil, bindError(network, address, err)
		}
		s.held[key] = held
	} else if held.udp != nil {
		for other := range s.lenders {
			if other != l && other.used[key] {
				return nil, refusedSocket(network, address, "the process before still reads from it")
			}
		}
	}
	l.used[key] = true
	return held, nil
}

// usable says that a listener still listens: who was lent a duplicate can end that
// for all.
func (s *socket) usable() bool {
	if s.tcp == nil {
		return true
	}
	raw, err := s.tcp.SyscallConn()
	if err != nil {
		return false
	}
	listens := 0
	err2 := raw.Control(func(fd uintptr) { listens, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ACCEPTCONN) })
	return err == nil && err2 == nil && listens == 1
}

func refusedSocket(network, address, text string) error {
	return &sdk.Error{Kind: sdk.Denied, Op: network + " " + address, Text: text}
}

func bindError(network, address string, err error) error {
	text := ""
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		text = "another program, or another part of the relay, has it"
	case errors.Is(err, syscall.EACCES):
		text = "the relay needs CAP_NET_BIND_SERVICE for a port below 1024"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		text = "this machine does not have that address"
	}
	// Any of them may pass: another program may end, an address may come.
	return &sdk.Error{Kind: sdk.Unavailable, Op: fmt.Sprintf("listen on %s %s", network, address), Text: text, Err: bareNet(err)}
}

func bareNet(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// claims are the sockets that a plugin may ask for: the relay binds with its own
// rights, which are more than the plugin's. An address counts whose port stands in
// the plugin's configuration, as a number or at the end of an address; a free port on
// the loopback interface always.
type claims struct {
	tcp, udp bool
	ports    map[uint16]bool
	// free are the hosts of addresses with port 0; "" stands for all.
	free map[string]bool
}

// claimsOf reads the ports out of a decoded configuration.
func claimsOf(needs []string, cfg any) claims {
	c := claims{
		tcp: slices.Contains(needs, string(transport.TCPPort)), udp: slices.Contains(needs, string(transport.UDPPort)),
		ports: map[uint16]bool{}, free: map[string]bool{},
	}
	c.collect(reflect.ValueOf(cfg), 0)
	return c
}

func (c claims) collect(v reflect.Value, depth int) {
	if depth > 8 {
		return
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			c.collect(v.Elem(), depth+1)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				c.collect(v.Field(i), depth+1)
			}
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			c.collect(v.Index(i), depth+1)
		}
	case reflect.Map:
		for _, k := range v.MapKeys() {
			c.collect(v.MapIndex(k), depth+1)
		}
	case reflect.String:
		host, port, err := net.SplitHostPort(v.String())
		if n, bad := strconv.ParseUint(port, 10, 16); err == nil && bad == nil && n == 0 {
			c.free[bareHost(host)] = true
		} else if err == nil {
			c.add(port)
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		if v.Type() != reflect.TypeFor[sdk.Size]() && v.Type().String() != "time.Duration" {
			c.add(strconv.FormatInt(v.Int(), 10))
		}
	}
}

func (c claims) add(port string) {
	if n, err := strconv.ParseUint(port, 10, 16); err == nil && n != 0 {
		c.ports[uint16(n)] = true
	}
}

func (c claims) check(network, address string) error {
	if udp := network[:3] == "udp"; udp && !c.udp || !udp && !c.tcp {
		return refusedSocket(network, address, "the plugin has not said that it needs such a port")
	}
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return &sdk.Error{Kind: sdk.Invalid, Op: network + " " + address, Text: "is no address"}
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return &sdk.Error{Kind: sdk.Invalid, Op: network + " " + address, Text: "the port must be a number"}
	}
	// Who wrote port 0 takes any of that host: a plugin may draw one itself, and ask
	// again for the one that it had, so that its links stay good.
	free := c.free[""] || c.free[bareHost(host)]
	if c.ports[uint16(port)] || port == 0 && (free || isLocal(host)) || port >= 1024 && free {
		return nil
	}
	return refusedSocket(network, address, "that port does not stand in the plugin's configuration")
}

// bareHost writes an address to listen on in one way: "" is every address, and
// "localhost" those of the loopback interface.
func bareHost(host string) string {
	if ip, err := netip.ParseAddr(host); err == nil && ip.Unmap().IsUnspecified() {
		return ""
	}
	if isLocal(host) {
		return "localhost"
	}
	return strings.ToLower(host)
}

func isLocal(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}
