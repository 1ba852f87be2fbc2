package house

// A pattern names packages: "core/relay" itself, "core/..." it and everything below,
// "std:net" the standard library's, any other first part with a dot an outside
// module. Paths of the house are relative to the module.

// edge allows the packages of from to import those of to.
type edge struct{ from, to, why string }

// floors are the edges between the parts of the house. What is not here is forbidden.
var floors = []edge{
	{"sdk/...", "sdk/...", "the ground: it stands on nothing of the house but itself"},
	{"transports/...", "sdk/...", "built-in transports use what every author has"},
	{"transports/...", "transports/internal/...", "request forms that several built-in transports share"},
	{"plugins/...", "sdk/...", "our plugins have no privilege over an outsider's"},
	{"plugins/transport/amnesiawg/...", "plugins/transport/amnesiawg/...", "parts of one plugin"},
	{"plugins/transport/pt/...", "plugins/transport/pt/...", "parts of one plugin"},
	{"plugins/transport/onion/...", "plugins/transport/onion/...", "parts of one plugin"},
	{"plugins/transport/...", "plugins/transport/internal/...", "what transports share whose bytes another program carries"},
	{"core/...", "sdk/...", "the relay speaks the protocol and drives the three plugin kinds"},
	{"cmd/...", "sdk/...", "programs join the parts"},
	{"cmd/...", "core/...", "programs join the parts"},
	{"cmd/...", "transports/...", "programs choose what is built in"},
	{"cmd/...", "plugins/...", "programs choose what is compiled in"},
	{"cmd/...", "cmd/...", "packages of one program"},
	{"examples/...", "sdk/...", "what an outsider would import"},
	{"examples/...", "transports/...", "a client program names its dialers"},
	{"examples/...", "plugins/...", "a program names its plugins"},
}

// inside are the edges within core. What is not here is forbidden: a new one needs a
// line and a reason.
var inside = []edge{
	{"core/server", "core/...", "composition root: it makes every part and hands it to the others"},
	{"core/front", "core/admission", "asked at accept, before TLS"},
	{"core/front", "core/internal/crew", "TLS handshakes run on goroutines that keep their stacks"},
	{"core/front", "core/metrics", "counts what the listeners see"},
	{"core/admission", "core/metrics", "counts what is refused"},
	{"core/session", "core/relay", "an established session hands its frames over"},
	{"core/session", "core/internal/crew", "handshakes run on goroutines that keep their stacks"},
	{"core/session", "core/account", "the handshake ends in one transaction of the account"},
	{"core/session", "core/admission", "public-key work waits for its turn, and the deadline is lifted"},
	{"core/session", "core/metrics", "counts handshakes and sessions"},
	{"core/session", "core/keyring", "the keys a handshake is answered with"},
	{"core/session", "core/pairing", "a code is claimed inside the handshake"},
	{"core/relay", "core/metrics", "counts messages and queues"},
	{"core/relay", "core/call", "call frames are checked by their own subject"},
	{"core/pairing", "core/account", "a claimed code adds a device to an account"},
	{"core/keyring", "core/metrics", "counts rotations"},
	{"core/api", "core/account", "REST is another way to the same operations"},
	{"core/api", "core/pairing", "codes by REST"},
	{"core/doctor", "core/keyring", "reads a stopped relay's keys as its start would"},
	{"core/api", "core/keyring", "server information shows the catalogue"},
	{"core/api", "core/admission", "request limits"},
	{"core/api", "core/metrics", "serves them"},
	{"core/api", "core/relay", "presence and depth of queues"},
	{"core/api", "core/audit", "operator requests are recorded"},
	{"core/federation", "core/metrics", "counts peers"},
	{"core/demo", "core/server", "runs a relay in the process"},
	{"core/demo", "core/config", "makes that relay's configuration"},
	{"core/bench", "core/server", "runs a relay in the process"},
	{"core/bench", "core/config", "makes that relay's configuration"},
	{"core/probe", "core/config", "reads what the compared server is meant to show"},
	{"core/reference", "core/account", "what is imported becomes accounts by their own rules"},
	{"core/reference", "core/relay", "imported messages are sealed as the relay's own, groups are its records"},
	{"core/doctor", "core/config", "looks at what is configured"},
	{"core/pluginhost", "core/metrics", "counts restarts"},
}

