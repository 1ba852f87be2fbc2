package transport_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/commucat/commucat/sdk/transport"
)

// conn is a net.Conn with facts.
type conn struct {
	net.Conn
	facts  transport.Facts
	remote net.Addr
}

func (c conn) Path() transport.Facts { return c.facts }
func (c conn) RemoteAddr() net.Addr  { return c.remote }

// bare has no facts.
type bare struct {
	net.Conn
	remote net.Addr
}

func (b bare) RemoteAddr() net.Addr { return b.remote }

// wrapper hides what it wraps behind NetConn, as tls.Conn does.
type wrapper struct{ net.Conn }

func (w wrapper) NetConn() net.Conn { return w.Conn }

type loop struct{ net.Conn }

func (l loop) NetConn() net.Conn    { return l }
func (l loop) RemoteAddr() net.Addr { return nil }

func TestFactsOf(t *testing.T) {
	tcp := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 99}
	want := netip.MustParseAddrPort("192.0.2.7:99")
	type key struct{}
	ctx := context.WithValue(context.Background(), key{}, 1)
	tests := []struct {
		name string
		conn net.Conn
		want transport.Facts
	}{
		{"bare", bare{remote: tcp}, transport.Facts{Remote: want, Context: context.Background()}},
		{"text", bare{remote: transport.Addr{Net: "x", Text: "[::ffff:192.0.2.7]:99"}}, transport.Facts{Remote: want, Context: context.Background()}},
		{"no address", bare{remote: transport.Addr{Net: "x", Text: "pipe"}}, transport.Facts{Context: context.Background()}},
		{"nil address", bare{}, transport.Facts{Context: context.Background()}},
		{"facts", conn{facts: transport.Facts{Transport: "a", Context: ctx}, remote: tcp}, transport.Facts{Transport: "a", Remote: want, Context: ctx}},
		{"wrapped", wrapper{wrapper{conn{facts: transport.Facts{Transport: "a"}, remote: tcp}}}, transport.Facts{Transport: "a", Remote: want, Context: context.Background()}},
		{"hidden", conn{facts: transport.Facts{Hidden: true}, remote: tcp}, transport.Facts{Hidden: true, Context: context.Background()}},
		{"circuit", conn{facts: transport.Facts{Circuit: "c"}, remote: tcp}, transport.Facts{Circuit: "c", Context: context.Background()}},
		{"long agent", conn{facts: transport.Facts{UserAgent: strings.Repeat("é", 200) + "x"}}, transport.Facts{UserAgent: strings.Repeat("é", 128), Context: context.Background()}},
		{"wraps itself", loop{}, transport.Facts{Context: context.Background()}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := transport.FactsOf(tt.conn); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestCloseWrite(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if err := transport.CloseWrite(a); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("pipe: %v", err)
	}
}

func TestShorten(t *testing.T) {
	for in, want := range map[string]string{"": "", "abc": "abc", "abcd": "abc", "aéé": "aé", "\x80\x80\x80\x80": ""} {
		if got := transport.Shorten(in, 3); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func ExampleFactsOf() {
	c := conn{facts: transport.Facts{Transport: "http2", Entered: true}, remote: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 4321}}
	facts := transport.FactsOf(c)
	fmt.Println(facts.Transport, facts.Remote, facts.Entered)
	// Output: http2 192.0.2.7:4321 true
}
