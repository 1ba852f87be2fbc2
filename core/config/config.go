package config

import (
	"net/netip"
	"time"

	"github.com/commucat/commucat/sdk"
)

// Config is the whole configuration. The order of fields is the order of the
// sample file and of the reference page. It is not changed after Load.
type Config struct {
	Server     Server               `cfg:"server" doc:"The public listeners and where the relay keeps its data."`
	Relay      Relay                `cfg:"relay" doc:"Who may have an account and who may write to whom."`
	TLS        TLS                  `cfg:"tls" doc:"The certificate of the public listeners. Without one the relay makes a self-signed certificate, which links pin."`
	Cover      Cover                `cfg:"cover" doc:"The web site that everybody sees who has no link: a folder, another server, or the small built-in site when neither is given."`
	Limits     Limits               `cfg:"limits" doc:"What one device, one account, one network and the relay as a whole may use."`
	Storage    Storage              `cfg:"storage" doc:"Where accounts and queued messages are stored. The backend's own keys stand in this section too."`
	Ledger     Ledger               `cfg:"ledger" doc:"Where the audit records of security and operator events go. A ledger's own keys stand in [ledger.NAME]."`
	Noise      Noise                `cfg:"noise" doc:"The relay's Noise keys."`
	Pairing    Pairing              `cfg:"pairing" doc:"Adding a device to an account by a code."`
	Federation Federation           `cfg:"federation" doc:"Other relays."`
	Admin      Admin                `cfg:"admin" doc:"Operation of the running relay. The unix socket is always there; TCP only if configured."`
	Compat     Compat               `cfg:"compat" doc:"What clients of the reference implementation need. Every switch costs a promise; doctor names it. All are off by default."`
	Log        Log                  `cfg:"log" doc:"What is written to standard error."`
	Transports map[string]Transport `cfg:"transport" doc:"One table for each transport: [transport.NAME]. The transport's own keys stand in it too."`
	Plugins    map[string]Plugin    `cfg:"plugin" doc:"One table for each plugin that runs as a process: [plugin.NAME]. The keys of a plugin that is named elsewhere and has no table of its own stand in it too."`

	// File is the file that was read, "" when none.
	File string
	raw  map[string]any
}

// Server is [server].
type Server struct {
	Listen          []Address      `cfg:"listen" default:":8443" min:"1" max:"64" doc:"TCP addresses of the public listeners; port 0 takes a free one"`
	Domain          Domain         `cfg:"domain" default:"localhost" doc:"name of the relay; it enters every proof, so a change makes every link and certificate useless"`
	Data            Path           `cfg:"data" doc:"data folder; when empty $STATE_DIRECTORY, else commucat in the XDG state folder"`
	ConnectPath     URLPath        `cfg:"connect_path" doc:"path of our clients' requests; when empty it is drawn at the first start and kept in the data folder"`
	Cookie          string         `cfg:"cookie" max:"32" doc:"name of the cookie that carries entry tokens; when empty it is drawn at the first start"`
	PublicEndpoints []Address      `cfg:"public_endpoints" max:"8" doc:"addresses that links name; when empty the domain with the port of the first listener"`
	TrustedProxies  []netip.Prefix `cfg:"trusted_proxies" doc:"networks whose X-Forwarded-For is believed; what comes from elsewhere is ignored"`
	Keepalive       time.Duration  `cfg:"keepalive" default:"60s" min:"30s" max:"1h" doc:"longest silence of a session before the relay sends something"`
	Drain           time.Duration  `cfg:"drain" default:"20s" max:"10m" doc:"how long a stopping relay waits for its sessions"`
}

// Relay is [relay].
type Relay struct {
	Registration string `cfg:"registration" default:"invite" enum:"invite,open,closed" doc:"how an account begins: with an invitation link, freely, or not at all"`
	Contact      string `cfg:"contact" default:"auto" enum:"auto,members,friends" doc:"whom an account may write to first: any account of this relay, or friends only; auto is members, and friends with open registration"`
	Announce     bool   `cfg:"announce_transports" default:"true" doc:"devices learn the plugin transports of this relay when they connect, so that a new one reaches those that have no link with it; false: links alone name them"`
}

// TLS is [tls].
type TLS struct {
	Cert Path `cfg:"cert" doc:"certificate chain, PEM; read again when the file changes"`
	Key  Path `cfg:"key" doc:"private key, PEM"`
}