// ban forbids an import whatever the tables above allow: the right-hand column of
// architecture section 3, line by line.
type ban struct{ from, not, why string }

var bans = []ban{
	{"sdk/ccp", "sdk/...", "the wire format depends on the standard library alone"},
	{"sdk/ccp", "outside", "the wire format depends on the standard library alone"},
	{"sdk/identity", "std:net", "identities know no network"},
	{"sdk/identity", "sdk/storage/...", "identities know no storage"},
	{"sdk/identity", "std:database/sql", "identities know no storage"},
	{"sdk/noise", "std:net", "handshakes are bytes in, bytes out"},
	{"sdk/noise", "sdk/storage/...", "no cipher state is ever stored"},
	{"sdk/noise", "std:database/sql", "no cipher state is ever stored"},
	{"sdk/client", "core/...", "a client program must not carry the relay"},
	{"sdk/client", "sdk/host/...", "gRPC must not reach an app; dialers come in Options"},
	{"sdk/client", "sdk/plugin", "gRPC must not reach an app"},
	{"sdk/client", "transports/...", "the program chooses what it links"},
	{"sdk", "sdk/...", "what all kinds share stands on none of them"},
	{"sdk", "core/...", "what all kinds share stands on nothing of the house"},
	{"sdk/plugin", "core/...", "a plugin binary does not carry the relay"},
	{"sdk/transport/...", "google.golang.org/grpc", "the contract is made of standard library types"},
	{"sdk/transport/...", "github.com/hashicorp/go-plugin", "the contract is made of standard library types"},
	{"sdk/transport/...", "std:database/sql", "the contract is made of standard library types"},
	{"sdk/storage/...", "google.golang.org/grpc", "the contract is made of standard library types"},
	{"sdk/storage/...", "github.com/hashicorp/go-plugin", "the contract is made of standard library types"},
	{"sdk/storage/...", "std:database/sql", "the contract is made of standard library types"},
	{"sdk/ledger/...", "google.golang.org/grpc", "the contract is made of standard library types"},
	{"sdk/ledger/...", "github.com/hashicorp/go-plugin", "the contract is made of standard library types"},
	{"sdk/ledger/...", "std:database/sql", "the contract is made of standard library types"},
	{"sdk/plugintest", "core/...", "an author tests without the relay"},
	{"sdk/host/...", "core/...", "programs host plugins without the relay"},
	{"sdk/internal/wire/...", "core/...", "adapters know the kinds, not the relay"},
	{"core/front", "transports/...", "handlers are given to it"},
	{"core/front", "plugins/...", "handlers are given to it"},
	{"core/front", "core/session", "it hands connections over by a function"},
	{"core/front", "core/relay", "it hands connections over by a function"},
	{"core/admission", "std:encoding/json", "limits are charged before anything is parsed"},
	{"core/admission", "sdk/ccp", "limits are charged before anything is parsed"},
	{"core/admission", "sdk/noise", "limits are charged before anything is parsed"},
	{"core/session", "transports/...", "a session is a net.Conn"},
	{"core/session", "plugins/...", "storage is an interface"},
	{"core/session", "std:net/http", "a session knows no HTTP"},
	{"core/relay", "std:net", "the relay knows sessions as Outbox"},
	{"core/relay", "std:crypto/tls", "the relay knows sessions as Outbox"},
	{"core/relay", "std:net/http", "the relay knows sessions as Outbox"},
	{"core/relay", "core/session", "the arrow points the other way"},
	{"core/pairing", "core/federation", "subjects do not know each other"},
	{"core/pairing", "core/call", "subjects do not know each other"},
	{"core/federation", "core/pairing", "subjects do not know each other"},
	{"core/federation", "core/call", "subjects do not know each other"},
	{"core/call", "core/pairing", "subjects do not know each other"},
	{"core/call", "core/federation", "subjects do not know each other"},
	{"core/audit", "core/relay", "audit records are not made by routing"},
	{"core/audit", "core/session", "audit records are not made by routing"},
	{"core/pluginhost", "transports/...", "policy over sdk/host, not over one plugin"},
	{"core/pluginhost", "plugins/...", "policy over sdk/host, not over one plugin"},
	{"core/pluginhost", "core/relay", "policy over sdk/host, not over messages"},
	{"core/config", "core/...", "reading a file starts nothing"},
	{"core/api", "std:database/sql", "handlers use the account's operations"},
	{"core/api", "plugins/...", "handlers know no driver"},
	{"core/api", "transports/...", "handlers know no transport"},
	{"core/server", "transports/...", "they arrive in Options"},
	{"core/server", "plugins/...", "they arrive in Options"},
	{"core/...", "transports/...", "core and transports stand beside each other"},
	{"core/...", "plugins/...", "core and plugins stand beside each other"},
	{"transports/...", "core/...", "core and transports stand beside each other"},
	{"transports/...", "plugins/...", "transports and plugins stand beside each other"},
	{"plugins/...", "core/...", "our plugins have no privilege"},
	{"plugins/...", "transports/...", "transports and plugins stand beside each other"},
}

