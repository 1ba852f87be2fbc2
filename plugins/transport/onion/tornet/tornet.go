// Package tornet makes a Tor network of its own on the loopback interface, for tests
// and demonstrations: one directory authority that is a relay as well, and three more
// relays. Nothing leaves the machine.
package tornet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// relays is how many there are, the authority included. With three, onion services
// were never reached.
const relays = 4

// Network is a running network.
type Network struct {
	dir   string
	tor   string
	lines []string // what every tor of this network has in its configuration
	nodes []*node

	others []*node // those of Run
}

// node is one relay.
type node struct {
	name   string
	folder string
	or, d  int
	own    []string
	cmd    *exec.Cmd
	done   chan struct{}
}

// Start makes a network in dir, which must be empty, and returns when its consensus
// names every relay and each has built a circuit: 15 to 20 seconds. The processes end with
// Close, or with this process.
func Start(ctx context.Context, dir string) (_ *Network, err error) {
	n := &Network{dir: dir}
	if n.tor, err = exec.LookPath("tor"); err != nil {
		return nil, errors.New("tor is not installed: install the package tor")
	}
	if _, err := exec.LookPath("tor-gencert"); err != nil {
		return nil, errors.New("tor-gencert is not installed: install the package tor")
	}
	defer func() {
		if err != nil {
			n.Close()
		}
	}()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(n.empty(), nil, 0o600); err != nil {
		return nil, err
	}
	for i := range relays {
		one := &node{name: fmt.Sprintf("relay%d", i), folder: filepath.Join(dir, fmt.Sprintf("relay%d", i))}
		if one.or, err = free(); err != nil {
			return nil, err
		}
		if one.d, err = free(); err != nil {
			return nil, err
		}
		if err := os.MkdirAll(filepath.Join(one.folder, "keys"), 0o700); err != nil {
			return nil, err
		}
		n.nodes = append(n.nodes, one)
	}
	if err := n.found(ctx); err != nil {
		return nil, err
	}
	authority := n.nodes[0]
	if err := n.run(authority); err != nil {
		return nil, err
	}
	if err := wait(ctx, func() bool { return dials(authority.d) || authority.ended() }); err != nil || authority.ended() {
		return nil, errors.Join(errors.New("the authority does not listen"), err)
	}
	for _, one := range n.nodes[1:] {
		if err := n.run(one); err != nil {
			return nil, err
		}
	}
	if err := wait(ctx, n.complete); err != nil {
		return nil, fmt.Errorf("the consensus does not name all relays: %w", err)
	}
	// Those that asked too early wait long before they ask again.
	for _, one := range n.nodes[1:] {
		one.stop()
		if err := os.Remove(one.log()); err != nil {
			return nil, err
		}
		if err := n.run(one); err != nil {
			return nil, err
		}
	}
	// Whoever asks a relay for what it has not got yet waits long, too. One that is late
	// itself holds up those alone that choose it.
	limit, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for _, one := range n.nodes[1:] {
		if err := wait(limit, func() bool { return one.bootstrapped() || one.ended() }); one.ended() || err != nil && ctx.Err() != nil {
			return nil, errors.Join(fmt.Errorf("%s has ended, or has no circuit", one.name), ctx.Err())
		}
	}
	return n, nil
}

// Torrc are the lines that make a tor one of this network.
func (n *Network) Torrc() []string { return append([]string(nil), n.lines...) }

// Path is a place in the network's folder.
func (n *Network) Path(name string) string { return filepath.Join(n.dir, name) }

// Close ends all processes.
func (n *Network) Close() {
	var group sync.WaitGroup
	for _, one := range append(n.others, n.nodes...) {
		group.Go(one.stop)
	}
	group.Wait()
}

// empty is a configuration without a line.
func (n *Network) empty() string { return filepath.Join(n.dir, "empty") }

