package main

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/commucat/commucat/plugins/transport/reality"
	"github.com/commucat/commucat/sdk"
)

// kept is what a bridge's reality keeps: bridge lines name it.
type kept struct {
	PrivateKey string   `json:"private_key"`
	ShortIDs   []string `json:"short_ids"`
}

const keyFile = "reality.json"

// realityKeys draws a key and short ids for a bridge that has none in its options, and
// keeps them.
func realityKeys(state string, table map[string]any) error {
	if table["private_key"] != nil {
		return nil
	}
	path := filepath.Join(state, keyFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if b, err = drawKeys(); err == nil {
			err = os.WriteFile(path, b, 0o600)
		}
	}
	if err != nil {
		return err
	}
	var k kept
	if err := json.Unmarshal(b, &k); err != nil {
		return fmt.Errorf("%s is damaged; remove it, and give out new bridge lines", path)
	}
	table["private_key"] = sdk.NewSecret([]byte(k.PrivateKey))
	if table["short_ids"] == nil {
		var ids []any
		for _, id := range k.ShortIDs {
			ids = append(ids, id)
		}
		table["short_ids"] = ids
	}
	return nil
}

func drawKeys() ([]byte, error) {
	d, err := reality.Draw(rand.Reader)
	if err != nil {
		return nil, err
	}
	return json.Marshal(kept{PrivateKey: string(d.PrivateKey), ShortIDs: d.ShortIDs})
}

// masqueLimits: all that have the bridge line are one guest to masque.
func masqueLimits(_ string, table map[string]any) error {
	if table["guest_sessions"] == nil {
		table["guest_sessions"] = int64(100000)
	}
	return nil
}