// only names the packages that alone may import something.
type only struct {
	what string
	by   []string
	why  string
}

var onlys = []only{
	{"sdk/internal/wire/...", []string{"sdk/plugin", "sdk/host/...", "sdk/internal/wire/..."}, "Go's rule would let all of sdk in"},
	{"transports/internal/...", []string{"transports/..."}, "shared request forms are no API"},
}

// modules are the outside modules and who may use them. A module without a line is
// forbidden: gRPC, drivers and stacks must not reach programs that do not need them.
var modules = []only{
	{"filippo.io/age", []string{"core/backup", "cmd/commucat"}, "encryption of backups to public keys"},
	{"filippo.io/edwards25519", []string{"sdk/identity"}, "proof of possession"},
	{"github.com/charmbracelet/bubbletea", []string{"cmd/..."}, "terminal chat"},
	{"github.com/charmbracelet/lipgloss", []string{"cmd/..."}, "terminal chat"},
	{"github.com/cloudflare/circl", []string{"sdk/noise", "sdk/identity"}, "X25519 and ML-KEM"},
	{"github.com/cockroachdb/pebble/v2", []string{"plugins/storage/sqlite"}, "queues beside the database"},
	{"github.com/coder/websocket", []string{"transports/...", "cmd/..."}, "WebSocket"},
	{"github.com/coreos/go-systemd/v22", []string{"cmd/...", "core/server"}, "notify and socket activation"},
	{"github.com/elastic/go-seccomp-bpf", []string{"core/pluginhost/sandbox"}, "system calls that a plugin may not make"},
	{"github.com/flynn/noise", []string{"sdk/noise"}, "Noise"},
	{"github.com/hashicorp/go-hclog", []string{"sdk/plugin", "sdk/host"}, "what go-plugin logs with"},
	{"github.com/hashicorp/go-plugin", []string{"sdk/plugin", "sdk/host/..."}, "start of and control connection to plugin processes"},
	{"github.com/jackc/pgx/v5", []string{"plugins/storage/postgres"}, "PostgreSQL"},
	{"github.com/klauspost/compress", []string{"plugins/storage/..."}, "compression of what is stored sealed is useless; of directories it is not"},
	{"github.com/landlock-lsm/go-landlock", []string{"core/pluginhost/sandbox"}, "files and ports that a plugin may use"},
	{"github.com/mattn/go-isatty", []string{"cmd/..."}, "terminal output"},
	{"github.com/pelletier/go-toml/v2", []string{"core/config", "cmd/..."}, "configuration"},
	{"github.com/prometheus/client_golang", []string{"core/metrics", "core/api"}, "metrics"},
	{"github.com/cretz/bine", []string{"plugins/transport/onion"}, "tor's control protocol"},
	{"github.com/dunglas/httpsfv", []string{"plugins/transport/masque"}, "structured header fields"},
	{"github.com/quic-go/quic-go", []string{"plugins/transport/masque"}, "QUIC and HTTP/3"},
	{"github.com/redis/go-redis/v9", []string{"plugins/storage/redis"}, "Redis"},
	{"github.com/refraction-networking/utls", []string{"transports/...", "plugins/transport/masque", "plugins/transport/reality"}, "a browser's ClientHello"},
	{"github.com/yosida95/uritemplate/v3", []string{"plugins/transport/masque"}, "URI templates of proxies"},
	{"github.com/rogpeppe/go-internal", []string{"cmd/..."}, "testscript"},
	{"github.com/spf13/cobra", []string{"cmd/..."}, "command line"},
	{"github.com/spf13/pflag", []string{"cmd/..."}, "command line"},
	{"github.com/xtls/reality", []string{"plugins/transport/reality"}, "TLS that copies a cover's records"},
	{"go.etcd.io/bbolt", []string{"plugins/storage/sqlite", "cmd/...", "sdk/client"}, "embedded table"},
	{"golang.org/x/crypto", []string{"sdk/...", "core/...", "transports/internal/...", "plugins/transport/amnesiawg/..."}, "ChaCha20-Poly1305, HKDF"},
	{"golang.org/x/mod", []string{"sdk/ledger/tiles", "plugins/ledger/tlog"}, "Merkle trees and signed notes of transparency logs"},
	{"golang.org/x/net", []string{"core/...", "transports/...", "plugins/transport/masque", "plugins/transport/reality", "plugins/transport/pt/managed", "plugins/transport/onion"}, "HTTP/2 frames, batches of packets, SOCKS5"},
	{"golang.org/x/sys", []string{"core/...", "plugins/...", "sdk/...", "cmd/..."}, "system calls"},
	{"golang.org/x/term", []string{"cmd/..."}, "terminal chat"},
	{"golang.org/x/text", []string{"core/account", "sdk/identity", "cmd/..."}, "normal form of names; how wide a character is on a terminal"},
	{"golang.zx2c4.com/wireguard", []string{"plugins/transport/amnesiawg/..."}, "WireGuard"},
	{"google.golang.org/grpc", []string{"sdk/plugin", "sdk/host/...", "sdk/internal/wire/..."}, "control of plugin processes"},
	{"google.golang.org/protobuf", []string{"sdk/internal/wire/..."}, "control of plugin processes"},
	{"gvisor.dev/gvisor", []string{"plugins/transport/amnesiawg/internal/inner"}, "TCP in user space"},
	{"lukechampine.com/blake3", []string{"sdk/identity", "core/..."}, "the reference's digests"},
	{"modernc.org/sqlite", []string{"plugins/storage/sqlite"}, "embedded database"},
	{"rsc.io/qr", []string{"cmd/..."}, "QR codes"},
}

