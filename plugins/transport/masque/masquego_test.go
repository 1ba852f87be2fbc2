package masque

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// The tests of this file need the peer that the module in interop builds of masque-go and
// names in COMMUCAT_MASQUE_GO.

// masqueGo is what the peer reports.
type masqueGo struct {
	Address, Pin, NextHop string
	Status                int
}

// runMasqueGo starts the peer and waits until it is ready; it ends with the test.
func runMasqueGo(t *testing.T, args ...string) (m masqueGo) {
	t.Helper()
	program := os.Getenv("COMMUCAT_MASQUE_GO")
	if program == "" {
		t.Skip("run by the module in interop")
	}
	cmd := exec.Command(program, args...)
	cmd.Stderr = t.Output()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	if err := json.NewDecoder(out).Decode(&m); err != nil {
		t.Fatal("the peer:", err)
	}
	return m
}

// echoes sends 1 MB and expects it back.
func echoes(t *testing.T, c net.Conn) {
	t.Helper()
	want := make([]byte, 1<<20)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(want)
	_ = c.SetDeadline(time.Now().Add(60 * time.Second))
	go func() { _, _ = c.Write(want) }()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes came back: %v", n, err)
	}
}

// TestMasqueGoProxy: our client comes through masque-go's proxy.
func TestMasqueGoProxy(t *testing.T) {
	p := runMasqueGo(t, "proxy", "Bearer of the proxy")
	r := start(t, map[string]any{"chained": "127.0.0.1:0"}, func(c net.Conn) {
		if !transport.FactsOf(c).Hidden {
			t.Error("a chained client's address is shown as its own")
		}
		echo(c)
	})
	config := map[string]any{
		"proxy":     "https://" + p.Address + udpPath + "{target_host}/{target_port}/",
		"proxy_pin": p.Pin, "proxy_authorization": "Bearer of the proxy",
	}
	c, err := dialled(t, opened(t, config), r.endpoint(t, "guest"), transport.Dial{})
	if err != nil {
		t.Fatal(err)
	}
	echoes(t, c)
	config["proxy_authorization"] = "Bearer of nobody"
	if _, err := dialled(t, opened(t, config), r.endpoint(t, "guest"), transport.Dial{}); err == nil {
		t.Error("the proxy's refusal was not seen")
	}
}

// TestMasqueGoClient: masque-go's client comes through our proxy, to the relay itself and
// to a target of the list.
func TestMasqueGoClient(t *testing.T) {
	target, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	go func() { // an echo that first says more than any tunnel carries
		b := make([]byte, 2048)
		for {
			n, from, err := target.ReadFromUDP(b)
			if err != nil {
				return
			}
			_, _ = target.WriteToUDP(make([]byte, 9000), from)
			_, _ = target.WriteToUDP(b[:n], from)
		}
	}()
	proxy := func(dial udpDialer, targets ...string) (s *server, token string) {
		t.Helper()
		var cfg Config
		sdk.Defaults(&cfg)
		cfg.Listen, cfg.Bearer, cfg.Targets = "127.0.0.1:0", true, targets
		s, err := newServer(t.Context(), sdk.NewEnv(sdk.EnvOptions{State: t.TempDir(), Cover: page}), cfg, serverOptions{now: time.Now, dialUDP: dial})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		if token, err = s.secrets.bearerToken(grant{guest: "peer"}); err != nil {
			t.Fatal(err)
		}
		return s, token
	}
	come := func(t *testing.T, s *server, token, to string) masqueGo {
		t.Helper()
		return runMasqueGo(t, "client", "https://"+s.Addr().String()+udpPath+"{target_host}/{target_port}/", encode(s.pin[:]), "Bearer "+token, to)
	}
	loopback := func(ctx context.Context, host string, port uint16) (*net.UDPConn, error) {
		return dialAllowed(ctx, host, port, netip.Addr.IsLoopback)
	}
	at := target.LocalAddr().String()
	open, token := proxy(loopback, at)

	t.Run("the relay itself", func(t *testing.T) {
		m := come(t, open, token, open.Addr().String())
		over := make(chan struct{})
		go func() {
			defer close(over)
			if c, err := open.Accept(); err == nil {
				echo(c)
				_ = c.Close()
			}
		}()
		e, err := open.Invite(t.Context(), "127.0.0.1", transport.Guest{ID: "guest"})
		if err != nil {
			t.Fatal(err)
		}
		e.Port, e.Params[paramTCP] = transport.ParseAddrPort(m.Address).Port(), ""
		c, err := dialled(t, opened(t, nil), e, transport.Dial{})
		if err != nil {
			t.Fatal(err)
		}
		echoes(t, c)
		_ = c.Close()
		<-over
	})
	t.Run("a target of the list", func(t *testing.T) {
		m := come(t, open, token, at)
		if m.NextHop != at {
			t.Errorf("next hop %q", m.NextHop)
		}
		c, err := net.Dial("udp", m.Address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for size := 1; size <= 1200; size += 109 {
			want, got := bytes.Repeat([]byte{byte(size)}, size), make([]byte, 2048)
			_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
			_, _ = c.Write(want)
			if n, err := c.Read(got); err != nil || !bytes.Equal(got[:n], want) {
				t.Fatalf("%d bytes: %d came back, %v", size, n, err)
			}
		}
	})
	strict, strictToken := proxy(dialPublic, at)
	shut, shutToken := proxy(loopback)
	for _, c := range []struct {
		name  string
		s     *server
		token string
		to    string
		want  int
	}{
		{"a wrong token gets the site's answer", open, "x", at, http.StatusMethodNotAllowed},
		{"a target that is not on the list", open, token, "127.0.0.1:9", http.StatusForbidden},
		{"a private target on the list", strict, strictToken, at, http.StatusForbidden},
		{"off", shut, shutToken, at, http.StatusForbidden},
	} {
		t.Run(c.name, func(t *testing.T) {
			if m := come(t, c.s, c.token, c.to); m.Status != c.want {
				t.Errorf("status %d, want %d", m.Status, c.want)
			}
		})
	}
}
