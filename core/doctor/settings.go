package doctor

import (
	"fmt"
	"maps"
	"os"
	"slices"
)

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// costs are the promises that the switches of [compat] cost.
var costs = []struct{ key, text string }{
	{"reference", "the unmodified reference client is served: see the switches that it sets"},
	{"connect_path", "a stranger can time that /connect is not the cover site's, and peers without extensions are admitted"},
	{"clear_frames", "frames after the handshake may be clear inside TLS: whoever ends TLS reads and changes them"},
	{"public_api", "/api answers strangers, so that the relay shows itself; short pairing codes can be guessed at, and the legacy answer to a claim carries a private key"},
	{"open_channels", "who joins a channel id is reachable there, whatever the contact policy says"},
	{"pinned_keys", "the Noise key is never replaced: one that was stolen stays good for ever"},
	{"public_health", "health and metrics answer on the public listener, so that the relay shows itself"},
}

// compat names the promise that each switch costs.
func (e *examination) compat() {
	c := e.Config.Compat
	on := map[string]bool{
		"reference": c.Reference, "connect_path": c.ConnectPath, "clear_frames": c.ClearFrames, "public_api": c.PublicAPI,
		"open_channels": c.OpenChannels, "pinned_keys": c.PinnedKeys, "public_health": c.PublicHealth,
	}
	clean := true
	for _, k := range costs {
		if on[k.key] {
			clean = false
			e.add("compat."+k.key, Weak, k.text, e.set("[compat] "+k.key+" = false"))
		}
	}
	if clean {
		e.fine("compat", "every switch is off")
	}
}

// settings looks at choices that are allowed and cost something.
func (e *examination) settings() {
	c := e.Config
	if c.Server.Domain == "localhost" && len(c.Server.PublicEndpoints) == 0 {
		e.add("server.domain", Weak, "the relay is called localhost: its links are of use on this machine only",
			"commucat init --domain NAME --data NEWFOLDER (the name enters every key: it cannot be changed later)")
	}
	if c.Cover.Site == "" && c.Cover.Origin == "" {
		e.add("cover", Weak, "strangers see the built-in site, which other relays show too", e.set(`[cover] site = "FOLDER" or origin = "URL"`))
	}
	if c.Relay.Registration == "open" {
		text := "anybody who can enter makes accounts"
		if c.Relay.ContactPolicy() == "members" {
			text += ", and may write to every account"
		}
		e.add("relay.registration", Weak, text, e.set(`[relay] registration = "invite"`))
	}
	if c.Log.Addresses == "full" {
		e.add("log.addresses", Weak, "whole addresses of clients are written to the log", e.set(`[log] addresses = "short"`))
	}
	if c.Log.Level == "debug" {
		e.add("log.level", Weak, "the log holds more than operation needs", e.set(`[log] level = "info"`))
	}
	if len(c.Ledger.Backends) == 0 || slices.Equal(c.Ledger.Backends, []string{"null"}) {
		e.add("ledger.backends", Weak, "no record is kept of registrations, revocations and purges", e.set(`[ledger] backends = ["file"]`))
	}
	if c.File != "" && !c.Admin.Token.IsZero() {
		if st, err := os.Stat(c.File); err == nil && st.Mode().Perm()&0o077 != 0 {
			e.add("admin.token", Weak, fmt.Sprintf("other users may read %s, which names a token", c.File), "chmod 600 "+c.File)
		}
	}
	if c.Storage.Backend == "memory" {
		e.add("storage.backend", Wrong, "memory keeps nothing over a restart: an acknowledgement would mean little", e.set(`[storage] backend = "sqlite"`))
	}
}
