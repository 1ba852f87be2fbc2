package main

import (
	"strings"
	"testing"

	"github.com/commucat/commucat/sdk/transport"
)

// TestDemoSaysWhatToInstall: a transport whose program is missing has a row that says so,
// and the others are shown.
func TestDemoSaysWhatToInstall(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	st, err := set(t.Context(), t.TempDir(), []transport.Dialer{
		&processDialer{name: "onion", plugin: "onion"}, &processDialer{name: "obfs4", plugin: "pt"}, &processDialer{name: "door", plugin: "masque"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer st.close()
	var said []string
	for _, r := range st.absent {
		if r.OK {
			t.Errorf("%+v", r)
		}
		said = append(said, r.Transport+": "+r.Error)
	}
	want := "onion: tor is not installed: install the package tor\nobfs4: obfs4proxy is not installed: install the package obfs4proxy"
	if got := strings.Join(said, "\n"); got != want {
		t.Errorf("%s", got)
	}
	if len(st.shown) != 1 || st.tables.String() != "[transport.door]\nplugin = \"masque\"\nlisten = \"127.0.0.1:0\"\n" {
		t.Errorf("%v\n%s", names(st.shown), st.tables.String())
	}
}
