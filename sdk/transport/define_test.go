package transport_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"testing"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

type plainConfig struct {
	Listen string `cfg:"listen" default:"127.0.0.1:0" doc:"TCP address"`
}

// plain is a transport without any disguise.
func plain() sdk.Plugin {
	return transport.Define(transport.Descriptor{
		Name: "plain", Version: "1.0.0", Summary: "bare TCP", HalfClose: true,
		Needs: []transport.Need{{Kind: transport.TCPPort}},
	}, transport.Funcs[plainConfig]{
		Listen: func(ctx context.Context, env sdk.Env, c plainConfig) (net.Listener, error) {
			return env.Listen(ctx, "tcp", c.Listen)
		},
		Dial: func(ctx context.Context, _ sdk.Env, _ plainConfig, to transport.Endpoint, _ transport.Dial) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(to.Host, strconv.Itoa(int(to.Port))))
		},
	})
}

func ExampleDefine() {
	ctx := context.Background()
	o, err := transport.Open(ctx, plain(), nil, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	ln, err := o.Listen(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer ln.Close()
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		fmt.Fprintf(c, "hello")
	}()
	at := transport.AddrPort(ln.Addr())
	d := transport.NewDialer("plain", o)
	c, err := d.Dial(ctx, transport.Endpoint{Host: at.Addr().String(), Port: at.Port()}, transport.Dial{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	b, err := io.ReadAll(c)
	fmt.Println(d.Name(), string(b), err)
	// Output: plain hello <nil>
}

func TestOpen(t *testing.T) {
	ctx := t.Context()
	if _, err := transport.Open(ctx, plain(), nil, map[string]any{"lisen": "x"}); sdk.KindOf(err) != sdk.Invalid {
		t.Errorf("unknown key: %v", err)
	}
	half := transport.Define(transport.Descriptor{Name: "half"}, transport.Funcs[struct{}]{})
	o, err := transport.Open(ctx, half, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.Listen(ctx); !errors.Is(err, sdk.Unsupported) {
		t.Errorf("listen: %v", err)
	}
	if _, err := o.Dial(ctx, transport.Endpoint{}, transport.Dial{}); !errors.Is(err, sdk.Unsupported) {
		t.Errorf("dial: %v", err)
	}
	if err := o.Probe(ctx); err != nil {
		t.Errorf("probe: %v", err)
	}
	if _, _, err := transport.NewDialer("half", o).(transport.KeyMaker).NewKey(); !errors.Is(err, sdk.Unsupported) {
		t.Errorf("key: %v", err)
	}
	if d := transport.DescriptorOf(plain()); d.Name != "plain" || len(d.Needs) != 1 {
		t.Errorf("descriptor %+v", d)
	}
}
