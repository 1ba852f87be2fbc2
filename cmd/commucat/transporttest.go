package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/commucat/commucat/core/api"
	"github.com/commucat/commucat/sdk/ccp"
	sdkentry "github.com/commucat/commucat/sdk/entry"
	"github.com/commucat/commucat/sdk/link"
	"github.com/commucat/commucat/sdk/noise"
	"github.com/commucat/commucat/sdk/transport"
)

// The stages of a trial, in their order. Each failure has the code STAGE_failed, or
// STAGE_timeout.
const (
	stageReady   = "ready"   // the relay's and the plugin's own word
	stageResolve = "resolve" // the name in the link
	stageDial    = "dial"    // TCP, where the program dials and not a plugin
	stageEntry   = "entry"   // the transport's own handshake, up to a stream into the relay
	stageSession = "session" // the relay proves its key
)

// remedies say what to do where a stage fails.
var remedies = map[string]string{
	stageReady:   "'commucat plugin list', 'commucat doctor' and the relay's log say more",
	stageResolve: "check server.domain and the name's address records",
	stageDial:    "open the port in the firewall, and forward it to the relay's address",
	stageEntry:   "check what stands before the relay (a proxy, a firewall, another site), the certificate and this machine's clock",
	stageSession: "another relay answers there, or something on the way changes the stream: compare with 'commucat keys show'",
}

// trial is what 'transport test' found.
type trial struct {
	Transport string `json:"transport"`
	OK        bool   `json:"ok"`
	// Stage is the last one that was reached: where it is not OK, the one that failed.
	Stage   string       `json:"stage"`
	Address string       `json:"address,omitempty"`
	Stages  []trialStage `json:"stages"`
	Code    string       `json:"code,omitempty"`
	Error   string       `json:"error,omitempty"`
	Then    string       `json:"then,omitempty"`
	err     error        // Error's
	began   time.Time    // of the stage
}

type trialStage struct {
	Stage        string  `json:"stage"`
	Milliseconds float64 `json:"ms"`
}

func newTrial(name string) *trial {
	return &trial{Transport: name, Stage: stageReady, Stages: []trialStage{}, began: time.Now()}
}

// enter ends the stage and begins the next one.
func (t *trial) enter(next string) {
	t.end(t.Stage, time.Since(t.began))
	t.Stage, t.began = next, time.Now()
}

func (t *trial) end(stage string, took time.Duration) {
	ms, _ := strconv.ParseFloat(fmt.Sprintf("%.1f", took.Seconds()*1000), 64)
	t.Stages = append(t.Stages, trialStage{stage, ms})
}

// fail notes why the stage failed.
func (t *trial) fail(ctx context.Context, err error) {
	t.end(t.Stage, time.Since(t.began))
	t.Code = t.Stage + "_failed"
	if timeout := net.Error(nil); ctx.Err() != nil || errors.As(err, &timeout) && timeout.Timeout() {
		t.Code = t.Stage + "_timeout"
	}
	t.err, t.Error, t.Then = err, err.Error(), remedies[t.Stage]
}

// show prints what was found; the error ends the program where it does not work.
func (a *app) showTrial(t *trial, works string) error {
	if a.json {
		if err := a.emit(t); err != nil || t.OK {
			return err
		}
		return silent{exitCode(t.err)}
	}
	if t.OK {
		if _, err := fmt.Fprintf(a.out, "%s %s\n", t.Transport, works); err != nil {
			return err
		}
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	for _, s := range t.Stages {
		state := "ok"
		if s.Stage == t.Stage && !t.OK {
			state = "failed"
		}
		fmt.Fprintf(w, "  %s\t%s\t%.1f ms\n", s.Stage, state, s.Milliseconds)
	}
	if err := w.Flush(); err != nil || t.OK {
		return err
	}
	return fmt.Errorf("%s does not work from here: %s: %w (%s); %s", t.Transport, t.Stage, t.err, t.Code, t.Then)
}

// dialThrough opens a stream to the running relay as a new device would, by a link of
// its own, which is revoked again, and has the relay prove its key. No device is made.
func (a *app) dialThrough(ctx context.Context, cl *api.Client, name string, t *trial) (err error) {
	made, err := cl.CreateLink(ctx, api.LinkRequest{Kind: api.InviteLink, Quota: 1, TTLSeconds: 60})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cl.RevokeLink(context.WithoutCancel(ctx), made.ID)) }()
	l, err := link.Parse(made.Text)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(l.Endpoints, func(e link.Endpoint) bool { return e.Transport == name })
	if i < 0 {
		return fmt.Errorf("the relay names no endpoint for %s: is it enabled and ready? See 'commucat plugin list'", name)
	}
	e := l.Endpoints[i]
	t.Address = net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port)))
	d, err := runningDialer(ctx, cl, name)
	if err != nil {
		return err
	}
	t.enter(stageResolve)
	unresolved := resolve(ctx, e.Host)
	if unresolved != nil && slices.Contains(builtIn(), name) {
		return unresolved
	}
	cred := sdkentry.Credential{ID: l.Entry.ID, Key: l.Entry.Key}
	with := transport.Dial{Pins: l.Pins, Token: func(method, path, st string) string {
		return cred.Token(method, path, st, time.Now(), rand.Reader)
	}}
	t.enter(stageEntry)
	if slices.Contains(builtIn(), name) {
		t.Stage, with.DialTCP = stageDial, t.dialTCP
	}
	c, err := d.Dial(ctx, transport.Endpoint{Transport: e.Transport, Host: e.Host, Port: e.Port, Params: e.Values()}, with)
	if err != nil {
		// A plugin may need no such name, or does not get on without.
		return errors.Join(err, unresolved)
	}
	defer c.Close()
	t.enter(stageSession)
	return meet(ctx, c, &l, cred.Token(sdkentry.MethodRaw, name, "", time.Now(), rand.Reader))
}

