package doctor

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/commucat/commucat/core/config"
	"github.com/commucat/commucat/core/keyring"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// sound is a data folder in which nothing is wrong.
func sound(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	_, _, err := keyring.Open(filepath.Join(dir, "keys"), keyring.Options{Domain: "relay.example", Clock: func() time.Time { return now }})
	if err = errors.Join(err, os.Chmod(dir, 0o700), os.WriteFile(filepath.Join(dir, "relay.json"), []byte(`{"version":1,"connect_path":"/a/b","cookie":"c"}`), 0o600)); err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(dir, func(name string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Chtimes(name, now, now))
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// certify writes a certificate signed by an authority of its own, and gives the
// authority as roots.
func certify(t *testing.T, dir, domain string, from, to time.Time) (cert, key string, roots *x509.CertPool) {
	t.Helper()
	make := func(c, by *x509.Certificate, signer *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey, []byte) {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if by == nil {
			by, signer = c, k
		}
		der, err := x509.CreateCertificate(rand.Reader, c, by, &k.PublicKey, signer)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return parsed, k, der
	}
	ca, caKey, _ := make(&x509.Certificate{
		SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: now.AddDate(-10, 0, 0), NotAfter: now.AddDate(10, 0, 0),
	}, nil, nil)
	_, _, der := make(&x509.Certificate{SerialNumber: big.NewInt(2), DNSNames: []string{domain}, NotBefore: from, NotAfter: to}, ca, caKey)
	cert, key = filepath.Join(dir, "crt.pem"), filepath.Join(dir, "key.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := errors.Join(os.WriteFile(cert, text, 0o600), os.WriteFile(key, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	roots = x509.NewCertPool()
	roots.AddCert(ca)
	return cert, key, roots
}

// TestFindings breaks one thing at a time in a relay where nothing is wrong.
func TestFindings(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(t *testing.T, o *Options)
		level Level
		check string
		text  string
		mend  string
	}{
		{name: "nothing", spoil: func(*testing.T, *Options) {}},
		{name: "folder open to others", level: Wrong, check: "data folder", text: "can be changed by other users", mend: "chmod 700",
			spoil: func(t *testing.T, o *Options) { chmod(t, o.Data, 0o777) }},
		{name: "folder readable", level: Weak, check: "data folder", text: "can be read by other users", mend: "chmod 700",
			spoil: func(t *testing.T, o *Options) { chmod(t, o.Data, 0o755) }},
		{name: "newer layout", level: Wrong, check: "data folder", text: "layout 1, this one knows 0", mend: "install that version",
			spoil: func(_ *testing.T, o *Options) { o.Layout = 0 }},
		{name: "no state", level: Wrong, check: "data folder", text: "relay.json is missing beside keys", mend: "backup",
			spoil: func(t *testing.T, o *Options) {
				if err := os.Remove(filepath.Join(o.Data, "relay.json")); err != nil {
					t.Fatal(err)
				}
			}},
		{name: "damaged state", level: Wrong, check: "data folder", text: "relay.json is damaged", mend: "backup",
			spoil: func(t *testing.T, o *Options) { write(t, filepath.Join(o.Data, "relay.json"), "{") }},
		{name: "key readable", level: Wrong, check: "keys", text: "ca is readable by other users (mode 0640)", mend: "chmod 600",
			spoil: func(t *testing.T, o *Options) { chmod(t, filepath.Join(o.Data, "keys", "ca"), 0o640) }},
		{name: "key folder open", level: Wrong, check: "keys", text: "open to other users", mend: "chmod 700",
			spoil: func(t *testing.T, o *Options) { chmod(t, filepath.Join(o.Data, "keys"), 0o750) }},
		{name: "key missing", level: Wrong, check: "keys", text: "storage is missing", mend: "backup",
			spoil: func(t *testing.T, o *Options) { remove(t, filepath.Join(o.Data, "keys", "storage")) }},
		{name: "key damaged", level: Wrong, check: "keys", text: "root is damaged", mend: "backup",
			spoil: func(t *testing.T, o *Options) { write(t, filepath.Join(o.Data, "keys", "root"), "0123 ab\n") }},
		{name: "noise keys missing", level: Wrong, check: "keys", text: "noise.json is missing", mend: "backup",
			spoil: func(t *testing.T, o *Options) { remove(t, filepath.Join(o.Data, "keys", "noise.json")) }},
		{name: "entry keys damaged", level: Wrong, check: "keys", text: "entry.json is damaged", mend: "backup",
			spoil: func(t *testing.T, o *Options) { write(t, filepath.Join(o.Data, "keys", "entry.json"), "{}}") }},
		{name: "certificate key damaged", level: Wrong, check: "keys", text: "tls.key is damaged", mend: "backup",
			spoil: func(t *testing.T, o *Options) { write(t, filepath.Join(o.Data, "keys", "tls.key"), "x") }},
		{name: "key from the future", level: Wrong, check: "clock", text: "from the future", mend: "timedatectl",
			spoil: func(t *testing.T, o *Options) {
				later := now.Add(time.Hour)
				if err := os.Chtimes(filepath.Join(o.Data, "keys", "ca"), later, later); err != nil {
					t.Fatal(err)
				}
			}},
		{name: "small UDP buffers", level: Weak, check: "udp buffers", text: "net.core.wmem_max = 212992: packets of cloud are lost", mend: "sysctl -w net.core.wmem_max=7340032 (",
			spoil: func(_ *testing.T, o *Options) {
				o.Config.Transports = map[string]config.Transport{"cloud": {Enabled: true, Plugin: "masque"}, "amnesiawg": {}}
				o.Sysctl = func(key string) (string, error) {
					return map[string]string{"net.core.rmem_max": "7340032\n", "net.core.wmem_max": "212992\n"}[key], nil
				}
			}},
		{name: "large UDP buffers",
			spoil: func(_ *testing.T, o *Options) {
				o.Config.Transports = map[string]config.Transport{"masque": {Enabled: true}}
				o.Sysctl = func(string) (string, error) { return "16777216", nil }
			}},
		{name: "certificate expired", level: Wrong, check: "certificate", text: "expired on 2026-04-30", mend: "certbot renew",
			spoil: func(t *testing.T, o *Options) {
				o.certified(t, "relay.example", now.AddDate(0, -1, 0), now.Add(-24*time.Hour))
			}},
		{name: "certificate not yet", level: Wrong, check: "certificate", text: "not valid before", mend: "clock",
			spoil: func(t *testing.T, o *Options) {
				o.certified(t, "relay.example", now.Add(time.Hour), now.AddDate(0, 1, 0))
			}},
		{name: "certificate soon over", level: Weak, check: "certificate", text: "expires on 2026-05-08", mend: "certbot renew",
			spoil: func(t *testing.T, o *Options) {
				o.certified(t, "relay.example", now.AddDate(0, -1, 0), now.AddDate(0, 0, 7))
			}},
		{name: "certificate of another name", level: Wrong, check: "certificate", text: "not made out for relay.example", mend: "certbot",
			spoil: func(t *testing.T, o *Options) {
				o.certified(t, "other.example", now.AddDate(0, -1, 0), now.AddDate(0, 2, 0))
			}},
		{name: "certificate of a private authority", level: Weak, check: "certificate", text: "not trusted publicly", mend: "full chain",
			spoil: func(_ *testing.T, o *Options) { o.Roots = x509.NewCertPool() }},
		{name: "own certificate", level: Weak, check: "certificate", text: "self-signed", mend: "[tls]",
			spoil: func(_ *testing.T, o *Options) { o.Config.TLS = config.TLS{} }},
		{name: "TLS key for everybody", level: Wrong, check: "certificate", text: "readable by every user", mend: "chmod o-rwx",
			spoil: func(t *testing.T, o *Options) { chmod(t, string(o.Config.TLS.Key), 0o644) }},
		{name: "switch", level: Weak, check: "compat.clear_frames", text: "reads and changes them", mend: "[compat] clear_frames = false",
			spoil: func(_ *testing.T, o *Options) { o.Config.Compat.ClearFrames = true }},
		{name: "built-in cover", level: Weak, check: "cover", text: "built-in site", mend: "[cover]",
			spoil: func(_ *testing.T, o *Options) { o.Config.Cover.Origin = "" }},
		{name: "no ledger", level: Weak, check: "ledger.backends", text: "no record", mend: "file",
			spoil: func(_ *testing.T, o *Options) { o.Config.Ledger.Backends = nil }},
		{name: "storage that forgets", level: Wrong, check: "storage.backend", text: "keeps nothing", mend: "sqlite",
			spoil: func(_ *testing.T, o *Options) { o.Config.Storage.Backend = "memory" }},
		{name: "chain broken", level: Wrong, check: "audit chain", text: "record 7 is broken", mend: "audit verify",
			spoil: func(_ *testing.T, o *Options) {
				o.Verify = func(context.Context) (uint64, error) { return 0, errors.New("record 7 is broken") }
			}},
		{name: "relay of another user", level: Weak, check: "relay", text: "not known whether it runs", mend: "relay's own user",
			spoil: func(_ *testing.T, o *Options) {
				o.Relay = func(context.Context) (*Status, error) { return nil, fs.ErrPermission }
			}},
		{name: "relay silent", level: Wrong, check: "relay", text: "does not answer: 500", mend: "journalctl",
			spoil: func(_ *testing.T, o *Options) {
				o.Relay = func(context.Context) (*Status, error) { return nil, errors.New("500") }
			}},
		{name: "relay without storage", level: Wrong, check: "storage", text: "not ready: the disk is full", mend: "journalctl",
			spoil: func(_ *testing.T, o *Options) {
				o.Relay = func(context.Context) (*Status, error) {
					return &Status{Failed: map[string]string{"storage": "the disk is full"}}, nil
				}
			}},
		{name: "listener gone", level: Wrong, check: "listener 127.0.0.1:1", text: "cannot be reached", mend: "firewall",
			spoil: func(_ *testing.T, o *Options) {
				o.Relay = func(context.Context) (*Status, error) {
					return &Status{Listeners: []Listener{{"http2", "127.0.0.1:1", "tcp", true}}}, nil
				}
			}},
		{name: "secret for everybody", level: Wrong, check: "secrets", text: "reality.key is open to other users (mode 0644)", mend: "chmod 600",
			spoil: func(t *testing.T, o *Options) { o.secret(t, 0o644) }},
		{name: "secret for its owner", level: OK, check: "secrets", text: "1 files", spoil: func(t *testing.T, o *Options) { o.secret(t, 0o640) }},
		{name: "folder of a plugin open", level: Wrong, check: "secrets", text: "transport-door is open to other users (mode 0777)", mend: "chmod 700",
			spoil: func(t *testing.T, o *Options) {
				dir := filepath.Join(o.Data, "plugins", "transport-door")
				if err := os.MkdirAll(dir, 0o700); err != nil {
					t.Fatal(err)
				}
				chmod(t, dir, 0o777)
			}},
		{name: "listener of a plugin gone", level: Wrong, check: "listener 127.0.0.1:1", text: "cannot be reached", mend: "firewall",
			spoil: func(_ *testing.T, o *Options) {
				o.Relay = func(context.Context) (*Status, error) {
					return &Status{Listeners: []Listener{{"door", "127.0.0.1:1", "tcp", false}}}, nil
				}
			}},
		{name: "listener of a plugin without TLS", level: OK, check: "listener", text: "takes connections", spoil: plainListener},
		{name: "listener for UDP", level: OK, check: "listener 127.0.0.1:1", text: "udp of tunnel; to try it: commucat transport test tunnel",
			spoil: func(_ *testing.T, o *Options) {
				o.Relay = func(context.Context) (*Status, error) {
					return &Status{Listeners: []Listener{{"tunnel", "127.0.0.1:1", "udp", false}}}, nil
				}
			}},
		{name: "plugin parked", level: Wrong, check: "transport tunnel", text: "does not run (parked): no folder", mend: "commucat plugin upgrade tunnel --data /",
			spoil: plugins("transport tunnel", Plugin{Name: "tunnel", Kind: "transport", State: "parked", Error: "no folder", Down: true})},
		{name: "plugin of a storage that ends again and again", level: Wrong, check: "storage db", text: "does not run (backoff): no server", mend: "commucat plugin upgrade db",
			spoil: plugins("", Plugin{Name: "db", Kind: "storage", State: "backoff", Error: "no server", Down: true})},
		{name: "plugin that is not offered", level: Weak, check: "transport tunnel", text: "degraded: away", mend: "journalctl",
			spoil: plugins("transport tunnel", Plugin{Name: "tunnel", Kind: "transport", State: "running"})},
		{name: "plugin that says it cannot serve", level: Wrong, check: "transport tunnel", text: "is running and serves nobody: the cover is down", mend: "commucat transport test tunnel --data /",
			spoil: plugins("transport tunnel", Plugin{Name: "tunnel", Kind: "transport", State: "running", Degraded: "the cover is down"})},
		{name: "plugin that says so first", level: Wrong, check: "transport tunnel", text: "serves nobody: the cover is down", mend: "commucat transport test tunnel --data /",
			spoil: plugins("", Plugin{Name: "tunnel", Kind: "transport", State: "running", Degraded: "the cover is down"})},
		{name: "plugin that runs", level: OK, check: "transport tunnel", text: "its plugin is running",
			spoil: plugins("", Plugin{Name: "tunnel", Kind: "transport", State: "running", Error: "it was killed"})},
		{name: "plugins of no relay", level: OK, check: "plugins", text: "the relay does not run", spoil: func(*testing.T, *Options) {}},
		{name: "configuration broken", level: Wrong, check: "configuration", text: `server.lisen: unknown key (did you mean "listen"?)`, mend: "config check",
			spoil: func(_ *testing.T, o *Options) {
				_, o.ConfigError = config.Parse("commucat.toml", []byte("[server]\nlisen = 1\n"), config.Env{})
				o.Config = nil
			}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := healthy(t)
			tt.spoil(t, &o)
			report := Run(t.Context(), o)
			var found, wrong bool
			for _, f := range report.Findings {
				wrong = wrong || f.Level == Wrong
				if f.Level != OK && f.Mend == "" {
					t.Errorf("%s has no mend: %s", f.Check, f.Text)
				}
				if tt.level == Wrong && f.Check == tt.check && f.Level == Weak {
					t.Errorf("said twice: %+v", report.Findings)
				}
				if f.Level == tt.level && (f.Check == tt.check || tt.check == "listener" && strings.HasPrefix(f.Check, "listener ")) && strings.Contains(f.Text, tt.text) && strings.Contains(f.Mend, tt.mend) {
					found = true
				}
			}
			if !found && tt.level != "" {
				t.Errorf("not found; findings: %+v", report.Findings)
			}
			if report.OK == wrong || wrong != (tt.level == Wrong) {
				t.Errorf("ok %v with %+v", report.OK, report.Findings)
			}
		})
	}
}

// healthy is a relay, not running, in which nothing is wrong.
func healthy(t *testing.T) Options {
	o := Options{
		Config: config.Default(), Data: sound(t), Layout: 1, Now: func() time.Time { return now },
		Relay:  func(context.Context) (*Status, error) { return nil, nil },
		Verify: func(context.Context) (uint64, error) { return 12, nil },
	}
	o.Config.Server.Domain, o.Config.Cover.Origin = "relay.example", "http://127.0.0.1:8080"
	o.Config.Server.Listen = []config.Address{"127.0.0.1:0"}
	o.certified(t, "relay.example", now.AddDate(0, -1, 0), now.AddDate(0, 2, 0))
	return o
}

func (o *Options) certified(t *testing.T, domain string, from, to time.Time) {
	t.Helper()
	cert, key, roots := certify(t, t.TempDir(), domain, from, to)
	o.Config.TLS, o.Roots = config.TLS{Cert: config.Path(cert), Key: config.Path(key)}, roots
}

// TestRunChangesNothing looks at the folder before and after.
func TestRunChangesNothing(t *testing.T) {
	o := healthy(t)
	before := tree(t, o.Data)
	Run(t.Context(), o)
	if after := tree(t, o.Data); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	o.Data = filepath.Join(t.TempDir(), "absent")
	Run(t.Context(), o)
	if _, err := os.Stat(o.Data); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder was made: %v", err)
	}
}

