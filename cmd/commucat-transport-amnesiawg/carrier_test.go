package main

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/commucat/commucat/plugins/transport/amnesiawg"
	"github.com/commucat/commucat/plugins/transport/amnesiawg/conf"
	"github.com/commucat/commucat/sdk/transport"
	"github.com/commucat/commucat/transports/http2"
)

// TestCarrier: AmneziaWG's own program carries a session, by the file that is exported.
// The module interop of the plugin builds it, and sets COMMUCAT_AMNEZIAWG.
func TestCarrier(t *testing.T) {
	program := os.Getenv("COMMUCAT_AMNEZIAWG")
	if program == "" {
		t.Skip("run by the plugin's interop module")
	}
	r := newRelay(t)
	l, _ := r.invite(t)
	var inside string
	var file []byte
	for _, e := range l.Endpoints {
		if e.Transport != amnesiawg.Name {
			continue
		}
		to := transport.Endpoint{Transport: e.Transport, Host: e.Host, Port: e.Port, Params: e.Values()}
		at, err := conf.Parse(to)
		if err == nil {
			inside = net.JoinHostPort(conf.ServerAddr(at.Server).String(), "443")
			file, err = conf.File(to, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	name := filepath.Join(t.TempDir(), "phone.conf")
	if err := os.WriteFile(name, file, 0o600); err != nil {
		t.Fatal(err)
	}
	app := exec.Command(program, name)
	app.Stderr = os.Stderr
	in, err := app.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := app.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := app.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_, _ = io.Copy(io.Discard, out)
		if err := app.Wait(); err != nil {
			t.Error(err)
		}
	})
	said, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	// The system would route this address into the tunnel.
	alice := newDeviceBy(t, l, func(ctx context.Context, network, address string) (net.Conn, error) {
		if address != inside {
			t.Errorf("it dials %s, not %s", address, inside)
		}
		return new(net.Dialer).DialContext(ctx, network, strings.TrimSpace(said))
	}, dialer(t, map[string]any{"carrier": "system"}, nil))
	bob := newDevice(t, l, http2.NewDialer())
	bob.event(t, "connected")
	if e := alice.event(t, "connected"); e.Transport != amnesiawg.Name {
		t.Errorf("connected by %s", e.Transport)
	}
	alice.says(t, bob, "by the app")
	bob.says(t, alice, "to the app")
}
