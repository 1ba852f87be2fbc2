package config

import (
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/commucat/commucat/sdk"
)

// checker finds what single keys cannot show. bad holds the keys that are known to
// be wrong already, so that one mistake gives one message.
type checker struct {
	c     *Config
	env   Env
	files sdk.Files
	bad   map[string]bool
	out   sdk.ConfigErrors
}

func (k *checker) all() sdk.ConfigErrors {
	k.server()
	k.tls()
	k.cover()
	k.admin()
	k.noise()
	k.limits()
	k.federation()
	k.tableNames()
	k.plugins()
	k.ports()
	return k.out
}

func (k *checker) add(key, format string, args ...any) {
	k.put(fault(key, sdk.Locate(k.c.raw, key), format, args...))
}

func (k *checker) put(e *sdk.ConfigError) {
	if e.Pos.IsZero() {
		e.Pos.File = k.c.File
	}
	if !k.bad[e.Key] {
		k.out = append(k.out, e)
	}
}

// near is add with the candidate that was probably meant by name.
func (k *checker) near(key, name string, candidates []string, format string, args ...any) {
	e := fault(key, sdk.Locate(k.c.raw, key), format, args...)
	e.Suggestion = sdk.Suggest(name, candidates)
	k.put(e)
}

func item(key string, i int) string { return fmt.Sprintf("%s[%d]", key, i) }

// reserved are the paths that the reference's interface answers.
var reserved = []string{"/connect", "/api", "/uploads", "/p2p", "/federation", "/healthz", "/readyz", "/metrics"}

func (k *checker) server() {
	s := k.c.Server
	for _, r := range reserved {
		if p := string(s.ConnectPath); p == r || strings.HasPrefix(p, r+"/") {
			k.add("server.connect_path", "%s is a path of the reference's interface; choose another or leave it empty", r)
		}
	}
	for i := range len(s.Cookie) {
		if c := s.Cookie[i]; (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			k.add("server.cookie", "only letters, digits, _ and - are allowed")
			break
		}
	}
	for i, p := range s.TrustedProxies {
		if p.Bits() == 0 {
			k.add(item("server.trusted_proxies", i), "%s trusts everybody: name the proxy's own network", p)
		}
	}
	for i, e := range s.PublicEndpoints {
		if e.Host() == "" || e.Port() == 0 {
			k.add(item("server.public_endpoints", i), "%q: clients need a host and a port", e)
		}
	}
}

func (k *checker) tls() {
	t := k.c.TLS
	switch {
	case t.Cert == "" && t.Key == "":
		return
	case t.Cert == "":
		k.add("tls.key", "needs tls.cert as well")
		return
	case t.Key == "":
		k.add("tls.cert", "needs tls.key as well")
		return
	}
	if k.bad["tls.cert"] || k.bad["tls.key"] {
		return
	}
	certThere, keyThere := k.readable("tls.cert", t.Cert), k.readable("tls.key", t.Key)
	if !certThere || !keyThere {
		return
	}
	_, cert, err := k.files.File(string(t.Cert))
	if err != nil {
		k.add("tls.cert", "%v", err)
		return
	}
	_, key, err := k.files.File(string(t.Key))
	if err != nil {
		k.add("tls.key", "%v", err)
		return
	}
	if _, err := tls.X509KeyPair(cert, key); err != nil {
		k.add("tls.cert", "certificate and key do not work: %s", strings.TrimPrefix(err.Error(), "tls: "))
	}
}

// readable says what is wrong with a file that has to be there.
func (k *checker) readable(key string, p Path) bool {
	if strings.HasPrefix(string(p), "credential:") {
		k.add(key, "no credentials folder: the service manager gave no CREDENTIALS_DIRECTORY")
		return false
	}
	if _, _, err := k.files.File(string(p)); err != nil {
		k.add(key, "%v", err)
		return false
	}
	return true
}

func (k *checker) cover() {
	for _, r := range k.c.Cover.AltSvc {
		if r < ' ' || r > '~' {
			k.add("cover.alt_svc", "a header holds printable ASCII characters alone")
			break
		}
	}
	c := k.c.Cover
	if c.Site != "" && c.Origin != "" {
		k.add("cover.origin", "only one of cover.site and cover.origin can be the site")
		return
	}
	if c.Site == "" || k.bad["cover.site"] {
		return
	}
	info, err := os.Stat(string(c.Site))
	var p *os.PathError
	switch {
	case errors.As(err, &p):
		k.add("cover.site", "%s: %v", c.Site, p.Err)
	case err != nil:
		k.add("cover.site", "%v", err)
	case !info.IsDir():
		k.add("cover.site", "%s: not a folder", c.Site)
	}
}

func (k *checker) admin() {
	a := k.c.Admin
	if a.Listen == "" {
		return
	}
	ip, err := netip.ParseAddr(a.Listen.Host())
	if a.Listen.Host() != "localhost" && (err != nil || !ip.IsLoopback()) {
		k.add("admin.listen", "%q is not on the loopback interface", a.Listen)
	}
	if a.Token.IsZero() && !k.bad["admin.token"] {
		k.add("admin.listen", "needs admin.token as well")
	}
}

func (k *checker) noise() {
	if n := k.c.Noise; n.Grace > 2*n.Rotate {
		k.add("noise.grace", "must be at most twice noise.rotate: no more than three keys live at once")
	}
}

