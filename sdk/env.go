package sdk

import (
	"context"
	"log/slog"
	"net"
	"net/http"
)

// EnvOptions make an Env. Every field may be zero.
type EnvOptions struct {
	// Log is the plugin's logger; nil discards.
	Log *slog.Logger
	// State is the private folder; the caller has made it (0700).
	State string
	// Listen and ListenPacket replace net.ListenConfig's.
	Listen       func(ctx context.Context, network, address string) (net.Listener, error)
	ListenPacket func(ctx context.Context, network, address string) (net.PacketConn, error)
	// Cover is the site lent to the plugin.
	Cover http.Handler
	// Degraded is told of health; it may be called concurrently.
	Degraded func(reason error)
}

// NewEnv makes the Env of a plugin that runs in this process.
func NewEnv(o EnvOptions) Env {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Listen == nil {
		o.Listen = new(net.ListenConfig).Listen
	}
	if o.ListenPacket == nil {
		o.ListenPacket = new(net.ListenConfig).ListenPacket
	}
	if o.Degraded == nil {
		o.Degraded = func(error) {}
	}
	return &env{o}
}

type env struct{ o EnvOptions }

func (e *env) Log() *slog.Logger { return e.o.Log }

func (e *env) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	return e.o.Listen(ctx, network, address)
}

func (e *env) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	return e.o.ListenPacket(ctx, network, address)
}

func (e *env) State() string         { return e.o.State }
func (e *env) Cover() http.Handler   { return e.o.Cover }
func (e *env) Degraded(reason error) { e.o.Degraded(reason) }
