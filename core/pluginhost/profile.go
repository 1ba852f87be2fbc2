package pluginhost

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/commucat/commucat/core/pluginhost/sandbox"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

func (e Entry) granted(k transport.NeedKind) bool { return slices.Contains(e.Needs, string(k)) }

// profile makes the sandbox of an entry, without user, folders and limits. raw is the
// plugin's table: an operator names programs there.
func (e Entry) profile(raw map[string]any) (sandbox.Profile, error) {
	p := sandbox.Profile{Outbound: e.granted(transport.Outbound), Datagrams: e.granted(transport.UDPPort)}
	for _, n := range e.Needs {
		value, ok := strings.CutPrefix(n, programNeed)
		if !ok {
			continue
		}
		if key, ok := strings.CutPrefix(value, "$"); ok {
			p.Run = append(p.Run, chosenPrograms(key, raw)...)
			continue
		}
		path, err := exec.LookPath(value)
		if err != nil {
			return p, fmt.Errorf("it needs the program %s, which is not installed", value)
		}
		p.Run = append(p.Run, path)
	}
	return p, nil
}

// chosenPrograms is what "KEY|NAME…" means for a table. What is not there is left
// out: the plugin knows what to say about it.
func chosenPrograms(value string, raw map[string]any) []string {
	names := strings.Split(value, "|")
	key, names := names[0], names[1:]
	set := raw[key]
	if l, ok := set.(sdk.Located); ok {
		set = l.Value
	}
	if text, ok := set.(string); ok && text != "" {
		names = []string{text}
	}
	var out []string
	for _, name := range names {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		// The file itself: the sandbox knows no links.
		for _, way := range []func(string) (string, error){filepath.Abs, filepath.EvalSymlinks} {
			if to, err := way(path); err == nil && !slices.Contains(out, to) {
				path = to
				out = append(out, to)
			}
		}
	}
	return out
}
