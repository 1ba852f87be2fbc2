package session

import (
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/core/relay"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/identity"
	"github.com/commucat/commucat/sdk/noise"
)

// records counts what comes, record by record, until the connection ends.
func (c *client) records(beats *int) error {
	for {
		plain, n, err := c.recv.Next(c.in)
		if err == noise.ErrIncomplete {
			if err := c.more(); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if len(plain) == 0 {
			*beats++
		}
		c.in = c.in[n:]
	}
}

func TestKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, nil)
		c := h.join(t, newDevice(t, "dev-a", "alice"))
		if c.ack.Keepalive != 30 {
			t.Errorf("keepalive_interval %d", c.ack.Keepalive)
		}
		stop := make(chan struct{})
		go func() { // the client does the same
			for {
				select {
				case <-stop:
					return
				case <-time.After(30 * time.Second):
					_ = c.raw(nil)
				}
			}
		}()
		beats := 0
		done := make(chan error)
		go func() { done <- c.records(&beats) }()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if beats < 19 || beats > 20 { // each answers one of the client's
			t.Errorf("%d keep-alives in 10 minutes", beats)
		}
		if h.relay.link("dev-a") == nil {
			t.Error("the session ended")
		}
		close(stop)
		c.conn.Close()
		<-done
	})
}

// TestKeepAliveAlone: a peer that says nothing hears of the relay all the same, and
// one that says too much is not answered each time.
func TestKeepAliveAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, nil)
		c := h.join(t, newDevice(t, "dev-a", "alice"))
		beats := 0
		done := make(chan error)
		go func() { done <- c.records(&beats) }()
		time.Sleep(90 * time.Second)
		synctest.Wait()
		if beats != 2 {
			t.Errorf("%d keep-alives in 90 s of silence", beats)
		}
		for range 90 {
			_ = c.raw(nil)
			time.Sleep(time.Second)
		}
		synctest.Wait()
		if beats < 4 || beats > 9 {
			t.Errorf("%d keep-alives after 90 of the client", beats)
		}
		c.conn.Close()
		<-done
	})
}

func TestDeadPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, nil)
		c := h.join(t, newDevice(t, "dev-a", "alice"))
		link := h.relay.link("dev-a")
		began := time.Now()
		go io.Copy(io.Discard, c.conn) // reads, but never says anything
		<-link.gone
		if took := time.Since(began); took < 100*time.Second || took > 131*time.Second {
			t.Errorf("silent peer ended after %s", took)
		}
	})
}

func TestWriteStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, nil)
		c := h.join(t, newDevice(t, "dev-a", "alice"))
		_ = c // reads nothing any more
		link := h.relay.link("dev-a")
		began := time.Now()
		link.box.Push(relay.Delivery{Position: 1, Kind: ccp.TypeMsg, ID: ccp.MessageID{Counter: 1}, Body: []byte("x")})
		<-link.gone
		if took := time.Since(began); took < 30*time.Second || took > 61*time.Second {
			t.Errorf("stalled writer ended after %s", took)
		}
	})
}

// TestProgress is the rule of section 4: a begun frame advances 1 KiB/s over 30 s.
func TestProgress(t *testing.T) {
	for name, tt := range map[string]struct {
		chunk int
		ends  bool
	}{"too slow": {100, true}, "fast enough": {1200, false}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t, nil)
				c := h.join(t, newDevice(t, "dev-a", "alice"))
				link := h.relay.link("dev-a")
				go io.Copy(io.Discard, c.conn)
				frame, _ := ccp.Append(nil, ccp.Frame{Type: ccp.TypeMsg, Channel: 1, Sequence: 1, Payload: fill(200_000)})
				began := time.Now()
				var err error
				for rest := frame; len(rest) > 0 && err == nil; rest = rest[min(len(rest), tt.chunk):] {
					err = c.raw(rest[:min(len(rest), tt.chunk)])
					time.Sleep(time.Second)
				}
				if tt.ends {
					<-link.gone
					if took := time.Since(began); took > 92*time.Second {
						t.Errorf("ended after %s", took)
					}
					return
				}
				if f := <-link.frames; err != nil || len(f.Payload) != 200_000 {
					t.Errorf("%d bytes, %v", len(f.Payload), err)
				}
			})
		})
	}
}

