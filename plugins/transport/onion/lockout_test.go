package onion

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/commucat/commucat/plugins/transport/internal/agent"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/plugintest"
	"github.com/commucat/commucat/sdk/transport"
)

// TestMain makes this program a tor where it is started as one.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "--version":
			fmt.Println("Tor version 0.4.8.1.")
			os.Exit(0)
		case "--list-modules":
			os.Exit(0)
		case "-f":
			os.Exit(strictTor(os.Args[2]))
		}
	}
	os.Exit(m.Run())
}

// Directories that strictTor asks, each once until it is told to forget that.
const strictDirectories = 6

// strict is a tor that has a network of its own in its head: a service that is published
// only after its directories have been asked in vain, and directories that are asked
// once, as in the real network for a quarter of an hour.
type strict struct {
	mu     sync.Mutex
	events net.Conn
	left   int
	forgot int
	key    bool // the guest's, since it forgot
}

// strictTor runs one with a configuration, until its control connection ends.
func strictTor(torrc string) int {
	b, err := os.ReadFile(torrc)
	if err != nil {
		return 1
	}
	at := func(option string) string {
		for line := range strings.Lines(string(b)) {
			if rest, ok := strings.CutPrefix(line, option+" "); ok {
				rest = strings.TrimPrefix(rest, "unix:")
				return strings.SplitN(rest, `"`, 3)[1]
			}
		}
		return ""
	}
	tor := &strict{left: strictDirectories}
	socks, err := net.Listen("unix", at("SocksPort"))
	if err != nil {
		return 1
	}
	go func() {
		for {
			c, err := socks.Accept()
			if err != nil {
				return
			}
			go tor.stream(c)
		}
	}()
	control, err := net.Listen("unix", at("ControlSocket"))
	if err != nil {
		return 1
	}
	ended := make(chan struct{}, 2)
	for range 2 {
		c, err := control.Accept()
		if err != nil {
			return 1
		}
		go func() {
			tor.control(c)
			ended <- struct{}{}
		}()
	}
	<-ended
	return 0
}

// control answers requests.
func (s *strict) control(c net.Conn) {
	for lines := bufio.NewScanner(c); lines.Scan(); {
		answer := "250 OK\r\n"
		word, rest, _ := strings.Cut(lines.Text(), " ")
		s.mu.Lock()
		switch word {
		case "PROTOCOLINFO":
			answer = "250-PROTOCOLINFO 1\r\n250-AUTH METHODS=NULL\r\n250-VERSION Tor=\"0.4.8.1\"\r\n" + answer
		case "GETINFO":
			answer = "250-" + rest + "=NOTICE BOOTSTRAP PROGRESS=100 TAG=done SUMMARY=\"Done\"\r\n" + answer
		case "SETEVENTS":
			s.events = c
		case "ONION_CLIENT_AUTH_ADD":
			s.key = true
		case "SIGNAL":
			s.left, s.key = strictDirectories, false
			s.forgot++
		}
		_, err := io.WriteString(c, answer)
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// stream answers one request by SOCKS; what comes over a stream goes back.
func (s *strict) stream(c net.Conn) {
	defer c.Close()
	login := make([]byte, 3+2+32+2) // with a user name of 32 characters
	if _, err := io.ReadFull(c, login[:3]); err != nil {
		return
	}
	_, _ = c.Write([]byte{5, 2})
	if _, err := io.ReadFull(c, login[3:]); err != nil {
		return
	}
	_, _ = c.Write([]byte{1, 0})
	request := make([]byte, 5+56+len(".onion")+2)
	if _, err := io.ReadFull(c, request); err != nil {
		return
	}
	s.mu.Lock()
	granted := s.forgot > 0 && s.left > 0 && s.key
	if s.left > 0 {
		s.left--
		fmt.Fprintf(s.events, "650 HS_DESC REQUESTED %s NO_AUTH $%040d descriptor\r\n", request[5:5+56], s.left)
	}
	s.mu.Unlock()
	if !granted {
		_, _ = c.Write([]byte{5, 0xf0, 0, 1, 0, 0, 0, 0, 0, 0})
		return
	}
	_, _ = c.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
	_, _ = io.CopyN(io.Discard, c, tokenSize)
	_, _ = io.Copy(c, c)
}

// overStandIn opens the transport with this program as its tor.
func overStandIn(t *testing.T) transport.Opened {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	o, err := transport.Open(t.Context(), Plugin(), plugintest.NewLender(t), map[string]any{"program": self})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.Close() })
	return o
}

