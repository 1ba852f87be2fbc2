package reality

import (
	"crypto/ecdh"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// coverSelf is the value of "cover" for the relay's own site.
const coverSelf = "self"

const (
	maxKeys  = 4
	maxNames = 16
	maxIDs   = 256
)

// Config is the table of the transport. The client half needs none of it.
type Config struct {
	Listen      string           `cfg:"listen" default:":443" doc:"TCP address of the port that shows the cover"`
	Cover       string           `cfg:"cover" default:"self" doc:"who answers strangers: \"self\" is the relay's own site, else host:port of a site"`
	ServerNames []string         `cfg:"server_names" max:"16" doc:"names that clients show in the hello; the cover must have a certificate for each; when empty the cover's host, or the names of the certificate"`
	PrivateKey  sdk.Secret       `cfg:"private_key" doc:"X25519 private key in base64; without one it is drawn once and kept in the state folder"`
	OldKeys     []sdk.Secret     `cfg:"old_private_keys" max:"3" doc:"former private keys that links made earlier still use"`
	ShortIDs    []string         `cfg:"short_ids" max:"256" doc:"hexadecimal ids that may come; the first is put into links for everybody; without any they are drawn once and kept"`
	Rotated     transport.Moment `cfg:"rotated" doc:"when drawn keys and short ids were to be drawn anew; 'commucat transport rotate' writes it"`
	Overlap     time.Duration    `cfg:"overlap" default:"14d" max:"90d" doc:"how long former drawn ones go on to be good after that; 0s ends them at once"`
	Window      time.Duration    `cfg:"window" default:"60s" min:"10s" max:"2m" doc:"how far a client's clock may be off"`
	Fingerprint string           `cfg:"fingerprint" default:"chrome" enum:"chrome,firefox,safari,ios,edge,rotate" doc:"the browser that clients imitate, as links say"`
	Version     string           `cfg:"client_version" default:"26.7.28" doc:"the version that clients announce, as links say"`
	Certificate sdk.File         `cfg:"certificate" doc:"PEM chain of the own site, with cover = \"self\""`
	Key         sdk.Secret       `cfg:"key" doc:"PEM private key of the certificate, with cover = \"self\""`
	Roots       sdk.File         `cfg:"roots" doc:"PEM roots that the cover's certificate is checked with; the system's if not given"`
	Strangers   int              `cfg:"strangers" default:"512" min:"16" max:"65536" doc:"connections to the cover at one time; the longest silent one of the busiest network gives way"`
	FreeBytes   sdk.Size         `cfg:"stranger_bytes" default:"32MiB" doc:"what a connection to the cover may carry in one direction at full speed"`
	SlowRate    sdk.Size         `cfg:"stranger_rate" default:"4MiB" doc:"its bytes a second after that; 0 is no limit"`
	Remembered  int              `cfg:"remembered" default:"131072" min:"1024" max:"4194304" doc:"clients let in within two windows; beyond it new ones are shown the cover"`
	Force       bool             `cfg:"force" doc:"let clients in although the cover is unfit"`
}

// Check implements sdk.Checker: what is given must be well formed. What a server
// needs is asked for by settings.
func (c *Config) Check() error {
	var errs sdk.ConfigErrors
	wrong := func(key, format string, args ...any) {
		errs = append(errs, &sdk.ConfigError{Key: key, Text: fmt.Sprintf(format, args...)})
	}
	for i, id := range c.ShortIDs {
		if _, err := parseShortID(id); err != nil {
			wrong(fmt.Sprintf("short_ids[%d]", i), "%v", err)
		}
	}
	for i, n := range c.ServerNames {
		if !plainName(n) {
			wrong(fmt.Sprintf("server_names[%d]", i), "%q is not a host name in lower case with a dot in it", n)
		}
	}
	if c.Cover != coverSelf {
		if _, _, err := net.SplitHostPort(c.Cover); err != nil {
			wrong("cover", "%q is neither \"self\" nor host:port", c.Cover)
		}
		if !c.Certificate.IsZero() || !c.Key.IsZero() {
			wrong("certificate", "belongs to cover = \"self\"; another cover has its own certificate")
		}
	}
	if !c.PrivateKey.IsZero() {
		if _, err := parsePrivate(c.PrivateKey.Text()); err != nil {
			wrong("private_key", "%v", err)
		}
	}
	if !c.Rotated.IsZero() && !c.PrivateKey.IsZero() {
		wrong("rotated", "is for drawn keys, and private_key names one: write a new key file, name it in private_key, and move the old reference to old_private_keys")
	}
	for i, k := range c.OldKeys {
		if _, err := parsePrivate(k.Text()); err != nil {
			wrong(fmt.Sprintf("old_private_keys[%d]", i), "%v", err)
		}
	}
	if _, err := parseVersion(c.Version); err != nil {
		wrong("client_version", "%v", err)
	}
	if len(errs) > 0 {
		return errs
	}
	return nil
}

func plainName(n string) bool {
	return n != "" && len(n) <= 253 && n == strings.ToLower(n) && strings.Contains(n, ".") &&
		!strings.ContainsAny(n, " /:*") && !strings.HasSuffix(n, ".") && net.ParseIP(n) == nil
}

// settings are a server's configuration, checked and parsed.
type settings struct {
	Config
	keys        []serverKey // the current one first
	names       map[string]bool
	first       shortID
	certificate *tls.Certificate
	roots       *x509.CertPool // nil is the system's
}

// serverKey is a private key, the short ids that may come with it, and until when.
type serverKey struct {
	*ecdh.PrivateKey
	ids   map[shortID]bool
	until time.Time // zero is without end
}

// newSettings asks lots for the keys and the short ids that the table does not name.
func newSettings(c Config, lots func() ([]lot, error)) (*settings, error) {
	s := &settings{Config: c, names: map[string]bool{}}
	self := c.Cover == coverSelf
	if self && (c.Certificate.IsZero() || c.Key.IsZero()) {
		return nil, &sdk.ConfigError{Key: "certificate", Text: "and key are required with cover = \"self\": the site's own, publicly trusted certificate; or name another site, cover = \"host:port\""}
	}
	if err := s.readCertificates(self); err != nil {
		return nil, err
	}
	if len(c.ServerNames) == 0 {
		s.ServerNames = s.coverNames()
	}
	if len(s.ServerNames) == 0 {
		return nil, &sdk.ConfigError{Key: "server_names", Text: "must name at least one name that the cover has a certificate for; " + s.whyNoNames() +
			" and clients show host names in lower case with a dot in them, like \"www.example.org\""}
	}
	if err := s.readKeys(lots); err != nil {
		return nil, err
	}
	for _, n := range s.ServerNames {
		s.names[n] = true
	}
	return s, nil
}

// readKeys sets the keys, the ids that go with each, and the first id. What the table
// names takes the place of what is drawn.
func (s *settings) readKeys(lots func() ([]lot, error)) error {
	var drawn []lot
	if s.PrivateKey.IsZero() || len(s.ShortIDs) == 0 {
		var err error
		if drawn, err = lots(); err != nil {
			return err
		}
	}
	present := s.ShortIDs
	if len(present) == 0 {
		present = drawn[0].Value.ShortIDs
	}
	add := func(text string, ids []string, until time.Time) error {
		key, err := parsePrivate(text)
		if err != nil {
			return &sdk.ConfigError{Key: "private_key", Text: err.Error()}
		}
		k := serverKey{PrivateKey: key, ids: map[shortID]bool{}, until: until}
		for _, text := range ids {
			id, err := parseShortID(text)
			if err != nil {
				return &sdk.ConfigError{Key: "short_ids", Text: err.Error()}
			}
			k.ids[id] = true
		}
		s.keys = append(s.keys, k)
		return nil
	}
	if s.PrivateKey.IsZero() {
		for _, l := range drawn {
			ids := present
			if len(s.ShortIDs) == 0 {
				ids = l.Value.ShortIDs
			}
			if err := add(l.Value.PrivateKey, ids, l.Until); err != nil {
				return err
			}
		}
	} else if err := add(s.PrivateKey.Text(), present, time.Time{}); err != nil {
		return err
	}
	for _, k := range s.OldKeys {
		if err := add(k.Text(), present, time.Time{}); err != nil {
			return err
		}
	}
	s.first, _ = parseShortID(present[0])
	return nil
}

// coverNames are the names that the cover must have a certificate for.
func (s *settings) coverNames() (names []string) {
	if s.certificate == nil {
		if host, _, err := net.SplitHostPort(s.Cover); err == nil && plainName(host) {
			names = []string{host}
		}
		return names
	}
	for _, n := range s.certificate.Leaf.DNSNames {
		if plainName(n) && len(names) < maxNames {
			names = append(names, n)
		}
	}
	return names
}

// whyNoNames says what coverNames found instead.
func (s *settings) whyNoNames() string {
	if s.certificate == nil {
		host, _, _ := net.SplitHostPort(s.Cover)
		return fmt.Sprintf("the cover's host is %q,", host)
	}
	leaf := s.certificate.Leaf
	found := slices.Clone(leaf.DNSNames)
	for _, ip := range leaf.IPAddresses {
		found = append(found, ip.String())
	}
	if len(found) == 0 {
		return "this certificate has no subjectAltName,"
	}
	more := ""
	if len(found) > 3 {
		found, more = found[:3], " and others"
	}
	return fmt.Sprintf("this certificate is for %q%s,", found, more)
}

func (s *settings) readCertificates(self bool) error {
	if self {
		pair, err := tls.X509KeyPair(s.Certificate.Bytes(), s.Key.Bytes())
		if err != nil {
			return &sdk.ConfigError{Key: "certificate", Text: "and key are no pair of PEM files that belong together"}
		}
		s.certificate = &pair
	}
	if !s.Roots.IsZero() {
		s.roots = x509.NewCertPool()
		if !s.roots.AppendCertsFromPEM(s.Roots.Bytes()) {
			return &sdk.ConfigError{Key: "roots", Text: "holds no PEM certificate"}
		}
	}
	return nil
}
