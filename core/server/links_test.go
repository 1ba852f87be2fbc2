package server

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/commucat/commucat/core/api"
	"github.com/commucat/commucat/core/keyring"
	"github.com/commucat/commucat/core/pluginhost"
	"github.com/commucat/commucat/sdk/link"
)

// TestRefusedLinkLetsNobodyIn: transports that were asked for a link that is refused are told
// that it is none.
func TestRefusedLinkLetsNobodyIn(t *testing.T) {
	s, _ := keyedServer(t)
	var err error
	if s.ring, _, err = keyring.Open(filepath.Join(t.TempDir(), keysDir), keyring.Options{Domain: "relay.example", Rotate: time.Hour, Grace: time.Hour}); err != nil {
		t.Fatal(err)
	}
	host := pluginhost.New(pluginhost.Options{Catalog: pluginhost.NewCatalog(), State: t.TempDir()})
	defer host.Close()
	door, err := host.Transport(pluginhost.TransportSpec{Spec: pluginhost.Spec{Name: "door", Plugin: "door"}})
	if err != nil {
		t.Fatal(err)
	}
	s.transports.all = map[string]*pluginhost.Transport{"door": door}
	_, err = s.newLink(t.Context(), link.Pairing, api.LinkTerms{ID: "code", Expires: time.Now().Add(time.Hour), Transports: []string{"door"}})
	if p := new(api.Problem); !errors.As(err, &p) || p.Code != api.NoWay("door").Code {
		t.Errorf("a link over a transport that does not run: %v", err)
	}
	if got := s.revocations.of("door"); !slices.Equal(got, []string{"code"}) {
		t.Errorf("to be told: %q", got)
	}
}

// TestPairingLinkRevoked: a transport is told of a pairing link that has been revoked, and of
// nothing that cannot be one.
func TestPairingLinkRevoked(t *testing.T) {
	s, _ := keyedServer(t)
	id := strings.Repeat("0a", 32)
	for _, subject := range []string{"", "mistyped", id + "0a", id} {
		s.recordOperator(t.Context(), "pair.revoke", subject)
	}
	if got := s.revocations.of("door"); !slices.Equal(got, []string{id}) {
		t.Errorf("to be told: %q", got)
	}
}
