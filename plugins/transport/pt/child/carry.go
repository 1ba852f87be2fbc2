package child

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/commucat/commucat/plugins/transport/pt/managed"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// Limits of the child.
const (
	parentTime = 10 * time.Second // for the parent to take or to name a client
	dialTime   = time.Minute
	readyTime  = 20 * time.Second // for a server side to be ready
	maxStreams = 4096
)

// guestID is whom a server side invites: all that have the bridge line.
const guestID = "bridge-line"

// server starts the server side and prints its SMETHOD line.
func (c *carrier) server(ctx context.Context, group *sync.WaitGroup) error {
	state := filepath.Join(c.state, c.method.Name)
	if err := os.MkdirAll(state, 0o700); err != nil {
		return err
	}
	options, err := managed.ParseOptions(c.options, c.method.Name)
	if err != nil {
		return err
	}
	var cover http.Handler
	if c.method.Site {
		if cover, err = site(options.Get("cover")); err != nil {
			return err
		}
		options = slices.DeleteFunc(options, func(a managed.Arg) bool { return a.Key == "cover" })
	}
	table, err := tableOf(sdk.Fields(c.method.Plugin.Config()), options)
	if err != nil {
		return err
	}
	at := c.bind[c.method.Name]
	if at.IsValid() {
		table["listen"] = at.String()
	}
	if c.method.Prepare != nil {
		if err := c.method.Prepare(state, table); err != nil {
			return err
		}
	}
	env := &degradable{Env: c.env(state, cover), changed: make(chan struct{}, 1)}
	o, err := c.open(ctx, env, table)
	if err != nil {
		return err
	}
	ln, err := o.Listen(ctx)
	if err != nil {
		return errors.Join(err, o.Close())
	}
	env.wait(ctx, readyTime)
	line := managed.Line{Word: managed.SMethod, Method: c.method.Name, Addr: transport.AddrPort(ln.Addr())}
	if s, ok := ln.(transport.Server); ok {
		to, err := s.Invite(ctx, line.Addr.Addr().String(), transport.Guest{ID: guestID})
		if err != nil {
			return errors.Join(err, ln.Close(), o.Close())
		}
		for _, k := range slices.Sorted(maps.Keys(to.Params)) {
			v := to.Params[k]
			if strings.ContainsAny(k+v, " \t\r\n") {
				return errors.Join(fmt.Errorf("argument %s holds a space, which a bridge line cannot", k), ln.Close(), o.Close())
			}
			line.Args = append(line.Args, managed.Arg{Key: k, Value: v})
		}
	}
	if err := writeBridgeLine(state, line); err != nil {
		return errors.Join(err, ln.Close(), o.Close())
	}
	ready := transport.Handshakes(ln)
	group.Go(func() {
		<-ctx.Done()
		_ = ready.Close()
		_ = o.Close()
	})
	group.Go(func() { each(ready, func(conn net.Conn) { c.deliver(ctx, conn) }) })
	c.out.line(line)
	return nil
}

// each calls f for every stream of ln, for maxStreams at once, and returns when ln is
// closed and all calls have ended.
func each(ln net.Listener, f func(net.Conn)) {
	var streams sync.WaitGroup
	slots := make(chan struct{}, maxStreams)
	for {
		conn, err := ln.Accept()
		if err != nil {
			break
		}
		select {
		case slots <- struct{}{}:
			streams.Go(func() {
				defer func() { <-slots }()
				f(conn)
			})
		default:
			conn.Close()
		}
	}
	streams.Wait()
}

// bridgeLine is the file in a method's state folder that says what clients need.
const bridgeLine = "bridgeline.txt"

// writeBridgeLine writes a template, since tor does not show what a child prints.
func writeBridgeLine(state string, l managed.Line) error {
	words := []string{"Bridge", l.Method, "<ADDRESS>:" + strconv.Itoa(int(l.Addr.Port())), "<FINGERPRINT>"}
	for _, a := range l.Args {
		words = append(words, a.Key+"="+a.Value)
	}
	return os.WriteFile(filepath.Join(state, bridgeLine), []byte(strings.Join(words, " ")+"\n"), 0o600)
}

// deliver joins an accepted client with the parent.
func (c *carrier) deliver(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	at := c.ext
	if at == "" {
		at = c.orport
	}
	limit, cancel := context.WithTimeout(ctx, parentTime)
	defer cancel()
	to, err := new(net.Dialer).DialContext(limit, "tcp", at)
	if err != nil {
		return
	}
	defer to.Close()
	if c.ext != "" {
		_ = to.SetDeadline(time.Now().Add(parentTime))
		arrival := managed.Arrival{Client: transport.FactsOf(conn).Remote, Method: c.method.Name}
		if managed.DialExtOR(to, c.cookie, arrival) != nil {
			return
		}
		_ = to.SetDeadline(time.Time{})
	}
	join(ctx, conn, to)
}

