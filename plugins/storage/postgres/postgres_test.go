package postgres_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"testing"

	"github.com/commucat/commucat/plugins/storage/postgres"
	"github.com/commucat/commucat/plugins/storage/postgres/pgserver"
	"github.com/commucat/commucat/sdk/plugintest"
	"github.com/commucat/commucat/sdk/storage"
)

// serverVariable tells a victim process where the server is.
const serverVariable = "COMMUCAT_TEST_PGSOCKET"

func opener(socket string) plugintest.StorageOpen {
	return func(ctx context.Context, dir string) (storage.Store, error) {
		// A folder of the suite is a schema here.
		sum := sha256.Sum256([]byte(dir))
		return storage.Open(ctx, postgres.Plugin(), nil, map[string]any{
			"address": []any{socket}, "schema": "t" + hex.EncodeToString(sum[:8]),
		})
	}
}

func TestMain(m *testing.M) {
	plugintest.StorageVictim(opener(os.Getenv(serverVariable)))
	os.Exit(m.Run())
}

func TestConformance(t *testing.T) {
	s := pgserver.Start(t)
	plugintest.Storage(t, opener(s.Address()), plugintest.StorageOptions{Victim: true, Variables: []string{serverVariable + "=" + s.Address()}})
}
