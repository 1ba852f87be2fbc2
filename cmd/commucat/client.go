package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/commucat/commucat/sdk/client"
	"github.com/commucat/commucat/sdk/link"
)

func (a *app) clientCommand() *cobra.Command {
	c := group("client", "Register a device, send and receive messages",
		a.registerCommand(), a.pairCommand(), a.sendCommand(), a.listenCommand(), a.chatCommand(), a.devicesCommand(), a.clientLinkCommand())
	c.Long = c.Short + ".\n\n" +
		"What a transport of this program should do otherwise than by default stands in the file " + settingsFile + "\n" +
		"in the profile's folder, which may be there before the device is, or in the one that --config names:\n\n" +
		"  [transport.masque]\n  mode = \"udp\"\n\n" +
		"'commucat plugin describe FILE' shows the keys of a plugin; those of its client half say so. With\n" +
		"enabled = false a transport is not used, and plugin = \"…\" gives a plugin another name, the relay's."
	return c
}

// profileFlags are shared by the client's commands.
type profileFlags struct {
	dir, transport, config string
	timeout                time.Duration
}

func (f *profileFlags) add(c *cobra.Command, timeout time.Duration) {
	f.addDevice(c)
	c.Flags().DurationVar(&f.timeout, "timeout", timeout, "give up after this time (0: never)")
}

// addDevice are the flags of a command that runs until it is ended.
func (f *profileFlags) addDevice(c *cobra.Command) {
	c.Flags().StringVar(&f.dir, "profile", "", "folder of the device's profile")
	c.Flags().StringVar(&f.transport, "transport", "", "use this transport alone (default: choose)")
	c.Flags().StringVar(&f.config, "config", "", "settings of the client's transports (default: "+settingsFile+" in the profile's folder, if it is there)")
}

func (f *profileFlags) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if f.timeout <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, f.timeout)
}

// device is an open profile with its client.
type device struct {
	*client.Client
	store *client.FileStore
	ended chan error
	stop  context.CancelFunc
	line  *line
}

// line follows a device's connection.
type line struct {
	mu   sync.Mutex
	once bool  // it has been connected
	last error // why the newest connection ended or the newest try failed
	ways []way // of the newest try, in the order in which they were begun
}

// way is one transport that was tried.
type way struct {
	transport string
	began     time.Time
	err       error // how it ended; nil: it has not
}

func (l *line) note(e client.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch e.Name {
	case "connected":
		l.once, l.last, l.ways = true, nil, nil
	case "waiting":
		l.last = whyEnded(e)
	case "trying":
		if i := l.find(e.Transport); i >= 0 && l.ways[i].err != nil {
			l.ways = slices.Delete(l.ways, i, i+1) // the next round
		} else if i >= 0 {
			return // the same transport at another port
		}
		l.ways = append(l.ways, way{e.Transport, time.Now(), nil})
	case "failed":
		if i := l.find(e.Transport); i >= 0 {
			l.ways[i].err = e.Err
		}
	}
}

func (l *line) find(transport string) int {
	return slices.IndexFunc(l.ways, func(w way) bool { return w.transport == transport })
}

// whyEnded is why there is no connection: what happened, and by which transport.
func whyEnded(e client.Event) error {
	if e.Transport == "" || e.Err == nil {
		return e.Err
	}
	return fmt.Errorf("%s: %w", e.Transport, e.Err)
}

func (l *line) been() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.once
}

// why says in one line of each way that was tried how it ended, or else why the
// connection did.
func (l *line) why(now time.Time) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []string
	for _, w := range l.ways {
		if w.err != nil {
			all = append(all, oneLine(w.err))
		} else {
			all = append(all, fmt.Sprintf("%s: no answer for %v", w.transport, now.Sub(w.began).Round(100*time.Millisecond)))
		}
	}
	if len(all) == 0 {
		return oneLine(l.last)
	}
	return strings.Join(all, "; ")
}

// oneLine shows an error; of several that were joined, those that say something new.
func oneLine(err error) string {
	if err == nil {
		return ""
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) > 1 {
		lines[1] = fmt.Sprintf("and %d other ways failed", len(lines)-1)
		lines = lines[:2]
	}
	return strings.Join(lines, "; ")
}