func (k *checker) limits() {
	l := k.c.Limits
	if l.PendingPerSource > l.Pending {
		k.add("limits.pending_per_source", "is more than limits.pending allows to all")
	}
}

func (k *checker) federation() {
	if k.c.Federation.Listen != "" && !k.env.Federation {
		k.add("federation.listen", "this build has no federation")
	}
}

// plugins checks names against what the program has, and the plugins' own keys.
func (k *checker) plugins() {
	if k.env.Plugins == nil {
		return
	}
	c := k.c
	table, keys := "storage", c.Storage.Keys
	if len(keys) == 0 && len(c.Plugins[c.Storage.Backend].Keys) > 0 {
		table, keys = "plugin."+c.Storage.Backend, c.Plugins[c.Storage.Backend].Keys
	}
	k.named(sdk.Storage, "storage.backend", c.Storage.Backend, table, keys)
	if c.Storage.Volatile != c.Storage.Backend {
		k.named(sdk.Storage, "storage.volatile", c.Storage.Volatile, "plugin."+c.Storage.Volatile, c.Plugins[c.Storage.Volatile].Keys)
	}
	for i, name := range c.Ledger.Backends {
		keys, _ := plainTable(c.Ledger.Keys[name])
		k.named(sdk.Ledger, item("ledger.backends", i), name, "ledger."+name, keys)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Ledger.Keys)) {
		k.ledgerKey(name)
	}
	k.transports()
	for _, name := range slices.Sorted(maps.Keys(c.Plugins)) {
		if !slices.ContainsFunc(k.env.Plugins, func(p Known) bool { return p.Name == name }) {
			k.near("plugin."+name, name, k.names(0), "this build has no plugin %q", name)
		}
	}
}

// transports checks the tables of transports as plugins does.
func (k *checker) transports() {
	if k.env.Plugins == nil {
		return
	}
	c := k.c
	for _, name := range slices.Sorted(maps.Keys(c.Transports)) {
		t, key, plugin := c.Transports[name], "transport."+name, name
		if t.Plugin != "" {
			key, plugin = key+".plugin", t.Plugin
		}
		k.named(sdk.Transport, key, plugin, "transport."+name, t.Keys)
	}
}

// tableNames checks the NAME of [transport.NAME] and [plugin.NAME].
func (k *checker) tableNames() {
	for _, section := range []string{"plugin", "transport"} {
		m, _ := plainTable(k.c.raw[section])
		for _, name := range slices.Sorted(maps.Keys(m)) {
			if !validName(name) {
				k.add(section, "%q is not a name: 1 to 32 of a-z 0-9 -", name)
			}
		}
	}
}

func validName(s string) bool {
	for i := range len(s) {
		if (s[i] < 'a' || s[i] > 'z') && (s[i] < '0' || s[i] > '9') && s[i] != '-' {
			return false
		}
	}
	return s != "" && len(s) <= 32
}

// ledgerKey names a key of [ledger] that is neither its own nor a ledger's table.
func (k *checker) ledgerKey(name string) {
	key := "ledger." + name
	if _, isTable := plainTable(k.c.Ledger.Keys[name]); isTable && slices.Contains(k.names(sdk.Ledger), name) {
		return
	}
	e := fault(key, sdk.Locate(k.c.raw, key), "unknown key")
	e.Suggestion = sdk.Suggest(name, append(k.names(sdk.Ledger), "backends"))
	if l, ok := k.c.Ledger.Keys[name].(sdk.Located); ok {
		e.Pos = l.Key
	}
	k.put(e)
}

func (k *checker) names(kind sdk.Kind) []string {
	var out []string
	for _, p := range k.env.Plugins {
		if (kind == 0 || p.Kind == kind) && !slices.Contains(out, p.Name) { // built in, and in the catalog
			out = append(out, p.Name)
		}
	}
	return out
}

// named checks that a plugin is there and decodes its keys to see that they fit.
func (k *checker) named(kind sdk.Kind, key, name, table string, keys map[string]any) {
	i := slices.IndexFunc(k.env.Plugins, func(p Known) bool { return p.Kind == kind && p.Name == name })
	if i < 0 {
		k.near(key, name, k.names(kind), "this build has no %s %q; it has %s", kindName(kind), name, quoted(k.names(kind)))
		return
	}
	var cfg any = new(struct{})
	if p := k.env.Plugins[i].Plugin; p != nil {
		cfg = p.Config()
	}
	var many sdk.ConfigErrors
	errors.As(sdk.DecodeAt(table, sdk.Locate(k.c.raw, table), keys, k.files, cfg), &many)
	if check := k.env.Plugins[i].Check; check != nil {
		many = k.asked(question{check, table, cfg}, keys, many)
	}
	for _, e := range many {
		if table == "storage" && e.Suggestion == "" && strings.HasSuffix(e.Text, "unknown key") {
			e.Suggestion = sdk.Suggest(strings.TrimPrefix(e.Key, "storage."), []string{"backend", "volatile"})
		}
		k.put(e)
	}
}

func kindName(k sdk.Kind) string {
	switch k {
	case sdk.Transport:
		return "transport"
	case sdk.Storage:
		return "storage"
	case sdk.Ledger:
		return "ledger"
	}
	return "plugin"
}
