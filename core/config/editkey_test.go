package config

import (
	"strings"
	"testing"
)

func TestSetTransportKey(t *testing.T) {
	const before = "# mine\n[transport.door] # this\noverlap = '14d' # on\nrotated=\"x\"\ncount = 3\n[log]\n"
	for _, tc := range []struct{ name, text, key, value, want, err string }{
		{"there", before, "overlap", "2d", "# mine\n[transport.door] # this\noverlap = \"2d\" # on\nrotated=\"x\"\ncount = 3\n[log]\n", ""},
		{"there without spaces", before, "rotated", "y", "# mine\n[transport.door] # this\noverlap = '14d' # on\nrotated=\"y\"\ncount = 3\n[log]\n", ""},
		{"new", before, "word", "3", "# mine\n[transport.door] # this\nword = \"3\"\noverlap = '14d' # on\nrotated=\"x\"\ncount = 3\n[log]\n", ""},
		{"dotted", "[transport]\ndoor.rotated = \"x\"\n", "rotated", "y", "[transport]\ndoor.rotated = \"y\"\n", ""},
		{"no text", before, "count", "4", "", "count is no text; set it to \"4\" by hand"},
		{"no table", "[log]\n", "overlap", "2d", "", "there is no [transport.door]"},
		{"broken", "[log\n", "overlap", "2d", "", "file.toml:1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := SetTransportKey("file.toml", []byte(tc.text), "door", tc.key, tc.value)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("%v, want %q", err, tc.err)
				}
				return
			}
			if err != nil || string(got) != tc.want {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

func TestAddTransportKey(t *testing.T) {
	const before = "# mine\n[transport.door] # this\nenabled = true # on\n[log]\n"
	for _, tc := range []struct{ name, text, key, value, want, err string }{
		{"text", before, "cover", "www.example.org:443", "# mine\n[transport.door] # this\ncover = \"www.example.org:443\"\nenabled = true # on\n[log]\n", ""},
		{"TOML", before, "names", `["a", "b"]`, "# mine\n[transport.door] # this\nnames = [\"a\", \"b\"]\nenabled = true # on\n[log]\n", ""},
		{"two lines", before, "cover", "1\nforce = true", "# mine\n[transport.door] # this\ncover = \"1\\nforce = true\"\nenabled = true # on\n[log]\n", ""},
		{"last line", "[transport.door]", "force", "true", "[transport.door]\nforce = true\n", ""},
		{"there", before, "enabled", "false", "", "is set already"},
		{"no table", "[log]\n", "force", "true", "", "there is no [transport.door]"},
		{"no key", before, "a.b", "true", "", "not the name of a key"},
		{"broken", "[log\n", "force", "true", "", "file.toml:1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := AddTransportKey("file.toml", []byte(tc.text), "door", tc.key, tc.value)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("%v, want %q", err, tc.err)
				}
				return
			}
			if err != nil || string(got) != tc.want {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}
