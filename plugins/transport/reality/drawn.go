package reality

import (
	"crypto/rand"
	"strings"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// drawnName begins the names of the files in the state folder that hold the keys and the
// short ids of a server whose table names none.
const drawnName = "drawn"

type drawn struct {
	PrivateKey string   `json:"private_key"`
	ShortIDs   []string `json:"short_ids"`
}

// lot is a drawn key with its ids, and until when it is good.
type lot = transport.Lot[drawn]

// draw is a new lot's content.
func draw() (drawn, error) {
	d, err := Draw(rand.Reader)
	return drawn{PrivateKey: strings.TrimSpace(string(d.PrivateKey)), ShortIDs: d.ShortIDs}, err
}

// unkept draws for who keeps nothing: whatever is drawn is as good as what will be.
func unkept() ([]lot, error) {
	d, err := draw()
	return []lot{{Value: d}}, err
}

// kept gives what was drawn for a state folder, the present lot first.
func kept(folder string, r transport.Rotation, now time.Time) ([]lot, error) {
	if folder == "" {
		return nil, &sdk.ConfigError{Key: "private_key", Text: "and short_ids are required where there is no state folder to keep drawn ones in"}
	}
	lots, err := transport.Lots(folder, drawnName, r, now, draw)
	if err != nil {
		return nil, err
	}
	for _, l := range lots {
		if _, err := parsePrivate(l.Value.PrivateKey); err != nil || len(l.Value.ShortIDs) == 0 {
			return nil, &sdk.Error{Kind: sdk.Corrupt, Op: "reality: " + folder, Text: "what was drawn holds no key and short ids; restore " + drawnName + "*.json from a backup, or remove them and make all links anew"}
		}
	}
	return lots, nil
}
