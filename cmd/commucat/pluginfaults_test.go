package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/commucat/commucat/core/api"
	"github.com/commucat/commucat/core/pluginhost"
	"github.com/commucat/commucat/core/pluginhost/sandbox"
	"github.com/commucat/commucat/sdk/client"
	"github.com/commucat/commucat/sdk/link"
	"github.com/commucat/commucat/sdk/transport"
)

// soakVariable, when set, gives the tests their full counts.
const soakVariable = "COMMUCAT_SOAK"

// doorDialer is a client's half of the example's TLS transport, in this process.
type doorDialer struct{ roots *x509.CertPool }

func (doorDialer) Name() string { return "door" }

func (d doorDialer) Dial(ctx context.Context, to transport.Endpoint, _ transport.Dial) (net.Conn, error) {
	t := tls.Dialer{Config: &tls.Config{RootCAs: d.roots, ServerName: "localhost"}}
	return t.DialContext(ctx, "tcp", net.JoinHostPort(to.Host, strconv.Itoa(int(to.Port))))
}

// talker is one device that sends numbered messages to its partner, one at a time.
type talker struct {
	crowd   *crowd
	over    string
	client  *client.Client
	partner *talker
	acked   atomic.Uint64
	shown   atomic.Uint64

	mu       sync.Mutex
	ups      int
	downs    int
	tries    int // that failed since the connection ended
	lastUp   time.Time
	lastDown time.Time
	took     float64 // milliseconds of the last dial and handshake
	resumed  bool
}

// handle is told each message once and in order.
func (k *talker) handle(m client.Message) error {
	if n := binary.BigEndian.Uint64(m.Body); n != k.shown.Load() {
		k.crowd.fail(fmt.Errorf("%s: message %d was shown, want %d", k.over, n, k.shown.Load()))
	}
	k.shown.Add(1)
	return nil
}

func (k *talker) event(e client.Event) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch e.Name {
	case "connected":
		k.ups, k.lastUp = k.ups+1, time.Now()
		k.took, k.resumed = e.Milliseconds, e.Resumed
	case "disconnected":
		k.downs, k.lastDown, k.tries = k.downs+1, time.Now(), -1 // the end itself is told as well
	case "waiting":
		k.tries++
	}
}

// talk sends until the context ends, and waits for each acknowledgement.
func (k *talker) talk(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	to := []string{k.partner.client.Profile().DeviceID}
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		t, err := k.client.Send(client.Draft{To: to, Body: binary.BigEndian.AppendUint64(nil, k.acked.Load())})
		if err == nil {
			var r client.Result
			// A message that was sent is waited for also when the talk is over.
			if r, err = t.Wait(context.WithoutCancel(ctx)); err == nil && len(r.Refused) > 0 {
				err = fmt.Errorf("refused: %v", r.Refused)
			}
		}
		if err != nil {
			k.crowd.fail(fmt.Errorf("%s: %w", k.over, err))
			return
		}
		k.acked.Add(1)
	}
}

// crowd is devices that talk in pairs, half of them through the plugin.
type crowd struct {
	all   []*talker
	wrong chan error // one slot
}

func (c *crowd) fail(err error) {
	select {
	case c.wrong <- err:
	default:
	}
}

