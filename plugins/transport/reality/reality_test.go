package reality

import (
	"context"
	"net"
	"testing"

	"github.com/commucat/commucat/sdk/plugintest"
	"github.com/commucat/commucat/sdk/transport"
)

// covers are the kinds of cover that everything is tried with.
func covers(t testing.TB) map[string]string {
	return map[string]string{"go": goCover(t), "nginx": nginxCover(t), "self": coverSelf}
}

func TestEcho(t *testing.T) {
	for name, cover := range covers(t) {
		t.Run(name, func(t *testing.T) {
			r := startServer(t, baseConfig(t, cover))
			r.echoAll()
			for _, fp := range Fingerprints() {
				if err := checkEcho(r.endpoint(), fp, 300_000); err != nil {
					t.Errorf("%s: %v", fp, err)
				}
			}
		})
	}
}

func TestConformance(t *testing.T) {
	cover := goCover(t)
	plugintest.Transport(t, plugintest.TransportPair{Name: Name, Start: func(t testing.TB, accept func(net.Conn)) func(context.Context) (net.Conn, error) {
		r := startServer(t, baseConfig(t, cover))
		go func() {
			for {
				c, err := r.ln.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					accept(c)
				}()
			}
		}()
		e := r.endpoint()
		o, err := transport.Open(context.Background(), Plugin(), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		d := transport.NewDialer(Name, o)
		return func(ctx context.Context) (net.Conn, error) { return d.Dial(ctx, e, transport.Dial{}) }
	}})
}