// Cover is [cover].
type Cover struct {
	Site   Path `cfg:"site" doc:"folder with the files of the site"`
	Origin URL  `cfg:"origin" doc:"server that answers instead, for example http://127.0.0.1:8080"`
	// AltSvc is RFC 7838's.
	AltSvc string `cfg:"alt_svc" max:"256" doc:"value of the Alt-Svc header of every answer, where a transport shows the same site over HTTP/3; for example h3=\":443\"; ma=2592000. Leave it out where the origin sends one"`
}

// Limits is [limits].
type Limits struct {
	QueueMessages    uint32        `cfg:"queue_messages" default:"10000" min:"1" max:"10000000" doc:"messages waiting for one device; then its senders get full"`
	QueueBytes       sdk.Size      `cfg:"queue_bytes" default:"64MiB" min:"17MiB" max:"1TiB" doc:"bytes waiting for one device; then its senders get full"`
	RelayTTL         time.Duration `cfg:"relay_ttl" default:"14d" min:"1m" max:"365d" doc:"how long a message waits for its device"`
	PresenceTTL      time.Duration `cfg:"presence_ttl" default:"60s" min:"15s" max:"1h" doc:"after this silence a device counts as offline; routes are renewed three times as often"`
	NewContacts      uint32        `cfg:"new_contacts" default:"60" doc:"accounts that an account may write to for the first time, each day"`
	Devices          uint8         `cfg:"devices" default:"16" min:"1" max:"16" doc:"devices of one account"`
	Sessions         uint32        `cfg:"sessions" default:"20000" min:"1" max:"10000000" doc:"live sessions of the relay; further devices wait, unless they are connected already"`
	LargeFrames      sdk.Size      `cfg:"large_frames" default:"64MiB" min:"16MiB" max:"1TiB" doc:"memory for frames over 1 MiB, of all sessions together"`
	HandshakeTimeout time.Duration `cfg:"handshake_timeout" default:"10s" min:"1s" max:"1m" doc:"from accept to the proven device; varied by a tenth"`
	HandshakeRate    uint32        `cfg:"handshake_rate" default:"60" min:"1" doc:"new connections a minute from one IPv4 address or IPv6 /64"`
	HandshakeBurst   uint32        `cfg:"handshake_burst" default:"30" min:"1" doc:"new connections at once from one IPv4 address or IPv6 /64"`
	NetworkFactor    uint32        `cfg:"network_factor" default:"8" min:"1" max:"256" doc:"how many times that an IPv4 /24 or IPv6 /48 may use"`
	Pending          uint32        `cfg:"pending" default:"4096" min:"16" doc:"connections of the relay that have not proved a device yet"`
	PendingPerSource uint32        `cfg:"pending_per_source" default:"64" min:"1" doc:"the same from one IPv4 address or IPv6 /64"`
	HTTPRate         uint32        `cfg:"http_rate" default:"600" min:"1" doc:"REST requests a minute from one IPv4 address or IPv6 /64"`
	HTTPBurst        uint32        `cfg:"http_burst" default:"60" min:"1" doc:"REST requests at once from one IPv4 address or IPv6 /64"`
}

// Storage is [storage].
type Storage struct {
	Backend  string         `cfg:"backend" default:"sqlite" doc:"storage of accounts and messages"`
	Volatile string         `cfg:"volatile" default:"memory" doc:"storage of routes, presence and short-lived values; its keys stand in [plugin.NAME]"`
	Keys     map[string]any `cfg:"*"`
}

// Ledger is [ledger].
type Ledger struct {
	Backends []string       `cfg:"backends" default:"file" max:"4" doc:"ledgers that get every record; an empty list keeps none"`
	Keys     map[string]any `cfg:"*"`
}

// Noise is [noise].
type Noise struct {
	Prologue string        `cfg:"prologue" default:"commucat" max:"255" doc:"text that both sides mix into the handshake; clients must have the same"`
	Rotate   time.Duration `cfg:"rotate" default:"30d" min:"1d" max:"365d" doc:"age at which a new key is made"`
	Grace    time.Duration `cfg:"grace" default:"30d" min:"1d" max:"730d" doc:"how long the old key is still accepted"`
}

// Pairing is [pairing].
type Pairing struct {
	TTL       time.Duration `cfg:"ttl" default:"5m" min:"1m" max:"1h" doc:"life of a code, and the longest that a device may ask for"`
	Tries     uint8         `cfg:"tries" default:"5" min:"1" max:"20" doc:"wrong tries after which a code ends"`
	PerPrefix uint32        `cfg:"per_prefix" default:"5" min:"1" doc:"tries a minute from one network"`
	PerMinute uint32        `cfg:"per_minute" default:"60" min:"1" doc:"tries a minute of the whole relay"`
}

