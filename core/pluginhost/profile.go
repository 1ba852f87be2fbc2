package pluginhost

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"github.com/commucat/commucat/core/pluginhost/sandbox"
	"github.com/commucat/commucat/sdk/transport"
)

func (e Entry) granted(k transport.NeedKind) bool { return slices.Contains(e.Needs, string(k)) }

// profile makes the sandbox of an entry, without user, folders and limits.
func (e Entry) profile() (sandbox.Profile, error) {
	p := sandbox.Profile{Outbound: e.granted(transport.Outbound), Datagrams: e.granted(transport.UDPPort)}
	for _, n := range e.Needs {
		name, ok := strings.CutPrefix(n, programNeed)
		if !ok {
			continue
		}
		path, err := exec.LookPath(name)
		if err != nil {
			return p, fmt.Errorf("it needs the program %s, which is not installed", name)
		}
		p.Run = append(p.Run, path)
	}
	return p, nil
}
