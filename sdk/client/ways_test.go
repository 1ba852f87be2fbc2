package client

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/link"
	"github.com/commucat/commucat/sdk/transport"
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

// Ways that the device has a key for, and the one that worked last, outlive all that never
// worked, however many the relay, a link or a Move names.
func TestWaysThatOutlive(t *testing.T) {
	way := func(i int) Endpoint { return Endpoint{Transport: "web", Host: fmt.Sprint("h", i), Port: 1} }
	full := func() *Profile {
		p := newRelay(t).profile(0)
		p.Keys = []TransportKey{{Transport: "own", Public: []byte("1"), Confirmed: time.Unix(1, 0)}}
		p.Relay.Endpoints = nil
		for i := range keptEndpoints {
			p.Relay.Endpoints = append(p.Relay.Endpoints, way(i))
		}
		p.Relay.Endpoints[9] = Endpoint{Transport: "own", Host: "h", Port: 1, Own: true}
		p.Relay.Endpoints[10] = Endpoint{Transport: "lost", Host: "h", Port: 1, Own: true} // its key is gone
		for _, i := range []int{2, 12, 8} {
			p.Relay.stood(p.Relay.Endpoints[i].key())
		}
		return p
	}
	kept := func(p *Profile) (out []string) {
		for _, w := range p.Relay.Endpoints {
			if w.Transport != "new" {
				out = append(out, strings.TrimSuffix(w.key(), ":1"))
			}
		}
		return out
	}
	news := func(from, n int) (out []ccp.Endpoint) {
		for i := range n {
			out = append(out, ccp.Endpoint{Transport: "new", Host: fmt.Sprint("n", from+i), Port: 2})
		}
		return out
	}
	for _, x := range []struct {
		name string
		n    int
		take func(*Profile, []ccp.Endpoint)
		want string
	}{
		{"the oldest that was learnt goes", 2, func(p *Profile, l []ccp.Endpoint) { p.told(l, nil, nil) },
			"web h0 web h1 web h2 web h3 web h4 web h5 web h6 web h7 web h8 own h web h12 web h13 web h14 web h15"},
		{"an Ack again and again", 40, func(p *Profile, l []ccp.Endpoint) { p.told(l, nil, nil) },
			"web h0 web h1 web h2 web h3 web h4 web h5 web h6 web h7 web h8 own h web h12"},
		{"a Move", 40, func(p *Profile, l []ccp.Endpoint) {
			c := &Client{profile: p, paths: newPaths()}
			c.opt.Now = time.Now
			c.learn("", ccp.Move{Endpoints: l})
			*p = *c.profile
		}, "web h0 web h1 web h2 web h3 web h4 web h5 web h6 web h7 web h8 own h web h12"},
		{"links", 40, func(p *Profile, l []ccp.Endpoint) {
			if added, _, err := p.AddLink(link.Link{Root: p.Relay.Root, Domain: p.Relay.Domain, Endpoints: l}); len(added) != len(l) || err != nil {
				t.Error(added, err)
			}
		}, "web h2 web h4 web h5 web h6 web h7 web h8 own h web h12"},
	} {
		p := full()
		for from := 0; from < x.n; from += 8 {
			x.take(p, news(from, min(8, x.n-from)))
		}
		if got := strings.Join(kept(p), " "); got != x.want || len(p.Relay.Endpoints) != keptEndpoints {
			t.Errorf("%s: %d with\n%s, want\n%s", x.name, len(p.Relay.Endpoints), got, x.want)
		}
	}

	// Where all have worked the longest unused goes, and the device's own way always has room.
	p := full()
	for _, e := range p.Relay.Endpoints {
		p.Relay.stood(e.key())
	}
	p.told(news(0, 8), nil, nil)
	if got := kept(p); slices.Contains(got, "web h0") || len(got) != keptEndpoints-1 {
		t.Error(got)
	}
	p.Keys = append(p.Keys, TransportKey{Transport: "mine", Public: []byte("2")})
	for i := range p.Relay.Endpoints {
		p.Relay.Endpoints[i].Transport, p.Relay.Endpoints[i].Own = "own", true
	}
	p.confirmed([]ccp.Endpoint{{Transport: "mine", Host: "h", Port: 5}}, p.announced(), time.Unix(1, 0))
	if at := slices.IndexFunc(p.Relay.Endpoints, func(e Endpoint) bool { return e.Transport == "mine" }); at < 0 {
		t.Error("the device's own way was not taken")
	}
	p.told(news(0, 8), nil, nil)
	if got := kept(p); len(got) != keptEndpoints+1 || len(p.Relay.Endpoints) != len(got) {
		t.Error(got)
	}
}

// What worked last is in the file, written once and not with every session.
func TestWorkedIsKept(t *testing.T) {
	r := newRelay(t)
	opt := r.options(0)
	opt.Profile.Relay.Endpoints = append(opt.Profile.Relay.Endpoints, Endpoint{Transport: "door", Host: "relay.example", Port: 1})
	dir := t.TempDir()
	if err := opt.Profile.Save(dir); err != nil {
		t.Fatal(err)
	}
	for _, way := range []string{"door relay.example:1", "pipe relay.example:443"} {
		opt.Dialers = []transport.Dialer{r}
		if strings.HasPrefix(way, "door") {
			opt.Dialers = []transport.Dialer{door{r}}
		}
		u := start(t, opt)
		u.connected()
		u.close()
		p, err := LoadProfile(dir)
		if err != nil || p.Relay.Worked[0] != way {
			t.Error(way, p, err)
		}
		opt.Profile = p
	}
	if n := len(opt.Profile.Relay.Worked); n != 2 {
		t.Error(n, opt.Profile.Relay.Worked)
	}
}
