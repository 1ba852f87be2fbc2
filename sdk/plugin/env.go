package plugin

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/internal/wire"
	"github.com/commucat/commucat/sdk/internal/wire/handoff"
)

// lending bounds how long the host may take to lend something.
const lending = 30 * time.Second

// env is what the host lends, seen from here.
type env struct {
	server   *server
	instance uint64
	log      *slog.Logger
	state    string
	cover    *wire.CoverClient // nil where none is lent
}

var _ sdk.Env = (*env)(nil)

func (e *env) Log() *slog.Logger { return e.log }

func (e *env) State() string { return e.state }

func (e *env) Degraded(reason error) { e.server.health.set(e.instance, reason) }

func (e *env) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	f, err := e.bind(ctx, network, address)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return net.FileListener(f)
}

func (e *env) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	f, err := e.bind(ctx, network, address)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return net.FilePacketConn(f)
}

func (e *env) bind(ctx context.Context, network, address string) (*os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, lending)
	defer cancel()
	a, err := e.server.ask(ctx, handoff.Message{Type: handoff.Bind, Instance: e.instance, Network: network, Address: address})
	if err != nil {
		return nil, &sdk.Error{Kind: sdk.KindOf(err), Op: "listen on " + network + " " + address, Err: err}
	}
	return os.NewFile(uintptr(a.fd), "lent"), nil
}

func (e *env) Cover() http.Handler {
	if e.cover == nil {
		return nil
	}
	return e.cover
}

// dialCover gets the stream on which the host serves the cover site.
func (e *env) dialCover(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, lending)
	defer cancel()
	a, err := e.server.ask(ctx, handoff.Message{Type: handoff.CoverWanted, Instance: e.instance})
	if err != nil {
		return nil, err
	}
	return e.server.main.Stream(a.fd, &a.m, nil)
}

func (e *env) close() {
	if e.cover != nil {
		e.cover.Close()
	}
	e.server.health.forget(e.instance)
}
