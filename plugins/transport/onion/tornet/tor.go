package tornet

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/commucat/commucat/plugins/transport/internal/agent"
)

// Tor is another tor of the network, beside its relays.
type Tor struct {
	n      *Network
	node   *node
	folder string
	log    string
}

// Run starts a tor with these lines of configuration, until the network is closed.
func (n *Network) Run(name string, lines ...string) (*Tor, error) {
	one := &node{name: name, folder: filepath.Join(n.dir, name)}
	if err := os.MkdirAll(one.folder, 0o700); err != nil {
		return nil, err
	}
	t := &Tor{n: n, node: one, folder: one.folder, log: one.log()}
	all := append(n.Torrc(), `DataDirectory "`+one.folder+`"`, "Log notice file "+t.log)
	if err := n.start(one, append(all, lines...)); err != nil {
		return nil, err
	}
	n.others = append(n.others, one)
	return t, nil
}

// Folder is its data folder.
func (t *Tor) Folder() string { return t.folder }

// Wait waits until its log holds text; ctx bounds it.
func (t *Tor) Wait(ctx context.Context, text string) error {
	err := wait(ctx, func() bool { return bytes.Contains(t.said(), []byte(text)) })
	if err != nil {
		return fmt.Errorf("%s did not say %q: %w", t.node.name, text, err)
	}
	return nil
}

// said is the log.
func (t *Tor) said() []byte {
	b, err := os.ReadFile(t.log)
	if err != nil {
		return nil
	}
	return b
}

// Log is what it has said, for explaining a failure.
func (t *Tor) Log() string { return string(t.said()) }

// Bootstrap waits until it has built a circuit. One that says nothing for a while is
// started again, since tor waits long before it repeats what failed; each time it may be
// silent for longer, as on a slow machine.
func (t *Tor) Bootstrap(ctx context.Context) error {
	const done = "Bootstrapped 100%"
	silence, size, since := 10*time.Second, 0, time.Now()
	for {
		stalled := false
		err := wait(ctx, func() bool {
			said := t.said()
			if len(said) != size {
				size, since = len(said), time.Now()
			}
			stalled = time.Since(since) > silence
			return stalled || bytes.Contains(said, []byte(done))
		})
		if err != nil {
			return fmt.Errorf("%s did not say %q: %w", t.node.name, done, err)
		}
		if !stalled {
			return nil
		}
		silence *= 2
		t.node.stop()
		if err := os.Rename(t.log, t.log+".before"); err != nil {
			return err
		}
		if err := t.n.again(t.node); err != nil {
			return err
		}
		size, since = 0, time.Now()
	}
}

// Stop ends it.
func (t *Tor) Stop() { t.node.stop() }

// Free finds a port of the loopback interface.
func Free() (int, error) { return free() }

// start writes a configuration and starts a tor with it.
func (n *Network) start(one *node, lines []string) error {
	lines = append(lines, fmt.Sprintf("__OwningControllerProcess %d", os.Getpid()))
	if err := os.WriteFile(filepath.Join(one.folder, "torrc"), []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return err
	}
	return n.again(one)
}

// again starts a tor with the configuration that it has.
func (n *Network) again(one *node) error {
	one.cmd = exec.Command(n.tor, "-f", filepath.Join(one.folder, "torrc"), "--defaults-torrc", n.empty(), "--quiet")
	one.cmd.Env = []string{"HOME=" + one.folder, "PATH=" + os.Getenv("PATH")}
	cmd, done := one.cmd, make(chan struct{})
	err := agent.Start(cmd, func() {
		_ = cmd.Wait() // how it ended stands in its log
		close(done)
	})
	if err == nil {
		one.done = done
	}
	return err
}