// found makes the authority's identity, and the lines for all.
func (n *Network) found(ctx context.Context) error {
	a := n.nodes[0]
	keys := filepath.Join(a.folder, "keys")
	gen := exec.CommandContext(ctx, "tor-gencert", "--create-identity-key", "-m", "12", "-a", fmt.Sprintf("127.0.0.1:%d", a.d),
		"-i", filepath.Join(keys, "authority_identity_key"), "-s", filepath.Join(keys, "authority_signing_key"),
		"-c", filepath.Join(keys, "authority_certificate"), "--passphrase-fd", "0")
	gen.Stdin = strings.NewReader("a network that lasts for minutes\n")
	if out, err := gen.CombinedOutput(); err != nil {
		return fmt.Errorf("tor-gencert: %w: %s", err, bytes.TrimSpace(out))
	}
	certificate, err := os.ReadFile(filepath.Join(keys, "authority_certificate"))
	if err != nil {
		return err
	}
	identity := ""
	for line := range strings.Lines(string(certificate)) {
		if f, ok := strings.CutPrefix(line, "fingerprint "); ok {
			identity = strings.TrimSpace(f)
		}
	}
	dummy := fmt.Sprintf("x orport=%d no-v2 v3ident=%s 127.0.0.1:%d %s", a.or, identity, a.d, strings.Repeat("F", 40))
	var prints []string
	for _, one := range n.nodes {
		f, err := n.fingerprint(ctx, one, dummy)
		if err != nil {
			return err
		}
		prints = append(prints, f)
	}
	if len(identity) != 40 {
		return fmt.Errorf("the authority's identity is not known: %q", identity)
	}
	n.lines = []string{
		"TestingTorNetwork 1",
		fmt.Sprintf("DirAuthority %s orport=%d no-v2 v3ident=%s 127.0.0.1:%d %s", a.name, a.or, identity, a.d, prints[0]),
		"AssumeReachable 1", "PathsNeededToBuildCircuits 0.67", "TestingDirAuthVoteExit *", "TestingDirAuthVoteHSDir *",
		"V3AuthNIntervalsValid 2", "ShutdownWaitLength 0",
		// With vanguards tor may choose its guard as the last relay too (A-B-A), which B
		// refuses to extend. Among thousands of relays that does not happen; here it is one
		// circuit in three, and after some that fail tor builds none for the rest of a minute.
		"VanguardsLiteEnabled 0",
		// What is learnt while the machine is idle is too short when it is busy.
		"LearnCircuitBuildTimeout 0", "CircuitBuildTimeout 30",
		// Reading the tables of countries takes a second of each start.
		"GeoIPFile " + os.DevNull, "GeoIPv6File " + os.DevNull,
	}
	// The circuits that onion services begin with end at a stable relay, which at first
	// is the authority alone. A tor with the authority as its guard would build relay0,
	// another, relay0, which the second refuses to extend: after some of those tor builds
	// nothing for the rest of a minute.
	a.own = []string{
		"AuthoritativeDirectory 1", "V3AuthoritativeDirectory 1", "TestingV3AuthInitialVotingInterval 5", "TestingV3AuthInitialVoteDelay 2",
		"TestingV3AuthInitialDistDelay 2", "V3AuthVotingInterval 10", "V3AuthVoteDelay 2", "V3AuthDistDelay 2", "ContactInfo none@localhost",
		"TestingDirAuthVoteGuard " + strings.Join(prints[1:], ","), "TestingDirAuthVoteGuardIsStrict 1",
	}
	return nil
}

// fingerprint makes a relay's keys, and says what others know it by.
func (n *Network) fingerprint(ctx context.Context, one *node, authority string) (string, error) {
	list := exec.CommandContext(ctx, n.tor, "--list-fingerprint", "-f", n.empty(), "--defaults-torrc", n.empty(), "--DataDirectory", one.folder,
		"--ORPort", fmt.Sprintf("127.0.0.1:%d", one.or), "--Address", "127.0.0.1", "--Nickname", one.name, "--TestingTorNetwork", "1", "--DirAuthority", authority)
	list.Env = []string{"HOME=" + one.folder}
	out, err := list.Output()
	if err != nil {
		return "", fmt.Errorf("tor --list-fingerprint: %w", err)
	}
	last := strings.TrimSpace(string(out))
	if i := strings.LastIndexByte(last, '\n'); i >= 0 {
		last = last[i+1:]
	}
	_, f, _ := strings.Cut(last, " ")
	if f = strings.ReplaceAll(f, " ", ""); len(f) != 40 {
		return "", fmt.Errorf("the fingerprint of %s is not known: %q", one.name, last)
	}
	return f, nil
}

func (n *Network) run(one *node) error {
	lines := append(n.Torrc(), one.own...)
	lines = append(lines, "Nickname "+one.name, `DataDirectory "`+one.folder+`"`, "Address 127.0.0.1", fmt.Sprintf("ORPort 127.0.0.1:%d IPv4Only", one.or),
		fmt.Sprintf("DirPort 127.0.0.1:%d", one.d), "ExitPolicy reject *:*", "SocksPort 0", "Log notice file "+one.log())
	return n.start(one, lines)
}

func (n *node) log() string { return filepath.Join(n.folder, "log") }

// bootstrapped says that it has built a circuit.
func (n *node) bootstrapped() bool {
	b, err := os.ReadFile(n.log())
	return err == nil && bytes.Contains(b, []byte("Bootstrapped 100%"))
}

// ended says that the process is no more.
func (n *node) ended() bool {
	select {
	case <-n.done:
		return true
	default:
		return false
	}
}

func (n *node) stop() {
	if n.done == nil {
		return
	}
	_ = n.cmd.Process.Signal(os.Interrupt) // it may have ended already
	select {
	case <-n.done:
	case <-time.After(5 * time.Second):
		_ = n.cmd.Process.Kill()
		<-n.done
	}
}

// complete says that the authority's consensus names all relays.
func (n *Network) complete() bool {
	b, err := os.ReadFile(filepath.Join(n.nodes[0].folder, "cached-microdesc-consensus"))
	return err == nil && bytes.Count(b, []byte("\nr ")) >= relays
}

// wait asks until it is so.
func wait(ctx context.Context, so func() bool) error {
	for !so() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
		}
	}
	return nil
}

func dials(port int) bool {
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return false
	}
	return c.Close() == nil
}

// free finds a port; tor cannot be given an open socket.
func free() (int, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return ln.Addr().(*net.TCPAddr).Port, ln.Close()
}
