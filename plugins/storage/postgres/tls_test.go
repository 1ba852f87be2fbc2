package postgres_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/commucat/commucat/plugins/storage/postgres"
	"github.com/commucat/commucat/plugins/storage/postgres/pgserver"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/plugintest/selfsigned"
	"github.com/commucat/commucat/sdk/storage"
)

// TestTLS: the server's certificate must be signed by whom the configuration trusts, and
// hold the name or address that it is called by (verify-full).
func TestTLS(t *testing.T) {
	t.Parallel()
	s := pgserver.Start(t)
	cert, other := selfsigned.New(t), selfsigned.New(t)
	ours, theirs := cert.CertFile, other.CertFile
	s.Guard("guarded", "right")
	port := strconv.Itoa(s.Port)
	open := func(change map[string]any) error {
		raw := map[string]any{"address": []any{"127.0.0.1:" + port}, "user": "guarded", "password": "right", "tls": "require", "timeout": "10s"}
		for k, v := range change {
			raw[k] = v
		}
		st, err := storage.Open(t.Context(), postgres.Plugin(), nil, raw)
		if err != nil {
			return err
		}
		defer st.Close(context.Background())
		_, err = put(t.Context(), st, "q", 1)
		if change["tls"] != "auto" && s.SQL("postgres", "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'commucat'") != "t" {
			t.Error("the connection is not encrypted")
		}
		return err
	}
	s.SQL("postgres", "GRANT CREATE ON DATABASE commucat TO guarded")
	if err := open(map[string]any{"ca": ours}); !errors.Is(err, sdk.Unavailable) || !strings.Contains(err.Error(), "TLS") {
		t.Errorf("a server without TLS: %v", err)
	}
	s.Certify(cert.Cert, cert.Key, true)
	waitFor(t, "the server offers TLS", func() bool { return open(map[string]any{"ca": ours}) == nil })
	for name, test := range map[string]struct {
		change map[string]any
		want   error
		text   string
	}{
		"all is well":       {map[string]any{"ca": ours}, nil, ""},
		"another authority": {map[string]any{"ca": theirs}, sdk.Denied, "certificate"},
		"the system's":      {map[string]any{}, sdk.Denied, "certificate"},
		"another name":      {map[string]any{"ca": ours, "address": []any{"localhost:" + port}}, sdk.Denied, "certificate"},
		"a wrong password":  {map[string]any{"ca": ours, "password": "wrong word"}, sdk.Denied, "password"},
		"not encrypted":     {map[string]any{"tls": "off"}, sdk.Denied, ""},
	} {
		err := open(test.change)
		if !errors.Is(err, test.want) || err != nil && (!strings.Contains(err.Error(), test.text) || strings.Contains(err.Error(), "wrong word")) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
}
