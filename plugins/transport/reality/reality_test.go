package reality

import (
	"testing"

	"github.com/commucat/commucat/sdk/host"
	"github.com/commucat/commucat/sdk/plugintest"
)

// covers are the kinds of cover that everything is tried with.
func covers(t testing.TB) map[string]string {
	return map[string]string{"go": goCover(t), "nginx": nginxCover(t), "self": coverSelf}
}

func TestEcho(t *testing.T) {
	for name, cover := range covers(t) {
		t.Run(name, func(t *testing.T) {
			r := startServer(t, baseConfig(t, cover))
			r.echoAll()
			for _, fp := range Fingerprints() {
				if err := checkEcho(r.endpoint(), fp, 300_000); err != nil {
					t.Errorf("%s: %v", fp, err)
				}
			}
		})
	}
}

const program = "github.com/commucat/commucat/cmd/commucat-transport-reality"

func TestConformance(t *testing.T) {
	raw := baseConfig(t, goCover(t))
	plugintest.Plugin(t, Plugin(), plugintest.PluginOptions{
		Package: program,
		Server:  func(testing.TB) map[string]any { return raw },
		Client:  func(testing.TB) map[string]any { return map[string]any{} },
		Clients: 200,
	})
}

// TestLentSite: the relay's own site is lent to the process.
func TestLentSite(t *testing.T) {
	raw := baseConfig(t, coverSelf)
	w := plugintest.Wrap(t)
	file := plugintest.Build(w, program)
	plugintest.ProcessCases(w, func(t testing.TB) *host.Process { return plugintest.Start(t, file, host.Options{}) }, Name, plugintest.PluginOptions{
		Server: func(testing.TB) map[string]any { return raw },
		Client: func(testing.TB) map[string]any { return map[string]any{} },
		Cover:  pageHandler(),
		// What does not depend on the cover was asked by TestConformance.
		Skip: []string{"description", "unknown key", "transport", "drain", "killed"},
	})
}
