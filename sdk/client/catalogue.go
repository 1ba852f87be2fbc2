package client

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/link"
)

// promised is the floor of what the relay must accept.
func (r *Relay) promised() ccp.Capabilities {
	return ccp.Capabilities(r.Promised) & ccp.AllCapabilities
}

// satisfied checks what was accepted against the catalogue's min.
func (r *Relay) satisfied(accepted ccp.Capabilities) error {
	for _, name := range r.Min {
		switch set := ccp.ParseCapabilities([]string{name}); {
		case set == 0:
			return invalid("the relay demands %q, which this program does not know: a newer version is needed", printable(name))
		case !accepted.Has(set):
			return downgraded("the relay's catalogue demands "+name+", and it was not accepted", nil)
		}
	}
	return nil
}

// takeCatalogue checks a catalogue against the pinned root and takes over its
// newest Noise key, its promises, its floor and the next root. What fails a check
// changes nothing and is returned as a warning (protocol-extensions.md section 8).
func (r *Relay) takeCatalogue(raw []byte, now time.Time) error {
	if len(raw) == 0 || r.Root == (Hex32{}) {
		return nil
	}
	if now.Before(r.verified) && bytes.Equal(raw, r.Catalogue) {
		return nil
	}
	signed, err := link.ParseSigned(raw)
	if err != nil {
		return err
	}
	byNext := false
	cat, err := link.OpenCatalogue(signed, ed25519.PublicKey(r.Root[:]))
	if link.KindOf(err) == link.BadSignature && r.RootNext != (Hex32{}) {
		cat, err = link.OpenCatalogue(signed, ed25519.PublicKey(r.RootNext[:]))
		byNext = err == nil
	}
	if err != nil {
		return err
	}
	if err := cat.Check(r.Domain, now, r.Serial); err != nil {
		return err
	}
	if cat.Serial == r.Serial { // seen before: nothing of it may change
		if bytes.Equal(raw, r.Catalogue) {
			r.verified = cat.Expires
		}
		return nil
	}
	newest := cat.Newest()
	r.Noise, r.NoiseVersion, r.Serial = newest.Public, newest.Version, cat.Serial
	r.Catalogue, r.verified = json.RawMessage(slices.Clone(raw)), cat.Expires
	// A signed catalogue with a higher serial says what is promised from now on.
	r.Promised, r.Min = uint64(cat.Promises()), slices.Clone(cat.Min)
	if cat.RootNext != nil {
		if next := Hex32(*cat.RootNext); byNext && next != r.RootNext {
			r.Root, r.RootNext = r.RootNext, next // two rotations on
		} else {
			r.RootNext = next
		}
	}
	return nil
}

func join(names []string) string { return strings.Join(names, ", ") }