// timeout is what ran out of time; the program ends with 4.
type timeout struct{ text string }

func (e timeout) Error() string        { return e.text }
func (e timeout) Is(target error) bool { return target == context.DeadlineExceeded }

// unreached says that there was no connection, and why not.
func (d *device) unreached() error {
	text := "no connection to " + d.Profile().Relay.Domain
	if why := d.line.why(time.Now()); why != "" {
		text += ": " + why
	} else {
		text += " in time"
	}
	return timeout{text}
}

// open loads the profile and makes its client, not yet connected.
func (a *app) open(f profileFlags, opt client.Options) (*device, error) {
	if f.dir == "" {
		return nil, usageError{errors.New("which device? Name its folder with --profile")}
	}
	p, err := client.LoadProfile(f.dir)
	if err != nil {
		return nil, err
	}
	return a.openProfile(p, f, opt)
}

func (a *app) openProfile(p *client.Profile, f profileFlags, opt client.Options) (*device, error) {
	ds, err := f.dialers(p)
	if err != nil {
		return nil, err
	}
	p, store, err := client.OpenProfile(p.Dir())
	if err != nil {
		return nil, err
	}
	l, told := new(line), opt.OnEvent
	opt.OnEvent = func(e client.Event) {
		l.note(e)
		if told != nil {
			told(e)
		}
	}
	opt.Profile, opt.Store, opt.Dialers, opt.Log = p, store, ds, a.log()
	c, err := client.New(opt)
	if err != nil {
		store.Close()
		return nil, err
	}
	return &device{Client: c, store: store, line: l}, nil
}

// connect runs the client in the background and waits until it is connected, or
// refused.
func (d *device) connect(ctx context.Context) (transport string, err error) {
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	d.stop, d.ended = stop, make(chan error, 1)
	go func() { d.ended <- d.Run(run) }()
	wait, cancel := context.WithCancel(ctx)
	defer cancel()
	type outcome struct {
		name string
		err  error
	}
	connected := make(chan outcome, 1)
	go func() {
		name, err := d.Connected(wait)
		connected <- outcome{name, err}
	}()
	select {
	case o := <-connected:
		if errors.Is(o.err, context.DeadlineExceeded) {
			o.err = d.unreached()
		}
		return o.name, o.err
	case err := <-d.ended:
		d.ended <- err
		if err == nil {
			err = context.Cause(ctx)
		}
		return "", err
	}
}

// close acknowledges what was shown, disconnects and closes the store.
func (d *device) close() error {
	if d.stop != nil {
		d.stop()
		<-d.ended //nolint:errcheck // why it ended was told before
	}
	return errors.Join(d.Client.Close(), d.store.Close())
}

func (a *app) registerCommand() *cobra.Command {
	var (
		f            profileFlags
		server       string
		handle, name string
		display      string
		insecure     bool
	)
	c := &cobra.Command{
		Use:   "register --server LINK --handle NAME --profile DIR",
		Short: "Make a device and its account from an invitation link",
		Long: "Make a device with keys of its own, and its account, from an invitation link.\n\n" +
			"The keys are made here and never leave the profile's folder. A link in the arguments shows in\n" +
			"the list of processes: where others use this machine, --server - reads it. A bare URL instead of a link\n" +
			"works only where the relay allows it; the relay's keys are then trusted on first use.",
		Args: exactly(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			switch {
			case server == "":
				return usageError{errors.New("which relay? Give its link or URL with --server")}
			case f.dir == "":
				return usageError{errors.New("where shall the device be kept? Name a folder with --profile")}
			case handle == "":
				return usageError{errors.New("choose a name for the account with --handle")}
			}
			server, err := a.linkText(server)
			if err != nil {
				return err
			}
			ctx, cancel := f.bound(c.Context())
			defer cancel()
			l, compat, err := a.relayLink(ctx, server, insecure)
			if err != nil {
				return err
			}
			if l.Kind == link.Pairing {
				return usageError{errors.New("this is a pairing link: use 'commucat client pair claim'")}
			}
			p, err := client.NewProfile(l, handle, rand.Reader)
			if err != nil {
				return usageError{err}
			}
			p.DisplayName, p.Name = display, name
			if err := p.Check(); err != nil {
				return usageError{err}
			}
			p.Relay.Compat, p.Relay.Insecure = compat, insecure
			return a.join(ctx, p, f)
		},
	}
	f.add(c, 30*time.Second)
	c.Flags().StringVar(&server, "server", "", "invitation link (commucat://… or https://…/#…), - for one on standard input, or URL of the relay")
	c.Flags().StringVar(&handle, "handle", "", "name of the new account")
	c.Flags().StringVar(&display, "display-name", "", "name that others see")
	c.Flags().StringVar(&name, "name", "", "what this device is called in the account's list")
	c.Flags().BoolVar(&insecure, "insecure", false, "with a URL: do not verify the relay's TLS certificate")
	return c
}