func tree(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err == nil {
			b.WriteString(name + " " + st.Mode().String() + " " + st.ModTime().String() + "\n")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func chmod(t *testing.T, name string, mode fs.FileMode) {
	t.Helper()
	if err := os.Chmod(name, mode); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, name string) {
	t.Helper()
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
}

// secret has the configuration name a file of a plugin's key.
func (o *Options) secret(t *testing.T, mode fs.FileMode) {
	t.Helper()
	name := filepath.Join(o.Data, "commucat.toml")
	text := "[server]\ndomain = \"relay.example\"\n[[transport.door.more]]\nkeys = [\"file:reality.key\"]\n"
	key := filepath.Join(o.Data, "reality.key")
	if err := errors.Join(os.WriteFile(name, []byte(text), 0o600), os.WriteFile(key, []byte("k"), 0o600)); err != nil {
		t.Fatal(err)
	}
	chmod(t, key, mode)
	c, err := config.Parse(name, []byte(text), config.Env{})
	if err != nil {
		t.Fatal(err)
	}
	c.Server, c.Cover, c.TLS, c.File = o.Config.Server, o.Config.Cover, o.Config.TLS, name
	o.Config = c
}

// plugins is a running relay with one plugin, and what it says is degraded.
func plugins(degraded string, p Plugin) func(*testing.T, *Options) {
	return func(t *testing.T, o *Options) {
		plainListener(t, o)
		before := o.Relay
		o.Relay = func(ctx context.Context) (*Status, error) {
			st, err := before(ctx)
			if st.Plugins = []Plugin{p}; degraded != "" {
				st.Degraded = map[string]string{degraded: "away"}
			}
			return st, err
		}
	}
}

// plainListener is a port of a plugin that takes connections, and says nothing.
func plainListener(t *testing.T, o *Options) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	o.Relay = func(context.Context) (*Status, error) {
		return &Status{Listeners: []Listener{{"door", ln.Addr().String(), "tcp", false}}}, nil
	}
}

// TestTraversable: where root has plugins, their users pass through the data folder.
func TestTraversable(t *testing.T) {
	o := healthy(t)
	chmod(t, o.Data, 0o711)
	st, err := os.Stat(o.Data)
	if err != nil {
		t.Fatal(err)
	}
	said := slices.ContainsFunc(Run(t.Context(), o).Findings, func(f Finding) bool { return f.Check == "data folder" && f.Level == Weak })
	if root := owner(st) == 0; said == root {
		t.Errorf("weak %v with a folder of root's: %v", said, root)
	}
}