// gather registers n devices; every second one comes by the plugin.
func gather(t *testing.T, n int, invite string, door doorDialer) *crowd {
	t.Helper()
	l, err := link.Parse(invite)
	if err != nil {
		t.Fatal(err)
	}
	c := &crowd{all: make([]*talker, n), wrong: make(chan error, 1)}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	all := append(dialers(), door)
	var group sync.WaitGroup
	slots := make(chan struct{}, 8)
	for i := range c.all {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			k := &talker{crowd: c, over: "door"}
			if i%2 == 1 {
				k.over = all[i/2%4].Name()
			}
			c.all[i] = k
			profile, err := client.NewProfile(l, "device-"+strconv.Itoa(i), crand.Reader)
			if err != nil {
				c.fail(err)
				return
			}
			k.client, err = client.New(client.Options{
				Profile: profile, Store: client.NewMemoryStore([8]byte{byte(i), byte(i >> 8), 1}), Dialers: all,
				Transport: k.over, Handle: k.handle, OnEvent: k.event, AnswerTimeout: time.Minute,
			})
			if err != nil {
				c.fail(err)
				return
			}
			run, stop := context.WithCancel(context.Background())
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				if err := k.client.Run(run); err != nil {
					c.fail(fmt.Errorf("device %d: %w", i, err))
				}
			}()
			t.Cleanup(func() {
				stop()
				<-ended
				_ = k.client.Close()
			})
			if _, err := k.client.Connected(ctx); err != nil {
				c.fail(err)
			}
		})
	}
	group.Wait()
	c.check(t)
	for i, k := range c.all {
		k.partner = c.all[i^1]
	}
	return c
}

// check fails the test if anything has gone wrong.
func (c *crowd) check(t *testing.T) {
	t.Helper()
	select {
	case err := <-c.wrong:
		t.Fatal(err)
	default:
	}
}

// talking lets everybody talk while f runs, and then looks for what was acknowledged.
func (c *crowd) talking(t *testing.T, every time.Duration, f func()) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for _, k := range c.all {
		group.Go(func() { k.talk(ctx, every) })
	}
	f()
	stop()
	group.Wait()
	c.check(t)
	total := uint64(0)
	for i, k := range c.all {
		soon(t, fmt.Sprintf("messages of device %d", i), func() bool { return k.partner.shown.Load() == k.acked.Load() })
		total += k.acked.Load()
	}
	c.check(t)
	t.Logf("%d messages acknowledged so far, each shown once and in order", total)
}

// downs is how many connections ended at devices of the plugin and at the others.
func (c *crowd) downs() (door, others int) {
	for _, k := range c.all {
		k.mu.Lock()
		if k.over == "door" {
			door += k.downs
		} else {
			others += k.downs
		}
		k.mu.Unlock()
	}
	return door, others
}

// moving waits until more messages have been acknowledged in all.
func (c *crowd) moving(t *testing.T, more int) {
	t.Helper()
	sum := func() (n int) {
		for _, k := range c.all {
			n += int(k.acked.Load())
		}
		return n
	}
	target := sum() + more
	soon(t, "messages go on", func() bool { return sum() >= target || len(c.wrong) > 0 })
	c.check(t)
}

