package pluginhost

import (
	"fmt"
	"slices"
	"strings"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// programNeed begins a need for a program.
const programNeed = string(transport.Program) + ":"

func validNeed(n string) bool {
	if value, ok := strings.CutPrefix(n, programNeed); ok {
		return validPrograms(value)
	}
	switch transport.NeedKind(n) {
	case transport.TCPPort, transport.UDPPort, transport.Outbound, transport.StateFolder, transport.CoverSite:
		return true
	}
	return false
}

// validPrograms takes the forms of a need for a program: NAME, which must be there;
// and "$KEY" or "$KEY|NAME|NAME…": what the key of the plugin's table names, or
// without it those of the names that are installed.
func validPrograms(value string) bool {
	if len(value) > 256 {
		return false
	}
	key, ok := strings.CutPrefix(value, "$")
	if !ok {
		return validProgram(value)
	}
	parts := strings.Split(key, "|")
	return !slices.ContainsFunc(parts, func(p string) bool { return !validProgram(p) })
}

// validProgram takes bare names only: where they lie is the relay's to say.
func validProgram(name string) bool {
	for i := range len(name) {
		c := name[i] | 0x20
		if (c < 'a' || c > 'z') && (name[i] < '0' || name[i] > '9') && !strings.ContainsRune("-_.+", rune(name[i])) {
			return false
		}
	}
	return name != "" && len(name) <= 64 && name[0] != '.'
}

// needsOf writes a plugin's needs as the list holds them. Storages and ledgers have
// no descriptor of needs: they keep files, or reach a server.
func needsOf(kind sdk.Kind, needs []transport.Need) ([]string, error) {
	if kind != sdk.Transport {
		return []string{string(transport.Outbound), string(transport.StateFolder)}, nil
	}
	out := []string{}
	for _, n := range needs {
		word := string(n.Kind)
		if n.Kind == transport.Program {
			word = programNeed + n.Value
		}
		if !validNeed(word) {
			return nil, fmt.Errorf("it needs %q, which this version does not know", word)
		}
		if !slices.Contains(out, word) {
			out = append(out, word)
		}
	}
	slices.Sort(out)
	return out, nil
}

// ProfileName is what a sandbox with these needs is called: "program" may start
// programs, "outbound" may reach other hosts, "closed" has lent sockets alone.
func ProfileName(needs []string) string {
	switch {
	case slices.ContainsFunc(needs, func(n string) bool { return strings.HasPrefix(n, programNeed) }):
		return "program"
	case slices.Contains(needs, string(transport.Outbound)):
		return "outbound"
	}
	return "closed"
}
