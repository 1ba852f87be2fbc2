package pt

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/commucat/commucat/plugins/transport/pt/managed"
	"github.com/commucat/commucat/sdk"
)

// Config is the configuration of both halves; the client half usually needs none.
type Config struct {
	Command   string   `cfg:"command" doc:"path of the program; when empty, one that is known for the method"`
	Arguments []string `cfg:"arguments" max:"32" doc:"what follows the program's name on its command line"`
	Method    string   `cfg:"method" max:"64" doc:"the transport in the program; when empty it follows from the program's name (obfs4proxy: obfs4)"`

	// Server half.
	Listen    string            `cfg:"listen" default:":0" doc:"TCP address that the program listens on; port 0 is chosen once and kept"`
	Advertise string            `cfg:"advertise" doc:"host:port or :port that links name, where clients reach it otherwise (a proxy or forwarding in front)"`
	Options   map[string]string `cfg:"options" doc:"options of the method's server side, for example iat-mode = \"0\""`
	Client    map[string]string `cfg:"client_options" doc:"arguments that links give to clients beside those that the program prints, for example url = \"https://example.org/path\""`
	Extended  bool              `cfg:"extended" default:"true" doc:"the program tells the client's address (ExtORPort); false is for programs that cannot"`
	Ready     bool              `cfg:"ready" default:"true" doc:"clients begin with one byte, which the relay answers: so they know that it is there; false for clients that are not ours"`

	// Client half.
	Limit time.Duration `cfg:"dial_limit" default:"15s" min:"1s" max:"10m" doc:"client: how long a dial may take"`
	Proxy sdk.Secret    `cfg:"proxy" doc:"client: URL of a proxy that the program goes out by, if it can (socks5://…, http://…); it may hold a password"`
}

// program is what is known of the programs for a method.
type program struct {
	method         string
	server, client []string
	packages       string
}

// programs are those that distributions have. A link names a method; which program
// runs for it is decided here or in the configuration, never by the link.
func programs() []program {
	return []program{
		{"obfs4", []string{"obfs4proxy", "lyrebird"}, []string{"obfs4proxy", "lyrebird"}, "obfs4proxy"},
		{"webtunnel", []string{"webtunnel-server"}, []string{"webtunnel-client", "lyrebird"}, "webtunnel"},
		{"snowflake", []string{"snowflake-server"}, []string{"snowflake-client"}, "snowflake-client"},
		{"meek_lite", []string{"obfs4proxy", "lyrebird"}, []string{"obfs4proxy", "lyrebird"}, "obfs4proxy"},
		{"scramblesuit", []string{"obfs4proxy"}, []string{"obfs4proxy"}, "obfs4proxy"},
	}
}

// method is the transport's name in the program.
func (c *Config) method() string {
	if c.Method != "" {
		return c.Method
	}
	base := filepath.Base(c.Command)
	for _, p := range programs() {
		if slices.Contains(p.server, base) || slices.Contains(p.client, base) {
			return p.method
		}
	}
	if c.Command == "" {
		return "obfs4"
	}
	return ""
}

// find looks a program up.
func (c *Config) find(method string, client bool) (string, error) {
	missing := func(text string) error {
		return &sdk.Error{Kind: sdk.NotFound, Op: "command", Text: text}
	}
	var names []string
	hint := ""
	if i := slices.IndexFunc(programs(), func(p program) bool { return p.method == method }); i >= 0 {
		p := programs()[i]
		names, hint = p.server, "; install the package "+p.packages
		if client {
			names = p.client
		}
	}
	if c.Command != "" {
		path, ok := look(c.Command)
		if !ok {
			return "", missing(fmt.Sprintf("there is no program %s that could be started%s", c.Command, hint))
		}
		return path, nil
	}
	for _, name := range names {
		if path, ok := look(name); ok {
			return path, nil
		}
	}
	if len(names) == 0 {
		return "", missing(fmt.Sprintf("no program is known for %q; name it by command", method))
	}
	return "", missing(fmt.Sprintf("%s is not installed%s, or name the program by command", strings.Join(names, " or "), hint))
}

// usual is where programs lie when the environment does not say it: a plugin's process
// has next to none.
const usual = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"

// look finds a program by name or path.
func look(name string) (string, bool) {
	path, err := exec.LookPath(name)
	if err != nil && os.Getenv("PATH") == "" && !strings.ContainsRune(name, filepath.Separator) {
		for _, dir := range filepath.SplitList(usual) {
			if path, err = exec.LookPath(filepath.Join(dir, name)); err == nil {
				break
			}
		}
	}
	if err != nil {
		return "", false
	}
	path, err = filepath.Abs(path)
	return path, err == nil
}

// Check implements sdk.Checker.
func (c *Config) Check() error {
	var errs sdk.ConfigErrors
	wrong := func(key, format string, args ...any) {
		errs = append(errs, &sdk.ConfigError{Key: key, Text: fmt.Sprintf(format, args...)})
	}
	switch m := c.method(); {
	case m == "":
		wrong("method", "is required: which transport of %s is it?", filepath.Base(c.Command))
	case !managed.ValidMethod(m):
		wrong("method", "%q is no name of a pluggable transport: a-z A-Z 0-9 _", m)
	}
	if _, err := parseListen(c.Listen); err != nil {
		wrong("listen", "%v", err)
	}
	if c.Advertise != "" {
		if _, port, err := net.SplitHostPort(c.Advertise); err != nil || !validPort(port) {
			wrong("advertise", "write it as host:port or :port")
		}
	}
	if !c.Proxy.IsZero() {
		if u, err := url.Parse(c.Proxy.Text()); err != nil || u.Host == "" || !slices.Contains([]string{"http", "socks5", "socks4a"}, u.Scheme) {
			wrong("proxy", "must be a URL of the form socks5://host:port, socks4a://… or http://…")
		}
	}
	for key, table := range map[string]map[string]string{"options": c.Options, "client_options": c.Client} {
		if _, err := managed.ParseArgs(argsOf(table).Encode(managed.Comma), managed.Comma); err != nil {
			wrong(key, "%v", err)
		}
	}
	if len(errs) > 0 {
		return errs
	}
	return nil
}

func validPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

// parseListen reads "address:port" or ":port", which is every address: IPv6's, which
// takes IPv4 as well.
func parseListen(s string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%q is not of the form address:port", s)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%q is no port", port)
	}
	addr := netip.IPv6Unspecified()
	if host != "" {
		if addr, err = netip.ParseAddr(host); err != nil {
			return netip.AddrPort{}, fmt.Errorf("%q is no IP address", host)
		}
	}
	return netip.AddrPortFrom(addr, uint16(n)), nil
}

// argsOf sorts a table into arguments.
func argsOf(table map[string]string) managed.Args {
	var out managed.Args
	for k, v := range table {
		out = append(out, managed.Arg{Key: k, Value: v})
	}
	slices.SortFunc(out, func(a, b managed.Arg) int { return strings.Compare(a.Key, b.Key) })
	return out
}
