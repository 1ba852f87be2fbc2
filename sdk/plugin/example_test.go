package plugin_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"testing"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/plugin"
	"github.com/commucat/commucat/sdk/transport"
)

// Config is the plugin's table.
type Config struct {
	Listen string `cfg:"listen" default:"127.0.0.1:0" doc:"TCP address"`
}

// Hello is a transport.
func Hello() sdk.Plugin {
	return transport.Define(transport.Descriptor{
		Name: "hello", Version: "0.1.0", Summary: "bare TCP", Needs: []transport.Need{{Kind: transport.TCPPort}},
	}, transport.Funcs[Config]{
		Listen: func(ctx context.Context, env sdk.Env, c Config) (net.Listener, error) {
			return env.Listen(ctx, "tcp", c.Listen)
		},
	})
}

// TestMain makes this test binary a plugin's: its main function would be Serve alone.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "describe" {
		plugin.Serve(Hello())
	}
	os.Exit(m.Run())
}

// The whole main function of a plugin is plugin.Serve(Hello()). Started by hand, such a
// program describes itself.
func ExampleServe() {
	out, err := exec.Command("/proc/self/exe", "describe").Output()
	if err != nil {
		fmt.Println(err)
		return
	}
	var d struct {
		Plugins []struct{ Kind, Name, Version string }
	}
	fmt.Println(json.Unmarshal(out, &d), d.Plugins)
	// Output: <nil> [{transport hello 0.1.0}]
}
