package main

import (
	"net/http"

	"github.com/commucat/commucat/core/config"
	"github.com/commucat/commucat/core/server"
	"github.com/commucat/commucat/plugins/ledger/debug"
	"github.com/commucat/commucat/plugins/ledger/file"
	"github.com/commucat/commucat/plugins/ledger/null"
	"github.com/commucat/commucat/plugins/storage/memory"
	"github.com/commucat/commucat/plugins/storage/sqlite"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
	"github.com/commucat/commucat/transports/compat"
	"github.com/commucat/commucat/transports/cover"
	"github.com/commucat/commucat/transports/http2"
	"github.com/commucat/commucat/transports/longpoll"
	"github.com/commucat/commucat/transports/sse"
	"github.com/commucat/commucat/transports/websocket"
)

// plugins are the compiled-in storages and ledgers.
func plugins() []sdk.Plugin {
	return []sdk.Plugin{sqlite.Plugin(), memory.Plugin(), file.Plugin, debug.Plugin, null.Plugin}
}

// known is what the configuration may name.
func known() []config.Known { return append(builtInKnown(), listed()...) }

// builtInKnown is what the program has without the catalog.
func builtInKnown() []config.Known {
	var out []config.Known
	for _, p := range plugins() {
		out = append(out, config.Known{Plugin: p, Kind: p.Kind(), Name: p.Name()})
	}
	for _, name := range builtIn() {
		out = append(out, config.Known{Kind: sdk.Transport, Name: name})
	}
	return out
}

// builtIn are the transports on the public HTTPS port.
func builtIn() []string { return []string{http2.Name, websocket.Name, sse.Name, longpoll.Name} }

// connectPath is where the reference's clients connect.
const connectPath = "/connect"

// webs are the server halves of the built-in transports.
func webs(o server.WebOptions) []transport.Web {
	var out []transport.Web
	for _, w := range []struct {
		name string
		make func() transport.Web
	}{
		{http2.Name, func() transport.Web {
			return http2.New(http2.Options{Path: o.Path, Cookie: o.Cookie, Verify: o.Verify, Cover: o.Cover})
		}},
		{websocket.Name, func() transport.Web {
			return websocket.New(websocket.Options{Path: o.Path, Cookie: o.Cookie, Verify: o.Verify, Cover: o.Cover})
		}},
		{sse.Name, func() transport.Web {
			return sse.New(sse.Options{Path: o.Path, Cookie: o.Cookie, Verify: o.Verify, Cover: o.Cover})
		}},
		{longpoll.Name, func() transport.Web {
			return longpoll.New(longpoll.Options{Path: o.Path, Cookie: o.Cookie, Verify: o.Verify, Cover: o.Cover})
		}},
	} {
		if o.Enabled(w.name) {
			out = append(out, w.make())
		}
	}
	if o.Compat {
		out = append(out, compat.New(compat.Options{Path: connectPath, KeepAlive: compat.Interval(o.Keepalive), Cover: o.Cover}))
	}
	return out
}

func coverSite(o server.CoverOptions) (http.Handler, error) {
	return cover.New(cover.Options{Folder: o.Folder, Origin: o.Origin, Cookie: o.Cookie, Domain: o.Domain, Log: o.Log})
}
