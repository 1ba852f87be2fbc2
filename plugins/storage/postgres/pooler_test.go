package postgres

import (
	"errors"
	"strconv"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/commucat/commucat/plugins/storage/postgres/pgserver"
)

// TestSettingsDropped: a connection that has not the schema that was asked for, as behind
// a pooler that ignores settings, is refused before anything is done by it.
func TestSettingsDropped(t *testing.T) {
	s := pgserver.Start(t)
	for asked, want := range map[string]error{"ours": nil, "theirs": errUnsettled} {
		cfg, err := pgx.ParseConfig("sslmode=disable user=commucat database=commucat host=" + s.Dir + " port=" + strconv.Itoa(s.Port))
		if err != nil {
			t.Fatal(err)
		}
		cfg.RuntimeParams["search_path"] = "ours"
		cfg.ValidateConnect = (&timelines{schema: asked}).accept
		c, err := pgx.ConnectConfig(t.Context(), cfg)
		if !errors.Is(err, want) {
			t.Errorf("%s: %v", asked, err)
		}
		if err := plain("connect", err); !errors.Is(err, want) {
			t.Errorf("%s: told as %v", asked, err)
		}
		if err == nil {
			if err := c.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
}
