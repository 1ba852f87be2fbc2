package main

import (
	"context"
	crand "crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/commucat/commucat/core/api"
	"github.com/commucat/commucat/core/pluginhost/sandbox"
	"github.com/commucat/commucat/plugins/storage/postgres/pgserver"
	"github.com/commucat/commucat/plugins/storage/redis/redisserver"
	"github.com/commucat/commucat/sdk/client"
	"github.com/commucat/commucat/sdk/link"
	"github.com/commucat/commucat/sdk/plugintest/chronicle"
)

// cluster is two relays, programs of their own, on one PostgreSQL and one Redis, whose
// plugins are the real binaries.
type cluster struct {
	pg *pgserver.Server
	// standby follows pg, and takes over when it is told to.
	standby *pgserver.Server
	redis   *redisserver.Server
	nodes   [2]*node
}

// node is one relay; it may be killed and started again in the same place.
type node struct {
	dir, address string
	*process
}

// clusterConfig is the configuration of a node; %s are the addresses of the servers.
const clusterConfig = wide + `
[storage]
backend = "postgres"
volatile = "redis"
address = ["%s", "%s"]
[plugin.redis]
address = ["%s"]
timeout = "1s"
[plugin.postgres]
`

// storagePlugins builds the two binaries and trusts them.
func storagePlugins(t *testing.T) {
	t.Helper()
	if k := sandbox.Probe(); !k.Complete() {
		t.Skipf("this kernel has no %s", k.Missing())
	}
	dir, err := os.MkdirTemp("", "cp-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	t.Setenv("COMMUCAT_PLUGINS", dir)
	for _, name := range []string{"commucat-storage-postgres", "commucat-storage-redis"} {
		b, err := os.ReadFile(buildPlugin(t, name))
		file := filepath.Join(dir, name)
		if err == nil {
			err = os.WriteFile(file, b, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
		if code, _, notes := commucat(t, "plugin", "add", file); code != exitOK {
			t.Fatalf("add: %d %s", code, notes)
		}
	}
}

// newCluster starts servers and relays. The second relay is set up as docs/cluster.md
// says: with the keys and the state file of the first.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	storagePlugins(t)
	c := &cluster{pg: pgserver.Start(t), redis: redisserver.Start(t)}
	c.standby = c.pg.Standby()
	at := func(s *pgserver.Server) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port)) }
	text := fmt.Sprintf(clusterConfig, at(c.pg), at(c.standby), c.redis.Address())
	text = strings.Replace(text, "[limits]\n", "[limits]\nnew_contacts = 1000000\n", 1) // everybody writes to everybody
	for i := range c.nodes {
		n := &node{dir: reachableFolder(t, text), address: "127.0.0.1:0"}
		if i > 0 {
			first := c.nodes[0].dir
			cmd := exec.Command("cp", "-a", filepath.Join(first, "keys"), filepath.Join(first, "relay.json"), n.dir)
			if b, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, b)
			}
		}
		c.nodes[i] = n
		n.start(t)
	}
	return c
}

// reachableFolder is a data folder that plugins of other users reach.
func reachableFolder(t *testing.T, config string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "node-")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "commucat.toml"), []byte(config), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// start runs the relay, where it ran before.
func (n *node) start(t *testing.T) {
	t.Helper()
	n.process = spawn(t, n.dir, "--listen", n.address)
	if err := n.ready(); err != nil {
		t.Fatal(err)
	}
	n.address = n.process.address()
}

// readiness is the status of /readyz.
func (n *node) readiness(t *testing.T) int {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", strings.TrimPrefix(n.Admin, "unix:"))
	}}}
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://localhost/readyz", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	return res.StatusCode
}

// degraded says whether the status names a part that does not work.
func (n *node) degraded(t *testing.T, part string) bool {
	t.Helper()
	raw, err := api.NewClient(strings.TrimPrefix(n.Admin, "unix:")).Status(t.Context())
	var status struct {
		Relay struct {
			Degraded map[string]string `json:"degraded"`
		} `json:"relay"`
	}
	if err == nil {
		err = json.Unmarshal(raw, &status)
	}
	if err != nil {
		t.Fatal(err)
	}
	_, is := status.Relay.Degraded[part]
	return is
}

// until repeats ok until it is true; nothing tells when that is.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// fleet are devices that write to each other, and what they saw.
type fleet struct {
	flow
	c       *cluster
	log     chronicle.Log
	members []*member
	pace    atomic.Pointer[pace] // while messages are timed
}

// member is one device. It connects to its home node, and to the other one where that
// does not answer.
type member struct {
	f      *fleet
	index  int
	home   atomic.Int32
	client *client.Client
	events chan client.Event
	next   map[int]uint64 // by recipient
	ended  chan error
}

// dial is the carrier of a member: the link names one node, the member takes its own.
func (m *member) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	home := int(m.home.Load())
	c, err := new(net.Dialer).DialContext(ctx, network, m.f.c.nodes[home].address)
	if err != nil {
		c, err = new(net.Dialer).DialContext(ctx, network, m.f.c.nodes[1-home].address)
	}
	return c, err
}

func newFleet(c *cluster) *fleet {
	return &fleet{flow: flow{changed: make(chan struct{}, 1), wrong: make(chan error, 1)}, c: c}
}

