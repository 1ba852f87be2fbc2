package config

import (
	"bytes"
	"strings"
	"testing"
)

func TestEnableTransport(t *testing.T) {
	for name, tt := range map[string]struct{ in, want string }{
		"empty":       {"", "[transport.x]\nenabled = false\n"},
		"other":       {"# top\n[server]\ndomain = \"a\" # mine", "# top\n[server]\ndomain = \"a\" # mine\n\n[transport.x]\nenabled = false\n"},
		"table":       {"[transport.x] # kept\n# why\nlisten = \":1\"\n", "[transport.x] # kept\nenabled = false\n# why\nlisten = \":1\"\n"},
		"key":         {"[transport.x]\n  enabled  =  true # for now\nlisten = \":1\"\n", "[transport.x]\n  enabled  =  false # for now\nlisten = \":1\"\n"},
		"dotted":      {"transport.x.enabled = true\n", "transport.x.enabled = false\n"},
		"half":        {"[transport]\nx.enabled = true\n", "[transport]\nx.enabled = false\n"},
		"neighbour":   {"[transport.xy]\nenabled = true\n[transport.x]\nenabled = true\n", "[transport.xy]\nenabled = true\n[transport.x]\nenabled = false\n"},
		"end of file": {"[transport.x]", "[transport.x]\nenabled = false\n"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := EnableTransport("f", []byte(tt.in), "x", false)
			if err != nil || string(got) != tt.want {
				t.Fatalf("%q, %v, want %q", got, err, tt.want)
			}
			back, err := EnableTransport("f", got, "x", true)
			if err != nil || !strings.Contains(string(back), "true") {
				t.Fatalf("%q, %v", back, err)
			}
			if again, err := EnableTransport("f", back, "x", false); err != nil || !bytes.Equal(again, got) {
				t.Errorf("%q, %v", again, err)
			}
		})
	}
	for name, in := range map[string]string{"broken": "[", "inline": "transport = { x = { enabled = true } }\n", "text": "[transport.x]\nenabled = \"yes\"\n"} {
		if got, err := EnableTransport("f", []byte(in), "x", false); err == nil {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// FuzzEnableTransport: what was valid stays valid, and says what was asked for.
func FuzzEnableTransport(f *testing.F) {
	f.Add([]byte("# c\n[transport.x]\nenabled = true\n"))
	f.Add([]byte("[transport]\nx.listen = \":1\"\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := EnableTransport("f", in, "x", false)
		if err != nil {
			return
		}
		again, err := EnableTransport("f", got, "x", false)
		if err == nil && !bytes.Equal(again, got) {
			t.Errorf("%q became %q", got, again)
		}
	})
}
