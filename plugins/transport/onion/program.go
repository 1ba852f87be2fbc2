package onion

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/commucat/commucat/sdk"
)

// Versions of tor: below the first there are no onion services as they are used here,
// below the second no defence by proof of work.
var (
	oldest  = version{0, 4, 6}
	withPoW = version{0, 4, 8}
)

type version [3]int

func (v version) less(w version) bool {
	for i := range v {
		if v[i] != w[i] {
			return v[i] < w[i]
		}
	}
	return false
}

func (v version) String() string { return fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2]) }

// program is an installed tor.
type program struct {
	path    string
	version version
	pow     bool
}

// usual is where programs lie when the environment does not say it.
const usual = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"

// findTor looks tor up and asks it what it can.
func findTor(ctx context.Context, name string) (program, error) {
	missing := func(text string) error {
		return &sdk.Error{Kind: sdk.NotFound, Op: "program", Text: text}
	}
	p := program{path: name}
	if name == "" {
		name = "tor"
	}
	path, err := exec.LookPath(name)
	if err != nil && !strings.ContainsRune(name, filepath.Separator) {
		for _, dir := range filepath.SplitList(usual) {
			if path, err = exec.LookPath(filepath.Join(dir, name)); err == nil {
				break
			}
		}
	}
	if err != nil {
		return p, missing(fmt.Sprintf("%s was not found; install the package tor, or name its path by program (other transports are not affected)", name))
	}
	p.path = path
	out, err := ask(ctx, path, "--version")
	if err != nil {
		return p, missing(fmt.Sprintf("%s does not tell its version: %v", path, err))
	}
	var ok bool
	if p.version, ok = parseVersion(string(out)); !ok {
		return p, missing(fmt.Sprintf("%s is not tor: it answers --version with something else", path))
	}
	if p.version.less(oldest) {
		return p, missing(fmt.Sprintf("%s is tor %v, needed is %v or newer; install a newer package tor", path, p.version, oldest))
	}
	if modules, err := ask(ctx, path, "--list-modules"); err == nil && !p.version.less(withPoW) {
		p.pow = bytes.Contains(modules, []byte("pow: yes"))
	}
	return p, nil
}

// maxAnswer bounds what is read of an answer.
const maxAnswer = 16 << 10

func ask(ctx context.Context, path, flag string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, socketTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, flag)
	cmd.Env, cmd.WaitDelay = []string{"HOME=" + os.TempDir()}, stopStep
	out := new(short)
	cmd.Stdout = out
	err := cmd.Run()
	return out.b, err
}

// short keeps the beginning of what is written.
type short struct{ b []byte }

func (s *short) Write(b []byte) (int, error) {
	s.b = append(s.b, b[:min(len(b), maxAnswer-len(s.b))]...)
	return len(b), nil
}

var versionLine = regexp.MustCompile(`(?m)^Tor version (\d{1,4})\.(\d{1,4})\.(\d{1,4})`)

// parseVersion reads "Tor version 0.4.9.11."
func parseVersion(s string) (v version, ok bool) {
	m := versionLine.FindStringSubmatch(s)
	if m == nil {
		return v, false
	}
	for i := range v {
		n, err := strconv.Atoi(m[i+1])
		if err != nil {
			return v, false
		}
		v[i] = n
	}
	return v, true
}
