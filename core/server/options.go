package server

import (
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/commucat/commucat/core/config"
	"github.com/commucat/commucat/core/pluginhost"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/entry"
	"github.com/commucat/commucat/sdk/transport"
)

// Options are what a relay is made of. Config, Data, Webs and Cover are
// required.
type Options struct {
	Config *config.Config
	// Environment resolves file and secret references of plugin tables.
	Environment config.Env
	// Data is the data folder; it is made if it is missing.
	Data string
	// Prepare makes everything that a relay needs, for a first start that follows:
	// no public address with a port of its own is listened on, and Run fails.
	Prepare bool
	// Version is the program's, for logs and reports.
	Version string
	// Webs makes the transports that share the public port.
	Webs func(WebOptions) []transport.Web
	// Cover makes the site that strangers see.
	Cover func(CoverOptions) (http.Handler, error)
	// Plugins are the compiled-in storages and ledgers.
	Plugins []sdk.Plugin
	// BuiltIn are the names of the transports that Webs makes; other configured ones
	// are plugin processes.
	BuiltIn []string
	// Catalog finds the plugins that run as processes; nil has none.
	Catalog *pluginhost.Catalog
	// OnTransport is told when a plugin transport becomes reachable and when it stops
	// to be, one call for a transport at a time; may be nil.
	OnTransport func(pluginhost.Reachable)
	// Load reads the configuration again, for Reload; nil reloads certificates
	// alone.
	Load func() (*config.Config, error)
	// Log is the relay's logger; nil discards. Level, if set, follows log.level on
	// Reload.
	Log   *slog.Logger
	Level *slog.LevelVar
	// Collect is the pace of the garbage collector (GOGC) of this process, which is
	// slowed down while the heap is small; 0 leaves the runtime's as it is.
	Collect int
	// Clock and Rand are time.Now and crypto/rand unless set.
	Clock func() time.Time
	Rand  io.Reader
}

// WebOptions are what the server halves of the web transports need.
type WebOptions struct {
	Path, Cookie string
	Verify       func(method, path, cookie string) (entry.Stream, bool, error)
	Cover        http.Handler
	// Enabled says whether a transport is wanted.
	Enabled func(name string) bool
	// Compat asks for the reference's connect path as well.
	Compat bool
	// Keepalive is the reference's interval on that path.
	Keepalive time.Duration
}

// CoverOptions choose the cover site.
type CoverOptions struct {
	Folder string
	Origin *url.URL
	Cookie string
	Domain string
	Log    *slog.Logger
}

func (o *Options) complete() error {
	switch {
	case o.Config == nil || o.Webs == nil || o.Cover == nil:
		return errors.New("server: Config, Webs and Cover are required")
	case o.Data == "":
		return errors.New("no data folder is named")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	return nil
}

// plugin finds a compiled-in plugin by kind and name.
func (o *Options) plugin(kind sdk.Kind, name string) sdk.Plugin {
	for _, p := range o.Plugins {
		if p.Kind() == kind && p.Name() == name {
			return p
		}
	}
	return nil
}