// dialTCP is transport.Dial.DialTCP: what comes after it is the entry.
func (t *trial) dialTCP(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	if err == nil && t.Stage == stageDial {
		t.enter(stageEntry)
	}
	return c, err
}

// runningDialer is the client half of what the relay serves under a name.
func runningDialer(ctx context.Context, cl *api.Client, name string) (transport.Dialer, error) {
	states, err := pluginStates(ctx, cl)
	if err != nil {
		return nil, err
	}
	text := name
	for _, s := range states {
		if s.Kind == "transport" && s.Name == name {
			text = name + "=" + s.Plugin
		}
	}
	return namedDialer(append(dialers(), pluginDialers()...), text)
}

// resolve says whether a host has an address. An onion service's has none.
func resolve(ctx context.Context, host string) error {
	if _, err := netip.ParseAddr(host); err == nil || strings.HasSuffix(host, ".onion") {
		return nil
	}
	_, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	return err
}

// meet has the relay prove its key: a Hello, and message 2. It names no device.
func meet(ctx context.Context, c net.Conn, l *link.Link, token string) error {
	defer context.AfterFunc(ctx, func() { c.Close() })()
	static, err := noise.GenerateKeyPair(rand.Reader)
	if err != nil {
		return err
	}
	promised := l.Promises()
	hs, err := noise.NewHandshake(noise.Config{
		Pattern: noise.XK, Initiator: true, Prologue: []byte(noise.DefaultPrologue), Static: static, Peer: l.NoisePublic, PQ: promised.Has(ccp.PQ),
	})
	if err != nil {
		return err
	}
	h := ccp.Hello{
		Pattern: noise.XK.String(), Capabilities: ccp.AllCapabilities.Names(), KeyVersion: l.NoiseVersion,
		SupportedVersions: ccp.Versions(ccp.ProtocolVersion), Entry: token,
	}
	if h.Handshake, err = hs.WriteMessage(nil, nil); err != nil {
		return err
	}
	var kem *noise.Decapsulator
	if promised.Has(ccp.PQ) {
		if h.PQ, kem, err = noise.PQClient(rand.Reader); err != nil {
			return err
		}
	}
	hello := h.Marshal()
	frame, err := ccp.Append(nil, ccp.Frame{Type: ccp.TypeHello, Sequence: 1, Payload: hello})
	if err == nil {
		_, err = c.Write(frame)
	}
	if err != nil {
		return err
	}
	answer, err := firstFrame(c)
	if err == nil && answer.Type != ccp.TypeAuth {
		err = errors.New("the relay refused the handshake")
	}
	if err != nil {
		return err
	}
	auth, err := ccp.ParseServerAuth(answer.Payload)
	if err != nil {
		return err
	}
	if kem != nil {
		psk, err := kem.PSK(auth.PQ)
		if err == nil {
			err = hs.SetPSK(psk)
		}
		if err != nil {
			return err
		}
	}
	text, err := hs.ReadMessage(nil, auth.Handshake)
	if err != nil {
		return fmt.Errorf("the answer does not come from the relay's key: %w", err)
	}
	ext, err := ccp.ParseExt(text)
	if err == nil {
		_, err = ext.Answer.Check(hello, h.Offer())
	}
	return err
}

// firstFrame reads a clear frame of at most 128 KiB.
func firstFrame(c net.Conn) (ccp.Frame, error) {
	var in []byte
	for buf := make([]byte, 4096); len(in) < 128<<10; {
		n, err := c.Read(buf)
		in = append(in, buf[:n]...)
		if f, _, wrong := ccp.Decode(in); wrong == nil {
			return f, nil
		} else if !errors.Is(wrong, ccp.ErrIncomplete) {
			return f, fmt.Errorf("what answers is not a relay: %w", wrong)
		}
		if err != nil {
			return ccp.Frame{}, fmt.Errorf("the stream ended before the relay's answer: %w", err)
		}
	}
	return ccp.Frame{}, errors.New("the relay's answer is too large")
}