// soon looks until ok says so.
func soon(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// freePort is one that nothing listens on now.
func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// faultRelay is the data folder of a relay with two transports of the example's plugin,
// "door" and "side", and what clients of "door" trust.
func faultRelay(t *testing.T) (dir, config string, door doorDialer) {
	t.Helper()
	if k := sandbox.Probe(); !k.Complete() {
		t.Skipf("this kernel has no %s", k.Missing())
	}
	folder, err := os.MkdirTemp("", "cf-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(folder, "commucat-transport-tls")
	build := exec.Command("go", "build", "-o", file, "github.com/commucat/commucat/examples/transport-tls")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	t.Setenv("COMMUCAT_PLUGINS", folder)
	if code, _, notes := commucat(t, "plugin", "add", file); code != exitOK {
		t.Fatalf("add: %d %s", code, notes)
	}
	cert, key := serverPair(t)
	door.roots = x509.NewCertPool()
	door.roots.AppendCertsFromPEM(cert)
	config = strings.Replace(wide, `level = "warn"`, `level = "info"`, 1)
	config = strings.Replace(config, "[limits]\n", "[limits]\nsessions = 5000\nnew_contacts = 1000000\npending = 20000\nhttp_rate = 1000000\n", 1)
	for _, name := range []string{"door", "side"} {
		config += fmt.Sprintf("[transport.%s]\nplugin = \"tls\"\nlisten = %q\ncert = \"plugin.pem\"\nkey = \"file:plugin.key\"\n", name, freePort(t))
	}
	dir = dataFolder(t, config)
	for name, b := range map[string][]byte{"plugin.pem": cert, "plugin.key": key} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir, config, door
}

// plugins are the running plugin processes by configured name.
func (p *process) plugins(t *testing.T) map[string]pluginhost.State {
	t.Helper()
	list, err := pluginStates(t.Context(), api.NewClient(strings.TrimPrefix(p.Admin, "unix:")))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]pluginhost.State{}
	for _, s := range list {
		out[s.Name] = s
	}
	return out
}

// gauge reads one of the relay's metrics.
func (p *process) gauge(t *testing.T, name string) int {
	t.Helper()
	cl := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", strings.TrimPrefix(p.Admin, "unix:"))
	}}}
	res, err := cl.Get("http://localhost/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	m := regexp.MustCompile(`(?m)^` + name + ` (\d+)$`).FindSubmatch(b)
	if err != nil || m == nil {
		t.Fatalf("no %s: %v", name, err)
	}
	n, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestLoadPluginFaults lets devices talk through a plugin and through the built-in
// transports while the plugin is killed, the configuration reloaded, and the relay
// killed.
func TestLoadPluginFaults(t *testing.T) {
	if raceDetector {
		t.Skip("a plugin under the race detector needs more memory than it is allowed")
	}
	devices, kills, reloads, every := 48, 1, 30, 100*time.Millisecond
	if os.Getenv(soakVariable) != "" {
		devices, kills, reloads, every = 1000, 3, 1000, time.Second
	}
	dir, config, door := faultRelay(t)
	srv := relay(t, dir)
	for _, name := range []string{"door", "side"} {
		soon(t, name+" runs", func() bool { return srv.plugins(t)[name].State == pluginhost.Running })
	}
	c := gather(t, devices, srv.invitation(t, devices, time.Hour), door)

	t.Run("plugin killed", func(t *testing.T) {
		c.talking(t, every, func() {
			for range kills {
				c.moving(t, devices)
				c.killPlugin(t, srv)
			}
			c.moving(t, devices)
		})
		if downs, others := c.downs(); others != 0 || downs != kills*devices/2 {
			t.Errorf("%d connections of the plugin ended, and %d others", downs, others)
		}
	})
	t.Run("reloads", func(t *testing.T) {
		doorDowns, _ := c.downs()
		pid := srv.plugins(t)["door"].PID
		c.talking(t, every, func() {
			c.moving(t, devices)
			reload(t, srv, dir, config, reloads)
		})
		if downs, others := c.downs(); downs != doorDowns || others != 0 {
			t.Errorf("%d connections of the plugin ended, and %d others", downs-doorDowns, others)
		}
		if now := srv.plugins(t)["door"].PID; now != pid {
			t.Errorf("the unchanged transport's process was %d, is %d", pid, now)
		}
	})
	t.Run("relay killed", func(t *testing.T) {
		pids := map[string]int{}
		for name, s := range srv.plugins(t) {
			pids[name] = s.PID
		}
		c.talking(t, every, func() {
			c.moving(t, devices)
			srv.kill()
			began := time.Now()
			for name, pid := range pids {
				soon(t, "the end of "+name, func() bool { return processOver(pid) })
			}
			t.Logf("%d plugin processes ended within %v", len(pids), time.Since(began).Round(time.Millisecond))
			srv = spawn(t, dir, "--listen", srv.address())
			if err := srv.ready(); err != nil {
				t.Fatal(err)
			}
			c.moving(t, devices)
		})
		if code := srv.terminate(t); code != exitOK {
			t.Errorf("ended with %d: %s", code, srv.said())
		}
	})
}

// processOver says that a process has ended, whether its new parent has taken note or not.
func processOver(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, after, _ := strings.Cut(string(b), ") ")
	return err != nil || strings.HasPrefix(after, "Z")
}

// killPlugin kills the process of "door" and waits for its devices.
func (c *crowd) killPlugin(t *testing.T, srv *process) {
	t.Helper()
	ups := map[*talker]int{}
	for _, k := range c.all {
		k.mu.Lock()
		ups[k] = k.ups
		k.mu.Unlock()
	}
	old := srv.plugins(t)["door"].PID
	began := time.Now()
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	soon(t, "the next process runs", func() bool {
		s := srv.plugins(t)["door"]
		return s.State == pluginhost.Running && s.PID != old
	})
	again := time.Since(began)
	var ended, back []time.Duration
	var took []float64
	var tries, resumed, most int
	for _, k := range c.all {
		if k.over != "door" {
			continue
		}
		soon(t, "a device resumes", func() bool {
			k.mu.Lock()
			defer k.mu.Unlock()
			return k.ups > ups[k]
		})
		k.mu.Lock()
		ended, back, took = append(ended, k.lastDown.Sub(began)), append(back, k.lastUp.Sub(began)), append(took, k.took)
		tries, most = tries+k.tries, max(most, k.tries)
		if k.resumed {
			resumed++
		}
		k.mu.Unlock()
	}
	slices.Sort(ended)
	slices.Sort(back)
	slices.Sort(took)
	n := len(back)
	ms := func(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
	t.Logf("the plugin ran again within %v, its %d devices were back within %v, half of them within %v; their connections had ended within %v; %d resumed; "+
		"dial and handshake took %.0f ms, at most %.0f; %d tries failed, at most %d of one device",
		ms(again), n, ms(back[n-1]), ms(back[n/2]), ms(ended[n-1]), resumed, took[n/2], took[n-1], tries, most)
}

// reload changes the file and has it read n times. Every tenth file is broken, every
// fifth changes the transport "side".
func reload(t *testing.T, srv *process, dir, config string, n int) {
	t.Helper()
	path := filepath.Join(dir, "commucat.toml")
	hup := func(i int, text, answer string) {
		t.Helper()
		seen := strings.Count(srv.said(), answer)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := srv.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		for end := time.After(time.Minute); strings.Count(srv.said(), answer) == seen; {
			select {
			case <-srv.more:
			case <-end:
				t.Fatalf("reload %d: no %q: %s", i, answer, srv.said())
			}
		}
	}
	ports := []string{freePort(t), freePort(t)}
	side := regexp.MustCompile(`(\[transport\.side\]\nplugin = "tls"\nlisten = )"[^"]*"`)
	once := func(i int) {
		t.Helper()
		text := config
		if i%2 == 1 {
			text = strings.Replace(text, "[limits]\n", "[relay]\nregistration = \"closed\"\n[limits]\n", 1)
		}
		text = side.ReplaceAllString(text, `${1}"`+ports[i/5%2]+`"`)
		if i%10 == 9 {
			broken := strings.Replace(text, "cert = \"plugin.pem\"", "certt = \"plugin.pem\"", 1)
			line := 1 + strings.Count(broken[:strings.Index(broken, "certt")], "\n")
			hup(i, broken, fmt.Sprintf("commucat.toml:%d:1: ", line))
			return
		}
		hup(i, text, "configuration reloaded")
	}
	for i := range 10 { // so that every path has been gone once
		once(i)
	}
	settled := func() (files, goroutines int) {
		return srv.gauge(t, "process_open_fds"), srv.gauge(t, "go_goroutines")
	}
	files, goroutines := settled()
	began := time.Now()
	for i := range n {
		once(i)
	}
	took := time.Since(began)
	hup(n, config, "configuration reloaded")
	var nowFiles, nowGoroutines int
	soon(t, "descriptors and goroutines return", func() bool {
		nowFiles, nowGoroutines = settled()
		return nowFiles <= files && nowGoroutines <= goroutines
	})
	t.Logf("%d reloads in %v, %d of them broken; descriptors %d, then %d; goroutines %d, then %d",
		n, took.Round(time.Millisecond), n/10, files, nowFiles, goroutines, nowGoroutines)
}

// serverPair is a certificate for localhost that is its own root, and its key.
func serverPair(t *testing.T) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	crt, err := x509.CreateCertificate(crand.Reader, &c, &c, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: crt}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}
