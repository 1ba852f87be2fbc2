package masque

import (
	"net/http"
	"strings"
	"time"
)

// door decides who is a guest.
type door struct {
	secrets *secrets
	revoked *revocations
	bearer  bool
	now     func() time.Time
}

// guest says whose request it is. It fails for strangers, and the caller then does
// what it does for strangers: the reason is never shown. Cheap checks come first:
// who was not given a key costs one HMAC.
func (d *door) guest(r *http.Request) (grant, error) {
	value := r.Header.Get("Proxy-Authorization")
	if value == "" {
		value = r.Header.Get("Authorization")
	}
	if value == "" || r.TLS == nil {
		return grant{}, errProof
	}
	g, err := d.shown(r, value)
	if err != nil {
		return grant{}, err
	}
	if d.ended(g) {
		return grant{}, errProof
	}
	return g, nil
}

// ended says that a grant has expired or was revoked.
func (d *door) ended(g grant) bool {
	return g.over(d.now()) || g.generation < d.revoked.generation(g.guest)
}

func (d *door) shown(r *http.Request, value string) (grant, error) {
	if token, ok := strings.CutPrefix(value, "Bearer "); ok {
		if !d.bearer {
			return grant{}, errProof
		}
		return d.secrets.openBearer(token)
	}
	p, err := parseProof(value)
	if err != nil {
		return grant{}, err
	}
	g, err := d.secrets.open(p.keyID, p.public)
	if err != nil {
		return grant{}, err
	}
	host, port, err := authority(r.Host)
	if err != nil {
		return grant{}, err
	}
	return g, p.verify(r.TLS.ExportKeyingMaterial, host, port)
}