// Federation is [federation].
type Federation struct {
	Listen Address `cfg:"listen" doc:"TCP address of its own listener; empty is off"`
}

// Admin is [admin].
type Admin struct {
	Socket Path       `cfg:"socket" doc:"unix socket, for the relay's own user and root; when empty admin.sock in the data folder"`
	Listen Address    `cfg:"listen" doc:"additional TCP address on the loopback interface"`
	Token  sdk.Secret `cfg:"token" min:"16" doc:"bearer token of the TCP address"`
}

// Compat is [compat]. After Load the switches hold what is in force: reference
// has set the others unless the file says false for one of them.
type Compat struct {
	Reference    bool `cfg:"reference" doc:"everything that the unmodified reference client needs: the switches below but public_health, and registration = \"open\", each unless it is set explicitly"`
	ConnectPath  bool `cfg:"connect_path" doc:"accept the reference's requests on /connect, without an entry token"`
	ClearFrames  bool `cfg:"clear_frames" doc:"accept and send frames without encryption of their own after the handshake"`
	PublicAPI    bool `cfg:"public_api" doc:"answer /api without an entry token, with short pairing codes and the REST claim"`
	OpenChannels bool `cfg:"open_channels" doc:"channel ids are global: who joins one is reachable there"`
	PinnedKeys   bool `cfg:"pinned_keys" doc:"keep the first Noise key for ever"`
	PublicHealth bool `cfg:"public_health" doc:"answer health checks and metrics on the public listener"`
}

// Log is [log].
type Log struct {
	Level     string `cfg:"level" default:"info" enum:"debug,info,warn,error" doc:"least severe records written"`
	Format    string `cfg:"format" default:"text" enum:"text,json" doc:"form of a record"`
	Addresses string `cfg:"addresses" default:"short" enum:"none,short,full" doc:"how much of a client's address is written beside a refused handshake (level debug); short is the network only"`
}

// Transport is one [transport.NAME].
type Transport struct {
	Enabled bool           `cfg:"enabled" default:"true" doc:"whether it is started"`
	Plugin  string         `cfg:"plugin" doc:"plugin that provides it; when empty the one called NAME"`
	Keys    map[string]any `cfg:"*"`
}

// Plugin is one [plugin.NAME]: how the process of a plugin is confined, and the
// plugin's own keys where it has no table elsewhere.
type Plugin struct {
	Sandbox string         `cfg:"sandbox" default:"on" enum:"on,best-effort" doc:"where the kernel cannot confine it (Landlock, seccomp): refuse the plugin, or run it all the same"`
	Memory  sdk.Size       `cfg:"memory" default:"1GiB" min:"64MiB" max:"1TiB" doc:"private memory of its process"`
	Read    []Path         `cfg:"read" max:"32" doc:"further files and folders that its process may read"`
	Write   []Path         `cfg:"write" max:"32" doc:"further files and folders that its process may read and write"`
	Keys    map[string]any `cfg:"*"`
}

// ContactPolicy is contact with auto resolved: "members" or "friends".
func (r Relay) ContactPolicy() string {
	switch {
	case r.Contact != "auto":
		return r.Contact
	case r.Registration == "open":
		return "friends"
	}
	return "members"
}

// Enabled reports whether a transport that needs no table is wanted: true unless
// its table says otherwise.
func (c *Config) Enabled(transport string) bool {
	t, ok := c.Transports[transport]
	return !ok || t.Enabled
}

// Process is how the process of a plugin is confined: its table, or the defaults.
func (c *Config) Process(plugin string) Plugin {
	if p, ok := c.Plugins[plugin]; ok {
		return p
	}
	var p Plugin
	sdk.Defaults(&p)
	return p
}

// PluginOf is the plugin that provides a transport.
func (c *Config) PluginOf(transport string) string {
	if t := c.Transports[transport]; t.Plugin != "" {
		return t.Plugin
	}
	return transport
}

// Bare is a raw table without the places of its values, for comparing.
func Bare(raw map[string]any) map[string]any {
	m, _ := bare(raw).(map[string]any)
	return m
}

// Default is the configuration without a file and an environment.
func Default() *Config {
	c := new(Config)
	sdk.Defaults(c)
	return c
}