// client starts the client side and prints its CMETHOD line.
func (c *carrier) client(ctx context.Context, group *sync.WaitGroup) error {
	o, err := c.open(ctx, c.env("", nil), nil)
	if err != nil {
		return err
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return errors.Join(err, o.Close())
	}
	group.Go(func() {
		<-ctx.Done()
		_ = ln.Close()
		_ = o.Close()
	})
	group.Go(func() { each(ln, func(conn net.Conn) { c.request(ctx, o, conn) }) })
	c.out.line(managed.Line{Word: managed.CMethod, Method: c.method.Name, Protocol: "socks5", Addr: transport.AddrPort(ln.Addr())})
	return nil
}

// request is one stream that the parent asks for.
func (c *carrier) request(ctx context.Context, o transport.Opened, conn net.Conn) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(parentTime))
	r, err := managed.AcceptSocks(conn)
	if err != nil {
		return
	}
	to := transport.Endpoint{Transport: c.method.Plugin.Name(), Params: map[string]string{}}
	var port string
	if to.Host, port, err = net.SplitHostPort(r.Target); err != nil {
		return
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return
	}
	to.Port = uint16(n)
	for _, a := range r.Args {
		to.Params[a.Key] = a.Value
	}
	limit, cancel := context.WithTimeout(ctx, dialTime)
	stream, err := o.Dial(limit, to, transport.Dial{})
	cancel()
	_ = conn.SetDeadline(time.Now().Add(parentTime))
	if err != nil {
		_ = managed.AnswerSocks(conn, false) // it is let go in any case
		c.out.line(managed.Line{Word: managed.Log, Args: managed.Args{{Key: "SEVERITY", Value: "notice"}, {Key: "MESSAGE", Value: c.method.Name + ": " + scrubbed(err.Error(), to)}}})
		return
	}
	defer stream.Close()
	if managed.AnswerSocks(conn, true) != nil {
		return
	}
	_ = conn.SetDeadline(time.Time{})
	join(ctx, conn, stream)
}

// addresses finds IP addresses, with ports or without.
var addresses = regexp.MustCompile(`\[[0-9A-Fa-f:.]*:[0-9A-Za-z:.%]*\](:\d+)?|\b\d{1,3}(\.\d{1,3}){3}(:\d+)?\b`)

// scrubbed takes a text for the parent's log without the bridge: its host, its arguments
// and every address. tor writes none either.
func scrubbed(text string, to transport.Endpoint) string {
	const instead = "[scrubbed]"
	words := []string{to.Host}
	for _, v := range to.Params {
		words = append(words, v)
	}
	slices.SortFunc(words, func(a, b string) int { return len(b) - len(a) })
	for _, w := range words {
		if len(w) >= 4 { // "1" and "tcp" say nothing
			text = strings.ReplaceAll(text, w, instead)
		}
	}
	return addresses.ReplaceAllString(text, instead)
}

// join carries bytes both ways until both are done, or ctx ends. The end of one
// direction is passed on where the other side knows half-close.
func join(ctx context.Context, a, b net.Conn) {
	stop := context.AfterFunc(ctx, func() {
		a.Close()
		b.Close()
	})
	defer stop()
	var group sync.WaitGroup
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		group.Go(func() {
			_, err := io.Copy(way[0], way[1])
			if err != nil || transport.CloseWrite(way[0]) != nil {
				way[0].Close()
				way[1].Close()
			}
		})
	}
	group.Wait()
}

// degradable notes whether a server side is ready.
type degradable struct {
	sdk.Env
	mu      sync.Mutex
	reason  error
	changed chan struct{}
}

// Degraded implements sdk.Env.
func (d *degradable) Degraded(reason error) {
	d.mu.Lock()
	d.reason = reason
	d.mu.Unlock()
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

// wait waits a while for the server side to be ready; one that is late serves all the
// same.
func (d *degradable) wait(ctx context.Context, limit time.Duration) {
	t := time.NewTimer(limit)
	defer t.Stop()
	for {
		d.mu.Lock()
		reason := d.reason
		d.mu.Unlock()
		if reason == nil {
			return
		}
		select {
		case <-d.changed:
		case <-t.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// tableOf makes a transport's table of options, which are all texts: lists are
// separated by commas.
func tableOf(fields []sdk.Field, options managed.Args) (map[string]any, error) {
	table := map[string]any{}
	for _, o := range options {
		kind := ""
		for _, f := range fields {
			if f.Name == o.Key {
				kind = f.Type
			}
		}
		v, err := value(kind, o.Value)
		if err != nil {
			return nil, fmt.Errorf("option %s: %w", o.Key, err)
		}
		table[o.Key] = v
	}
	return table, nil
}

func value(kind, text string) (any, error) {
	if inner, ok := strings.CutPrefix(kind, "list of "); ok {
		var out []any
		for part := range strings.SplitSeq(text, ",") {
			v, err := value(inner, part)
			if err != nil {
				return nil, err
			}
			out = append(out, v)
		}
		return out, nil
	}
	switch kind {
	case "integer":
		return strconv.ParseInt(text, 10, 64)
	case "number":
		return strconv.ParseFloat(text, 64)
	case "bool":
		return strconv.ParseBool(text)
	case "secret":
		b, err := sdk.Files{}.Secret(text) // "file:PATH", or the secret itself
		return sdk.NewSecret(b), err
	case "file":
		path, content, err := sdk.Files{}.File(text)
		return sdk.NewFile(path, content), err
	}
	return text, nil
}
