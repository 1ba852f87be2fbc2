package keyring

import (
	"crypto/ed25519"
	"slices"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/link"
)

// A catalogue is valid for catalogueLife and renewed at half of it.
const catalogueLife = link.MaxValidity

// published is the catalogue in force.
type published struct {
	Serial uint64         `json:"serial"`
	Signed link.Signed    `json:"signed"`
	open   link.Catalogue // what it says
	json   []byte
}

// Catalogue is the signed catalogue as JSON, for the Ack and server-info. The
// result is shared: it must not be changed.
func (r *Ring) Catalogue() []byte { return r.catalogue.Load().json }

func (r *Ring) loadCatalogue() error {
	p := new(published)
	ok, err := r.dir.object("catalogue", p)
	if err != nil {
		return err
	}
	if ok {
		// One that this root did not sign, or of another form, is made anew: only the
		// serial must never fall.
		if p.open, err = link.OpenCatalogue(p.Signed, r.root.Public().(ed25519.PublicKey)); err == nil {
			p.json = p.Signed.AppendJSON(nil)
		}
	}
	r.catalogue.Store(p)
	return nil
}

// publish signs a new catalogue when what it says has changed or half of its
// life is over. The serial is the time where that is higher, so that it does not
// fall when the file is lost.
func (r *Ring) publish(now time.Time) ([]Change, error) {
	old := r.catalogue.Load()
	c := link.Catalogue{
		Domain: r.opt.Domain, Serial: max(old.Serial+1, uint64(max(now.Unix(), 1))), Issued: now, Expires: now.Add(catalogueLife),
		CA: [][32]byte{r.ca.Public()}, Features: r.opt.Features.Names(), Min: r.opt.Min.Names(),
	}
	for _, k := range r.NoiseKeys() {
		c.Noise = append(c.Noise, link.NoiseKey{Version: k.Version, Public: k.Pair.Public, NotAfter: k.ExpiresAt})
	}
	if old.json != nil && same(old.open, c) && old.open.Issued.Add(catalogueLife/2).After(now) {
		return nil, nil
	}
	signed, err := link.SignCatalogue(c, r.root)
	if err != nil {
		return nil, err
	}
	p := &published{Serial: c.Serial, Signed: signed, open: c, json: signed.AppendJSON(nil)}
	if err := r.dir.putObject("catalogue", p); err != nil {
		return nil, err
	}
	r.catalogue.Store(p)
	return []Change{{What: "catalogue", Version: uint32(min(c.Serial, ccp.MaxSequence))}}, nil
}

// same says that two catalogues promise the same.
func same(a, b link.Catalogue) bool {
	return a.Domain == b.Domain && slices.Equal(a.CA, b.CA) && slices.Equal(a.Features, b.Features) && slices.Equal(a.Min, b.Min) &&
		slices.EqualFunc(a.Noise, b.Noise, func(x, y link.NoiseKey) bool {
			return x.Version == y.Version && x.Public == y.Public && x.NotAfter.Equal(y.NotAfter)
		})
}
