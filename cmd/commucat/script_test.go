package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"io"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/commucat/commucat/core/pluginhost/sandbox"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata/script")

// TestScript runs every command as a user would, against relays of their own.
// Beyond testscript's commands the scripts have:
//
//	relay NAME [FLAG…]    starts "commucat serve" on folder NAME and a free port,
//	                      waits for its ready line, and sets $INVITE and $ADDR
//	stop NAME             ends it in order
//	exits CODE CMD ARG…   runs a command that must end with that code
//	keep VAR REGEXP       sets $VAR to the first group of REGEXP in the last stdout
//	until REGEXP CMD ARG… runs a command again and again until its stdout has REGEXP
//	plugins FOLDER        puts this test binary there, as the transport "plain" that is
//	                      in no list yet, and has the program look for plugins there
//	flip FILE             changes the last byte of a file
//
// and $LONG, a word of 300 letters.
func TestScript(t *testing.T) { scripts(t, "testdata/script") }

// TestLoadScript runs those with processes of plugins.
func TestLoadScript(t *testing.T) {
	if raceDetector {
		t.Skip("under the race detector a plugin needs more memory than it is allowed")
	}
	if k := sandbox.Probe(); !k.Complete() {
		t.Skipf("this kernel has no %s", k.Missing())
	}
	scripts(t, "testdata/load")
}

func scripts(t *testing.T, dir string) {
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		UpdateScripts:       *update,
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("XDG_STATE_HOME", filepath.Join(e.WorkDir, "state"))
			e.Setenv("TZ", "UTC")
			e.Setenv("LONG", strings.Repeat("x", 300))
			e.Setenv("GORACE", os.Getenv("GORACE"))
			e.Values[relays{}] = map[string]*process{}
			return expiredPair(e.WorkDir)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"relay": scriptRelay, "stop": scriptStop, "exits": scriptExits, "keep": scriptKeep,
			"until": scriptUntil, "plugins": scriptPlugins, "flip": scriptFlip,
		},
	})
}

// expiredPair writes expired.crt and expired.key.
func expiredPair(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	c := x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"},
		NotBefore: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2020, 1, 2, 0, 0, 0, 0, time.UTC),
	}
	crt, err := x509.CreateCertificate(rand.Reader, &c, &c, &key.PublicKey, key)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "expired.crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: crt}), 0o600),
		os.WriteFile(filepath.Join(dir, "expired.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600),
	)
}

// relays is the key of a script's running relays.
type relays struct{}

func scriptRelay(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: relay NAME [FLAG…]")
	}
	dir := ts.MkAbs(args[0])
	if err := os.MkdirAll(dir, 0o700); err != nil {
		ts.Fatalf("%v", err)
	}
	env := append(os.Environ(), "COMMUCAT_PLUGINS="+ts.Getenv("COMMUCAT_PLUGINS"))
	p, err := serveIn(env, dir, append([]string{"--listen", "127.0.0.1:0"}, args[1:]...)...)
	if err != nil {
		ts.Fatalf("%v", err)
	}
	ts.Defer(p.kill)
	if err := p.ready(); err != nil {
		ts.Fatalf("%v", err)
	}
	ts.Value(relays{}).(map[string]*process)[args[0]] = p
	ts.Setenv("INVITE", p.Invite)
	ts.Setenv("ADDR", p.address())
}

func scriptStop(ts *testscript.TestScript, neg bool, args []string) {
	all := ts.Value(relays{}).(map[string]*process)
	if neg || len(args) != 1 || all[args[0]] == nil {
		ts.Fatalf("usage: stop NAME of a relay that runs")
	}
	code, err := all[args[0]].stop()
	if err != nil || code != exitOK {
		ts.Fatalf("the relay ended with %d, %v: %s", code, err, all[args[0]].said())
	}
	delete(all, args[0])
}

func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE CMD ARG…")
	}
	want, err := strconv.Atoi(args[0])
	if err != nil {
		ts.Fatalf("%v", err)
	}
	code := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		code = exit.ExitCode()
	}
	if code != want {
		ts.Fatalf("ended with %d, not %d", code, want)
	}
	// Nobody can act on a stack or an empty line.
	notes := ts.ReadFile("stderr")
	if strings.Contains(notes, "goroutine ") || code != 0 && strings.TrimSpace(notes+ts.ReadFile("stdout")) == "" {
		ts.Fatalf("%q is no message for a user", notes)
	}
}

func scriptKeep(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: keep VAR REGEXP")
	}
	re, err := regexp.Compile("(?m)" + args[1])
	if err != nil {
		ts.Fatalf("%v", err)
	}
	m := re.FindStringSubmatch(ts.ReadFile("stdout"))
	if len(m) != 2 {
		ts.Fatalf("no group of %s in the last output", args[1])
	}
	ts.Setenv(args[0], m[1])
}

func scriptUntil(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until REGEXP CMD ARG…")
	}
	re, err := regexp.Compile("(?m)" + args[0])
	if err != nil {
		ts.Fatalf("%v", err)
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		_ = ts.Exec(args[1], args[2:]...) // what it printed decides
		if re.MatchString(ts.ReadFile("stdout")) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("not in time")
		}
	}
}

func scriptPlugins(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: plugins FOLDER")
	}
	dir := ts.MkAbs(args[0])
	self, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = errors.Join(os.Mkdir(dir, 0o755), os.Chmod(dir, 0o755))
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "commucat-transport-plain"), self, 0o755)
	}
	ts.Check(err)
	ts.Setenv("COMMUCAT_PLUGINS", dir)
	ts.Setenv("TMPDIR", os.TempDir()) // the script's own is too long for a socket's address
}

func scriptFlip(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: flip FILE")
	}
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_RDWR, 0)
	ts.Check(err)
	defer f.Close()
	at, err := f.Seek(-1, io.SeekEnd)
	ts.Check(err)
	var b [1]byte
	_, err = f.ReadAt(b[:], at)
	ts.Check(err)
	b[0] ^= 1
	_, err = f.WriteAt(b[:], at)
	ts.Check(err)
}