// join adds devices, in turn at each node, and waits until they are connected.
func (f *fleet) join(t *testing.T, ctx context.Context, devices int) {
	t.Helper()
	l, err := link.Parse(f.c.nodes[0].invitation(t, devices, time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for range devices {
		i := len(f.members)
		p, err := client.NewProfile(l, "device-"+strconv.Itoa(i), crand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		f.members = append(f.members, f.connect(t, i, i%2, p))
	}
	for _, m := range f.members {
		if _, err := m.client.Connected(ctx); err != nil {
			t.Fatalf("device %d: %v", m.index, err)
		}
	}
}

func (f *fleet) connect(t *testing.T, index, home int, p *client.Profile) *member {
	t.Helper()
	m := &member{f: f, index: index, next: map[int]uint64{}, events: make(chan client.Event, 64), ended: make(chan error, 1)}
	m.home.Store(int32(home))
	var log [8]byte
	if _, err := crand.Read(log[:]); err != nil {
		t.Fatal(err)
	}
	var err error
	m.client, err = client.New(client.Options{
		Profile: p, Store: client.NewMemoryStore(log), Dialers: dialers(), Transport: "websocket", Handle: m.handle, DialTCP: m.dial,
		OnEvent: func(e client.Event) {
			select {
			case m.events <- e:
			default:
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	run, stop := context.WithCancel(context.Background())
	go func() {
		err := m.client.Run(run)
		if err != nil {
			f.fail(fmt.Errorf("device %d: %w", index, err))
		}
		m.ended <- err
	}()
	t.Cleanup(func() {
		stop()
		<-m.ended
		if err := m.client.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// event waits for an event of the client.
func (m *member) event(ctx context.Context, is func(client.Event) bool) error {
	for {
		select {
		case e := <-m.events:
			if is(e) {
				return nil
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (m *member) handle(msg client.Message) error {
	var from int
	var n uint64
	if _, err := fmt.Sscanf(string(msg.Body), "%d %d", &from, &n); err != nil {
		return err
	}
	if p := m.f.pace.Load(); p != nil {
		p.shown(from, m.index, n)
	}
	m.f.log.Add(chronicle.Shown, from, m.index, n)
	m.f.shown.Add(1)
	m.f.poke()
	return nil
}

// send sends one message; the ticket must be given to acked.
func (m *member) send(to *member) (t *client.Ticket, n uint64, err error) {
	n = m.next[to.index]
	m.next[to.index]++
	m.f.log.Add(chronicle.Sent, m.index, to.index, n)
	t, err = m.client.Send(client.Draft{To: []string{to.client.Profile().DeviceID}, Body: fmt.Appendf(nil, "%d %d", m.index, n)})
	return t, n, err
}

// acked waits for the acknowledgement.
func (m *member) acked(ctx context.Context, to *member, t *client.Ticket, n uint64) error {
	res, err := t.Wait(ctx)
	if err == nil && len(res.Refused) > 0 {
		err = fmt.Errorf("refused: %v", res.Refused)
	}
	if err != nil {
		return fmt.Errorf("device %d to %d, message %d: %w", m.index, to.index, n, err)
	}
	m.f.log.Add(chronicle.Acked, m.index, to.index, n)
	m.f.flow.acked.Add(1)
	m.f.poke()
	return nil
}

// write sends n messages to recipients that random chooses.
func (m *member) write(ctx context.Context, random *rand.Rand, n int) error {
	type sent struct {
		to *member
		t  *client.Ticket
		n  uint64
	}
	ahead := make(chan sent, 32)
	failed := make(chan error, 1)
	go func() {
		var first error
		for s := range ahead {
			if err := m.acked(ctx, s.to, s.t, s.n); first == nil {
				first = err
			}
		}
		failed <- first
	}()
	var err error
	for range n {
		to := m.f.members[(m.index+1+random.IntN(len(m.f.members)-1))%len(m.f.members)]
		s := sent{to: to}
		if s.t, s.n, err = m.send(to); err != nil {
			break
		}
		ahead <- s
	}
	close(ahead)
	return errors.Join(err, <-failed)
}

// exchange lets every member write its share of n messages while faults happen, each at
// a number of acknowledged messages, and judges what all have seen.
func (f *fleet) exchange(t *testing.T, ctx context.Context, seed uint64, n int, faults map[int64]func()) {
	t.Helper()
	each := n / len(f.members)
	acked, shown := f.acked.Load(), f.shown.Load()
	var writing sync.WaitGroup
	for _, m := range f.members {
		writing.Go(func() {
			if err := m.write(ctx, rand.New(rand.NewPCG(seed, uint64(m.index))), each); err != nil {
				f.fail(err)
			}
		})
	}
	total := int64(each * len(f.members))
	for _, at := range sortedKeys(faults) {
		if err := f.reach(ctx, &f.acked, acked+min(at, total)); err != nil {
			t.Fatal(err)
		}
		faults[at]()
	}
	if err := f.reach(ctx, &f.acked, acked+total); err != nil {
		t.Fatal(err)
	}
	writing.Wait()
	if err := f.reach(ctx, &f.shown, shown+total); err != nil {
		t.Errorf("%v\n%s", err, chronicle.Check(f.log.Events()))
	}
}
