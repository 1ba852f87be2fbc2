package config

import (
	"errors"
	"fmt"
	"testing"

	"github.com/commucat/commucat/sdk"
)

type siteKeys struct {
	Listen string `cfg:"listen" default:":443"`
	TCP    string `cfg:"tcp" default:"own" enum:"own,front"`
}

type tunnelKeys struct {
	Listen []string `cfg:"listen" default:":0"`
}

// TestPortsOfPlugins: obfs has TCP, quick and tunnel have UDP, site has both.
func TestPortsOfPlugins(t *testing.T) {
	const obfs, quick, site = "[transport.obfs]\nlisten = \":7\"\n", "[transport.quick]\nlisten = \":7\"\n", "[transport.site]\nlisten = \":7\"\n"
	env := Env{Plugins: append(known(),
		Known{Plugin: fake{sdk.Transport, "site", func() any { return new(siteKeys) }}, Kind: sdk.Transport, Name: "site", UDP: true, TCP: true},
		Known{Plugin: fake{sdk.Transport, "tunnel", func() any { return new(tunnelKeys) }}, Kind: sdk.Transport, Name: "tunnel", UDP: true},
	)}
	for _, tt := range []struct{ name, text, first, second string }{
		{"TCP beside UDP", obfs + quick, "", ""},
		{"both and UDP", site + quick, "transport.site.listen", "transport.quick.listen"},
		{"UDP and both", quick + site, "transport.quick.listen", "transport.site.listen"},
		{"both and TCP", site + obfs, "transport.site.listen", "transport.obfs.listen"},
		{"both twice", site + "[transport.site2]\nplugin = \"site\"\nlisten = \":7\"\n", "transport.site.listen", "transport.site2.listen"},
		{"both and a list", site + "[transport.tunnel]\nlisten = [\":6\", \"127.0.0.1:7\"]\n", "transport.site.listen", "transport.tunnel.listen"},
		{"list without the port", site + "[transport.tunnel]\nlisten = [\":6\", \":8\"]\n", "", ""},
		{"list and TCP", obfs + "[transport.tunnel]\nlisten = [\":6\", \":7\"]\n", "", ""},
		{"twice in a list", "[transport.tunnel]\nlisten = [\":7\", \"127.0.0.1:7\"]\n", "transport.tunnel.listen", "transport.tunnel.listen"},
		{"both and the relay", "[server]\nlisten = [\":7\"]\n" + site, "server.listen", "transport.site.listen"},
		{"the relay in front", "[server]\nlisten = [\":7\"]\n" + site + "tcp = \"front\"\n", "", ""},
		{"in front of UDP", site + "tcp = \"front\"\n" + quick, "transport.site.listen", "transport.quick.listen"},
		{"disabled", site + "enabled = false\n" + quick, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("f", []byte(tt.text), env)
			if tt.second == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var all sdk.ConfigErrors
			if !errors.As(err, &all) || len(all) != 1 || all[0].Key != tt.second {
				t.Fatalf("%v", err)
			}
			var address, key, rest string
			if _, err := fmt.Sscanf(all[0].Text, "%s is already claimed by %s = %q %s", &address, &key, &rest, new(string)); err != nil || key != tt.first {
				t.Errorf("%v: %q", err, all[0].Text)
			}
		})
	}
}