// TestW12TokenLives is W12 and W-01: while the session lives the token does, and not
// for longer than its life afterwards.
func TestW12TokenLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, nil)
		c := h.join(t, newDevice(t, "dev-a", "alice"))
		go io.Copy(io.Discard, c.conn)
		for range 10 * 60 * 2 {
			time.Sleep(30 * time.Second)
			if err := c.raw(nil); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := h.accounts.Token(t.Context(), c.ack.Session); err != nil {
			t.Errorf("after ten hours: %v", err)
		}
		c.conn.Close()
		time.Sleep(61 * time.Minute)
		if _, err := h.accounts.Token(t.Context(), c.ack.Session); err == nil {
			t.Error("the token outlives its session by more than its life")
		}
	})
}

// TestRevokedElsewhere: another node's revocation, of which no hook tells here, is
// noticed when the token is renewed.
func TestRevokedElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, nil)
		c := h.join(t, newDevice(t, "dev-a", "alice"))
		other := account.New(h.dir, account.Options{Clock: h.now, CA: func() identity.CA { return h.ca }})
		if err := other.RevokeDevice(t.Context(), "", "dev-a"); err != nil {
			t.Fatal(err)
		}
		link := h.relay.link("dev-a")
		go io.Copy(io.Discard, c.conn)
		go func() {
			for c.raw(nil) == nil {
				time.Sleep(30 * time.Second)
			}
		}()
		began := time.Now()
		<-link.gone
		if took := time.Since(began); took > 25*time.Minute {
			t.Errorf("noticed after %s", took)
		}
		c.conn.Close()
		time.Sleep(time.Minute)
	})
}

// TestW19RenewalInASession is W19: a certificate that runs out during the session is
// replaced by KeyUpdate.
func TestW19RenewalInASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, func(o *Options, _ *account.Options) { o.NotifyChannel = 5 })
		c := h.join(t, newDevice(t, "dev-a", "alice"))
		old := c.dev.cert.Serial
		frames := make(chan ccp.Frame, 1)
		go func() {
			for {
				f, err := c.read()
				if err != nil {
					return
				}
				frames <- f
			}
		}()
		h.pass(21 * 24 * time.Hour)
		var f ccp.Frame
		for f.Type == 0 {
			select {
			case f = <-frames:
			case <-time.After(30 * time.Second):
				if err := c.raw(nil); err != nil {
					t.Fatal(err)
				}
			}
		}
		if f.Type != ccp.TypeKeyUpdate || f.Channel != 5 || !strings.Contains(string(f.Payload), `"type":"certificate-renewed"`) {
			t.Fatalf("%+v", f)
		}
		raw, err := ccp.ParseRaw(f.Payload)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := identity.ParseCertificate(raw.Get("certificate"))
		if err != nil || cert.Serial == old || cert.Verify(h.ca.Public()) != nil {
			t.Errorf("%+v, %v", cert, err)
		}
		c.conn.Close()
		synctest.Wait()
	})
}

// TestW20OldKeysGoOn: a rotated server key is accepted for as long as it is held, and
// the Ack tells the new one.
func TestW20OldKeysGoOn(t *testing.T) {
	next := ServerKey{Version: 4, Pair: noise.KeyPairFrom([32]byte{7: 9})}
	h := newHouse(t, nil)
	old := h.key
	h.Server.opt.Keys = func() []ServerKey { return []ServerKey{next, old} }
	c := h.join(t, newDevice(t, "dev-a", "alice"))
	if c.ack.NoiseVersion != 3 || len(c.ack.NoiseKeys) != 2 || c.ack.NoiseKeys[0].Public != next.Pair.Public {
		t.Errorf("ack %+v", c.ack)
	}
}