// testModules may be imported by every test, and by the packages named otherwise.
var testModules = []only{
	{"github.com/google/go-cmp", []string{"sdk/plugintest"}, "comparing values"},
	{"go.uber.org/goleak", []string{"sdk/plugintest"}, "leaked goroutines"},
	{"pgregory.net/rapid", []string{"sdk/plugintest"}, "random operations against a model"},
	{"github.com/rogpeppe/go-internal", nil, "testscript"},
	{"github.com/refraction-networking/utls", nil, "fingerprints as a client shows them"},
	{"golang.org/x/mod", nil, "keys of transparency logs"},
	{"golang.org/x/net", nil, "HTTP/2 frame by frame"},
	{"github.com/flynn/noise", nil, "a second opinion on handshakes"},
	{"github.com/prometheus/client_model", nil, "reading metrics back"},
	{"github.com/prometheus/common", nil, "reading metrics back"},
	{"golang.org/x/sys", nil, "looking at sockets"},
	{"go.etcd.io/bbolt", nil, "comparing stores"},
}

// testEdges are what tests may import beyond their package's own edges.
var testEdges = []edge{
	{"...", "sdk/...", "the conformance suites and the protocol"},
	{"core/...", "core/...", "a test may join parts that do not know each other"},
	{"core/...", "plugins/storage/memory", "a real store without a disk"},
	{"core/...", "plugins/storage/sqlite", "the store that crashes for real"},
	{"core/...", "plugins/ledger/...", "a real ledger"},
	{"core/...", "transports/...", "end to end through the built-in transports"},
	{"transports/...", "transports/...", "transports beside each other on one port"},
	{"plugins/...", "plugins/...", "a plugin compared with another"},
	{"sdk/...", "plugins/storage/memory", "the client against a store"},
}
