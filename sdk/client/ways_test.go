package client

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/link"
)

func TestAddLink(t *testing.T) {
	r := newRelay(t)
	p := r.profile(0)
	p.UserID, p.Keys = "u-1", []TransportKey{{Transport: "a", Public: []byte("1"), Confirmed: time.Unix(1, 0)}}
	p.Relay.Endpoints = []Endpoint{
		{Transport: "pipe", Host: "relay.example", Port: 443}, {Transport: "a", Host: "relay.example", Port: 1, Own: true},
	}
	p.Relay.Entry = []EntryCredential{{ID: []byte("older")}, {ID: []byte("newer")}}
	l := r.link(link.Invite, 0)
	l.Entry = &link.Entry{ID: [8]byte{1}, Key: [16]byte{2}}
	l.NoiseVersion, l.NoisePublic = 2, [32]byte{3}
	l.Endpoints = append(l.Endpoints,
		link.Endpoint{Transport: "a", Host: "relay.example", Port: 1, Params: ccp.ParamsOf(map[string]string{"secret": "x"})},
		link.Endpoint{Transport: "b", Host: "relay.example", Port: 2})
	before := slices.Clone(p.Relay.Endpoints)
	added, changed, err := p.AddLink(l)
	show := func(ways []Endpoint) (out []string) {
		for _, w := range ways {
			out = append(out, fmt.Sprintf("%s%v%v", w.key(), w.Params, w.Own))
		}
		return out
	}
	secret, b := "a relay.example:1map[secret:x]false", "b relay.example:2map[]false"
	if err != nil || !slices.Equal(show(added), []string{b}) || !slices.Equal(show(changed), []string{secret}) {
		t.Fatal(show(added), show(changed), err)
	}
	// The device's own way stays beside the link's.
	if got, want := show(p.Relay.Endpoints), append(show(before), secret, b); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if p.Invite != nil || p.UserID != "u-1" || p.Relay.NoiseVersion != 2 || p.Relay.Noise != (Hex32{3}) {
		t.Error("account, secret or key", p.Relay.NoiseVersion)
	}
	if e := p.Relay.Entry; len(e) != 2 || string(e[0].ID) != string(l.Entry.ID[:]) || string(e[1].ID) != "newer" {
		t.Error("credentials", e)
	}
	// The same again tells nothing, and an older key is not taken back.
	l.NoiseVersion, l.NoisePublic = 1, [32]byte{4}
	if added, changed, err := p.AddLink(l); len(added)+len(changed) > 0 || err != nil || p.Relay.NoiseVersion != 2 || len(p.Relay.Entry) != 2 {
		t.Error(show(added), show(changed), err)
	}
	// The bound holds, and the newest are there.
	for port := range uint16(3 * keptEndpoints) {
		l.Endpoints = []link.Endpoint{{Transport: "c", Host: "relay.example", Port: port + 1}}
		if _, _, err := p.AddLink(l); err != nil {
			t.Fatal(err)
		}
	}
	if ways := p.Relay.Endpoints; len(ways) != keptEndpoints || ways[0].Transport != "pipe" || ways[len(ways)-1].Port != 3*keptEndpoints {
		t.Errorf("%q", show(ways))
	}
}

func TestAddLinkRefused(t *testing.T) {
	r := newRelay(t)
	for name, tc := range map[string]struct {
		want   string
		change func(*Profile, *link.Link)
	}{
		"another relay":  {"the link of another relay", func(_ *Profile, l *link.Link) { l.Root = [32]byte{1} }},
		"another domain": {"for the domain other.example", func(_ *Profile, l *link.Link) { l.Domain = "other.example" }},
		"no root":        {"knows no root key", func(p *Profile, _ *link.Link) { p.Relay.Root = Hex32{} }},
		"no root at all": {"knows no root key", func(p *Profile, l *link.Link) { p.Relay.Root, l.Root = Hex32{}, [32]byte{} }},
		"root unset":     {"the link of another relay", func(_ *Profile, l *link.Link) { l.Root = [32]byte{} }},
	} {
		p, l := r.profile(0), r.link(link.Address, 0)
		l.Endpoints[0].Port++
		tc.change(p, &l)
		if _, _, err := p.AddLink(l); !isKind(err, Invalid) || !strings.Contains(err.Error(), tc.want) || len(p.Relay.Endpoints) != 1 || p.Relay.Endpoints[0].Port != 443 {
			t.Errorf("%s: %v, %v", name, err, p.Relay.Endpoints)
		}
	}
	// A root that follows the present one is good.
	p, l := r.profile(0), r.link(link.Address, 0)
	p.Relay.Root, p.Relay.RootNext = Hex32{1}, p.Relay.Root
	if _, _, err := p.AddLink(l); err != nil {
		t.Error(err)
	}
}

