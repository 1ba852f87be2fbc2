package sdk

import (
	"context"
	"log/slog"
	"net"
	"net/http"
)

// Kind says which of the three contracts a plugin fulfils.
type Kind uint8

// The plugin kinds.
const (
	Transport Kind = iota + 1
	Storage
	Ledger
)

// Plugin is what every kind's Define returns. It is opened by the Open
// function of its own kind; the interface itself only describes.
type Plugin interface {
	Kind() Kind
	// Name is the name in configuration files and lists: a-z 0-9 -, at most 32.
	Name() string
	// Version is the plugin's own semantic version.
	Version() string
	// Summary is one line for people.
	Summary() string
	// Config returns a pointer to a fresh configuration struct with its
	// defaults set; its tags describe it (see Fields).
	Config() any
}

// Env is what the core lends to a plugin, the same inside the core's process
// and out of it. All methods may be called concurrently.
type Env interface {
	// Log is the plugin's logger; its records carry the plugin's name.
	Log() *slog.Logger
	// Listen gives a stream listener that the core has bound.
	Listen(ctx context.Context, network, address string) (net.Listener, error)
	// ListenPacket gives a packet socket that the core has bound.
	ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error)
	// State is a private folder (0700) that survives restarts.
	State() string
	// Cover is the site that strangers see; nil where none is lent.
	Cover() http.Handler
	// Degraded reports health: nil clears an earlier reason.
	Degraded(reason error)
}