// A guest who dials before the service is published asks all directories in vain, and is
// locked out. Its tor is made to forget them, once, and the dial comes through.
func TestLockedOutComesIn(t *testing.T) {
	o := overStandIn(t)
	c := o.(*agent.Opened).Client.(*client)
	c.dir.again = agent.Pauses{Least: 5 * time.Millisecond, Most: 5 * time.Millisecond, Well: time.Hour}
	to := transport.Endpoint{Host: strings.Repeat("a", 54) + "ad.onion", Params: map[string]string{
		paramToken: strings.Repeat("A", 43), paramSecret: strings.Repeat("A", 43),
	}}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stream, err := o.Dial(ctx, to, transport.Dial{})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if err := talk(stream, "in at last"); err != nil {
		t.Error(err)
	}
	c.dir.mu.Lock()
	defer c.dir.mu.Unlock()
	if c.dir.purged.last.IsZero() || c.dir.purged.pause != c.dir.purge.Least {
		t.Errorf("tor was made to forget %+v", c.dir.purged)
	}
	if _, err := os.Stat(filepath.Join(c.folder, controlSocket)); err != nil {
		t.Error(err)
	}
}

// What a dial is told that gives up while tor starts.
func TestStillStarting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(sdk.NewEnv(sdk.EnvOptions{}), Config{Limit: time.Hour}).(*client)
		phase := "45 %, Asking for relay descriptors"
		c.starting = &launch{done: make(chan struct{})}
		c.starting.phase.Store(&phase)
		ctx, giveUp := context.WithCancel(t.Context())
		end := make(chan error)
		go func() {
			_, err := c.Dial(ctx, transport.Endpoint{Host: strings.Repeat("a", 54) + "ad.onion"}, transport.Dial{})
			end <- err
		}()
		synctest.Wait() // until it waits for tor
		giveUp()
		if err := <-end; err == nil || !strings.Contains(err.Error(), "still starting: 45 %") {
			t.Error(err)
		}
	})
}

// A start goes on when the dial that began it has given up.
func TestStartGoesOnWithoutTheDial(t *testing.T) {
	o := overStandIn(t)
	to := transport.Endpoint{Host: strings.Repeat("a", 54) + "ad.onion"}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c := o.(*agent.Opened).Client.(*client)
	c.turn <- struct{}{}
	l := &launch{done: make(chan struct{})}
	c.starting = l
	c.release()
	if _, err := o.Dial(ctx, to, transport.Dial{}); err == nil {
		t.Error("dialled with a context that has ended")
	}
	go c.launch(l)
	select {
	case <-l.done:
	case <-time.After(patience):
		t.Fatal("tor did not start")
	}
	if d, err := c.tor(t.Context()); err != nil || d != l.daemon {
		t.Error(d, err)
	}
}

// Who got stuck several times in a row is kept apart from the circuits of before, and
// nobody else is.
func TestStuck(t *testing.T) {
	const slow, reached = stuckTime, true
	type attempt struct {
		after, took time.Duration // it began so long after the one before ended
		reached     bool
	}
	for name, c := range map[string]struct {
		attempts []attempt
		want     string
	}{
		"none":              {nil, "a"},
		"one":               {[]attempt{{0, slow, false}}, "a"},
		"two in a row":      {[]attempt{{0, slow, false}, {0, slow, false}}, "a-1"},
		"three":             {[]attempt{{0, slow, false}, {0, slow, false}, {0, slow, false}}, "a-1"},
		"two and two":       {[]attempt{{0, slow, false}, {0, slow, false}, {0, slow, false}, {0, slow, false}}, "a-2"},
		"at the same time":  {[]attempt{{0, slow, false}, {-time.Second, slow, false}, {-slow, slow, false}}, "a"},
		"one came through":  {[]attempt{{0, slow, false}, {0, slow, reached}, {0, slow, false}}, "a"},
		"one was refused":   {[]attempt{{0, slow, false}, {0, time.Second, false}, {0, slow, false}}, "a"},
		"refused in a row":  {[]attempt{{0, time.Second, false}, {0, time.Second, false}}, "a"},
		"reached afterward": {[]attempt{{0, slow, false}, {0, slow, false}, {0, slow, reached}}, "a-1"},
	} {
		t.Run(name, func(t *testing.T) {
			client, now := newClient(nil, Config{}).(*client), time.Unix(1000, 0)
			for _, a := range c.attempts {
				began := now.Add(a.after)
				now = began.Add(a.took)
				client.attempted("a", began, now, a.reached)
			}
			if got := client.user("a"); got != c.want || client.user("b") != "b" {
				t.Errorf("%s and %s, want %s and b", got, client.user("b"), c.want)
			}
		})
	}
	client, now := newClient(nil, Config{}).(*client), time.Unix(1000, 0)
	for i := range 2 * maxStuck {
		client.attempted(fmt.Sprint(i), now, now.Add(slow), false)
	}
	if len(client.stuck) > maxStuck {
		t.Error(len(client.stuck))
	}
}