func TestNoWay(t *testing.T) {
	r := newRelay(t)
	for _, tc := range []struct {
		transport, endpoint, want string
	}{
		{"", "other", "this profile knows no way over pipe, only over other: take a link that names one: commucat client link add --profile DIR LINK"},
		{"pipe", "other", "knows no way over pipe, only over other: "},
		{"other", "other", "this program has no transport \"other\""},
	} {
		opt := r.options(0)
		opt.Profile.Relay.Endpoints[0].Transport, opt.Transport = tc.endpoint, tc.transport
		if _, err := New(opt); !isKind(err, Invalid) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: %v", tc, err)
		}
	}
}

func TestTold(t *testing.T) {
	at := func(name, host string, port uint16, params string) ccp.Endpoint {
		return ccp.Endpoint{Transport: name, Host: host, Port: port, Params: params}
	}
	show := func(p *Profile) (out []string) {
		for _, w := range p.Relay.Endpoints {
			out = append(out, fmt.Sprintf("%s%v%v%v", w.key(), w.Params, w.Own, w.Told))
		}
		return out
	}
	p := newRelay(t).profile(0)
	p.Relay.Endpoints = []Endpoint{
		{Transport: "web", Host: "h", Port: 443},
		{Transport: "obfs4", Host: "h", Port: 1, Params: map[string]string{"cert": "old"}},
		{Transport: "onion", Host: "x", Port: 80, Own: true},
	}
	start := []string{"web h:443map[]falsefalse", "obfs4 h:1map[cert:new]falsefalse", "onion x:80map[]truefalse"}
	for _, x := range []struct { // one after the other
		name  string
		list  []ccp.Endpoint
		named []ccp.TransportKey
		keyed []string
		more  []string
	}{
		{name: "of a link", list: []ccp.Endpoint{at("obfs4", "h", 1, "cert=new")}},
		{name: "nothing"},
		{name: "the device's own", list: []ccp.Endpoint{at("onion", "x", 80, "a=b"), at("reality", "h", 9, "")}, named: []ccp.TransportKey{{Transport: "reality"}}},
		{name: "keyed", list: []ccp.Endpoint{at("masque", "h", 9, "")}, keyed: []string{"masque"}},
		{name: "another port", list: []ccp.Endpoint{at("obfs4", "h", 2, "")}, more: []string{"obfs4 h:2map[]falsetrue"}},
		{name: "replaces what was told", list: []ccp.Endpoint{at("obfs4", "H", 3, "")}, more: []string{"obfs4 H:3map[]falsetrue"}},
		{name: "another host", list: []ccp.Endpoint{at("obfs4", "g", 3, "")}, more: []string{"obfs4 H:3map[]falsetrue", "obfs4 g:3map[]falsetrue"}},
	} {
		before := slices.Clone(p.Relay.Endpoints)
		kept := p.Relay.Endpoints
		p.told(x.list, x.named, x.keyed)
		if got, want := show(p), append(slices.Clone(start), x.more...); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", x.name, got, want)
		}
		if !slices.Equal(p.Wanted, x.keyed) {
			t.Errorf("%s: wanted %q", x.name, p.Wanted)
		}
		for i := range before { // the profile of before may be in use
			if kept[i].key() != before[i].key() {
				t.Errorf("%s: changed in place", x.name)
			}
		}
	}
	for port := range uint16(3 * keptEndpoints) {
		p.told([]ccp.Endpoint{at("obfs4", fmt.Sprint("h", port), 1, "")}, nil, nil)
	}
	if ways := p.Relay.Endpoints; len(ways) != keptEndpoints || ways[0].Transport != "web" {
		t.Errorf("%q", show(p))
	}
}
