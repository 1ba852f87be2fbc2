package masque

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// proxying is a server half that may reach targets on loopback.
func proxying(t *testing.T, now func() time.Time) *server {
	t.Helper()
	var cfg Config
	sdk.Defaults(&cfg)
	cfg.Listen, cfg.Targets = "127.0.0.1:0", []string{"127.0.0.1:*"}
	s, err := newServer(t.Context(), sdk.NewEnv(sdk.EnvOptions{State: t.TempDir(), Cover: page}), cfg, serverOptions{
		now: now, dialUDP: func(ctx context.Context, host string, port uint16) (*net.UDPConn, error) {
			return dialAllowed(ctx, host, port, netip.Addr.IsLoopback)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// askedUDP opens CONNECT-UDP as a guest by hand, without datagrams, and gives the
// stream and the answer.
func askedUDP(t *testing.T, s *server, guest, target string, window uint64, header http.Header) (*quic.Conn, *http3.RequestStream, *http.Response) {
	t.Helper()
	e, err := s.Invite(t.Context(), "127.0.0.1", transport.Guest{ID: guest})
	if err != nil {
		t.Fatal(err)
	}
	inv, err := readInvitation(e, transport.Dial{})
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	tr := &quic.Transport{Conn: udp}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := tr.Dial(ctx, s.Addr(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{http3.NextProtoH3}},
		&quic.Config{InitialStreamReceiveWindow: window, MaxStreamReceiveWindow: window})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.CloseWithError(0, "")
		_ = tr.Close()
		_ = udp.Close()
	})
	h3 := new(http3.Transport).NewClientConn(c)
	<-h3.ReceivedSettings()
	str, err := h3.OpenRequestStream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	state := c.ConnectionState()
	proof, err := inv.credentials(state.TLS.ExportKeyingMaterial, "127.0.0.1", inv.port)
	if err != nil {
		t.Fatal(err)
	}
	authority := joinAuthority("127.0.0.1", inv.port)
	if header == nil {
		header = http.Header{}
	}
	header.Set("Proxy-Authorization", proof)
	host, port, err := net.SplitHostPort(target)
	if err != nil {
		t.Fatal(err)
	}
	if err := str.SendRequestHeader(&http.Request{
		Method: http.MethodConnect, Proto: protocolUDP, Host: authority, Header: header,
		URL: &url.URL{Scheme: "https", Host: authority, Path: udpPath + host + "/" + port + "/"},
	}); err != nil {
		t.Fatal(err)
	}
	resp, err := str.ReadResponse()
	if err != nil {
		t.Fatal(err)
	}
	return c, str, resp
}

// TestStuckTunnelEnds: a guest who takes nothing out of a tunnel cannot keep it open
// after a revocation.
func TestStuckTunnelEnds(t *testing.T) {
	s := proxying(t, time.Now)
	target, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	var sent atomic.Int64
	go func() { // sends until the target is closed
		buf := make([]byte, 1000)
		_, to, err := target.ReadFromUDPAddrPort(buf)
		for err == nil || transient(err) {
			_, err = target.WriteToUDPAddrPort(buf, to)
			sent.Add(1)
			time.Sleep(time.Millisecond)
		}
	}()
	const window = 20 << 10
	c, str, resp := askedUDP(t, s, "glutton", "127.0.0.1:"+strconv.Itoa(int(transport.AddrPort(target.LocalAddr()).Port())), window, nil)
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	if _, err := str.Write(appendCapsule(nil, []byte("begin"))); err != nil {
		t.Fatal(err)
	}
	// Once the window is used up the tunnel waits with the next packet.
	for before := int64(-1); before < 0 || sent.Load() < before+2*window/1000; time.Sleep(time.Millisecond) {
		if before < 0 && c.ConnectionStats().BytesReceived >= window {
			before = sent.Load()
		}
	}
	if err := s.Revoke(t.Context(), "glutton"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.guests.empty():
	case <-time.After(10 * time.Second):
		t.Error("the revoked guest's tunnel is still open")
	}
}

// TestCapsuleHeader: the header means nothing to the relay, whatever it holds
// (RFC 9297 section 3.4: parameters are ignored, and what is not true counts as absent).
func TestCapsuleHeader(t *testing.T) {
	s := proxying(t, time.Now)
	for _, v := range []string{"", capsuleYes, "?1;new=2", "?0", "nonsense"} {
		header := http.Header{}
		if v != "" {
			header.Set(capsuleHeader, v)
		}
		if _, _, resp := askedUDP(t, s, "guest", "127.0.0.1:9", 1<<20, header); resp.StatusCode != http.StatusOK || resp.Header.Get(capsuleHeader) != capsuleYes {
			t.Errorf("%q: %s %v", v, resp.Status, resp.Header)
		}
	}
}

// TestFailure: a guest learns what kind of failure it is and nothing of the relay's
// resolver and addresses.
func TestFailure(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		code int
		kind string
	}{
		"not public": {errProhibited, http.StatusForbidden, statusProhibited},
		"no name":    {&net.DNSError{Err: "no such host", Server: "10.0.0.53:53", IsNotFound: true}, http.StatusBadGateway, statusDNS},
		"slow name":  {&net.DNSError{Err: "timeout", Server: "10.0.0.53:53", IsTimeout: true}, http.StatusGatewayTimeout, statusDNSTimeout},
		"no route": {
			errors.Join(&net.OpError{Op: "dial", Net: "udp", Source: &net.UDPAddr{IP: net.IPv4(10, 0, 0, 7)}, Err: syscall.ENETUNREACH}),
			http.StatusBadGateway, statusUnroutable,
		},
	} {
		code, kind, text := failure(c.err)
		if code != c.code || kind != c.kind || strings.Contains(text.Error(), "10.") {
			t.Errorf("%s: %d %s %v", name, code, kind, text)
		}
	}
}

// TestLastly: a tunnel is idle when neither side has sent for a while.
func TestLastly(t *testing.T) {
	var l lastly
	began := time.Unix(1_800_000_000, 0)
	for _, sent := range []time.Duration{0, idleTunnel - 1, 5 * idleTunnel} {
		l.note(began.Add(sent))
		if !l.at().Equal(began.Add(sent)) || l.idle(began.Add(sent+idleTunnel-1)) || !l.idle(began.Add(sent+idleTunnel)) {
			t.Errorf("sent after %v: %v", sent, l.at())
		}
	}
}