// maxLinkLine bounds what is read of standard input, in bytes; no link is longer.
const maxLinkLine = 16 << 10

// linkText is the argument, or the first line of standard input for "-".
func (a *app) linkText(arg string) (string, error) {
	if arg != "-" {
		return arg, nil
	}
	line, err := bufio.NewReader(io.LimitReader(a.in, maxLinkLine)).ReadString('\n')
	if line = strings.TrimSpace(line); line != "" {
		return line, nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = errors.New("no link came on standard input")
	}
	return "", usageError{err}
}

// relayLink reads a link, or asks the relay at a bare URL about itself.
func (a *app) relayLink(ctx context.Context, server string, insecure bool) (link.Link, bool, error) {
	l, err := link.Parse(server)
	if err == nil {
		if l.Expired(time.Now()) {
			return l, false, &client.Error{Kind: client.Refused, Code: "invite_invalid", Text: "this link has expired; ask for a new one"}
		}
		return l, false, nil
	}
	if !isBareURL(server) {
		return l, false, usageError{fmt.Errorf("--server: %w", err)}
	}
	l, err = a.discover(ctx, server, insecure)
	if err != nil {
		return l, false, err
	}
	a.say("The keys of %s are trusted on first use: nothing proves that this is the relay you mean.", l.Domain)
	return l, true, nil
}

// join saves a fresh profile, makes its first session, and takes the folder away
// again when that fails: unless the relay was asked and its answer is missing. Then
// it may have the account, to which these are the only keys.
func (a *app) join(ctx context.Context, p *client.Profile, f profileFlags) error {
	if _, err := os.Stat(filepath.Join(f.dir, "profile.json")); err == nil {
		return usageError{fmt.Errorf("%s already holds a device; choose another folder", f.dir)}
	}
	_, statErr := os.Stat(f.dir)
	fresh := errors.Is(statErr, os.ErrNotExist)
	if err := p.Save(f.dir); err != nil {
		return err
	}
	began := time.Now()
	var asked atomic.Bool
	d, err := a.openProfile(p, f, client.Options{OnEvent: func(e client.Event) {
		if e.Name == "confirming" {
			asked.Store(true)
		}
	}})
	var by string
	if err == nil {
		if by, err = d.connect(ctx); err == nil {
			p = d.Profile()
		}
		err = errors.Join(err, d.close())
	}
	if _, refused := client.IsRefused(err); err != nil && asked.Load() && !refused {
		return fmt.Errorf("%w; the relay may have taken the device in: it is kept, and 'commucat client listen --profile %s' asks again", err, f.dir)
	}
	if err != nil {
		if fresh {
			os.RemoveAll(f.dir)
		} else {
			os.Remove(filepath.Join(f.dir, "profile.json"))
			os.Remove(filepath.Join(f.dir, "messages.db"))
		}
		return err
	}
	if a.json {
		return a.emit(struct {
			Device    string  `json:"device"`
			User      string  `json:"user"`
			Handle    string  `json:"handle"`
			Domain    string  `json:"domain"`
			Transport string  `json:"transport"`
			MS        float64 `json:"milliseconds"`
		}{p.DeviceID, p.UserID, p.Handle, p.Relay.Domain, by, float64(time.Since(began)) / 1e6})
	}
	fmt.Fprintf(a.out, "registered %s as device %s by %s\n", p.Handle, p.DeviceID, by)
	return nil
}
