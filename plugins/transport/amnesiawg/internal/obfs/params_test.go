package obfs

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

func template(t testing.TB, s string) Template {
	t.Helper()
	tpl, err := ParseTemplate(s)
	if err != nil {
		t.Fatal(err)
	}
	return tpl
}

func TestCheck(t *testing.T) {
	good := func() *Params {
		return &Params{
			Junk: Junk{4, 40, 300}, Prefix: [4]int{30, 50, 70, 16},
			Type: [4]Range{{10, 20}, {30, 40}, {50, 60}, {70, 80}},
		}
	}
	tests := []struct {
		name string
		set  func(*Params)
		want string // "" is no mistake
	}{
		{"good", func(*Params) {}, ""},
		{"plain", func(p *Params) { *p = *Plain() }, ""},
		{"first generation", func(p *Params) { p.Prefix[Cookie], p.Prefix[Transport] = 0, 0 }, ""},
		{"no junk", func(p *Params) { p.Junk = Junk{} }, ""},
		{"much junk", func(p *Params) { p.Junk.Count = 65 }, "jc: must be 0 to 64"},
		{"negative", func(p *Params) { p.Junk.Count = -1 }, "jc: must be 0 to 64"},
		{"long junk", func(p *Params) { p.Junk.Max = 1233 }, "jmax: must be at most 1232"},
		{"one length", func(p *Params) { p.Junk.Max = 40 }, "jmax: must be larger than jmin"},
		{"special", func(p *Params) { p.Special[2] = template(t, "<r 147><b 0x01>") }, "i3: makes 148 bytes"},
		{"prefix", func(p *Params) { p.Prefix[Initiation] = 1085 }, "s1: must be 0 to 1084"},
		{"transport prefix", func(p *Params) { p.Prefix[Transport] = 129 }, "s4: must be 0 to 128"},
		{"same length", func(p *Params) { p.Prefix[Response] = 86 }, "s2: makes the response 178 bytes long, as another"},
		{"plain length", func(p *Params) { p.Prefix[Response] = 56 }, "s2: makes the response 148 bytes long, as a message of plain"},
		{"keepalive of 64", func(p *Params) { p.Prefix[Transport] = 32 }, "s4: makes data packets of 64"},
		{"data of 148", func(p *Params) { p.Prefix[Transport] = 20 }, "s4: makes data packets of 148"},
		{"no data of 92", func(p *Params) { p.Prefix[Transport] = 12 }, ""},
		{"keepalive of 92", func(p *Params) { p.Prefix[Transport] = 60 }, "s4: makes data packets of 92"},
		{"overlap", func(p *Params) { p.Type[3] = Range{40, 45} }, "h4: overlaps h2"},
		{"upside down", func(p *Params) { p.Type[3] = Range{45, 41} }, "h4: must be a number"},
		{"zero", func(p *Params) { p.Type[0] = Range{} }, "h1: must be a number"},
		{"nonce", func(p *Params) { p.Protection[0], p.Prefix[Transport] = 1, 11 }, "s4: must be at least 12"},
		{"padding", func(p *Params) { p.Padding = Range{0, 513} }, "padding: must be a range"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := good()
			tt.set(p)
			err := p.Check()
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

func TestDraw(t *testing.T) {
	seen := map[string]bool{}
	for _, g := range []Generation{V1, V1_5, V2, V3} {
		for range 200 {
			p := Draw(g)
			if err := p.Check(); err != nil || p.IsPlain() {
				t.Fatalf("%s: %+v: %v", g, p, err)
			}
			for k, r := range p.Type {
				if r.Low < 5 || r.High >= 1<<31 || (g == V1 || g == V1_5) != (r.Low == r.High) {
					t.Fatalf("%s: h%d %v", g, k+1, r)
				}
			}
			if p.Protected() != (g == V3) || g == V1 && p.Prefix[Transport] != 0 {
				t.Fatalf("%s: %+v", g, p)
			}
			seen[string(p.Marshal())] = true
		}
	}
	if len(seen) != 800 {
		t.Errorf("%d different ones of 800", len(seen))
	}
}

// Another program that follows drawn parameters sends nothing as long as a handshake
// message of plain WireGuard. Only generation 1.0 has no prefix for cookie replies.
func TestDrawLengths(t *testing.T) {
	for _, g := range []Generation{V1, V1_5, V2, V3} {
		for range 5000 {
			p := Draw(g)
			for _, j := range []Junk{p.Junk, DrawJunk()} {
				if j.Count < 1 || j.Min <= 148 || j.Max <= j.Min || j.Max > MaxDatagram {
					t.Fatalf("%s: junk %+v", g, j)
				}
			}
			for k := Initiation; k <= Cookie; k++ {
				if n := p.Prefix[k] + messageSize[k]; plainSize(n) && (g != V1 || k != Cookie) {
					t.Fatalf("%s: %s of %d bytes", g, kindNames[k], n)
				}
			}
			for inner := 0; inner <= 1280; inner += 16 {
				if p.Prefix[Transport] == 0 && inner > 0 && inner < 48 {
					continue // less than the least packet of IPv6
				}
				if n := p.Prefix[Transport] + TransportSize + inner; plainSize(n) {
					t.Fatalf("%s: data of %d bytes", g, n)
				}
			}
		}
	}
}

func TestJunk(t *testing.T) {
	j := Junk{5, 140, 150}
	for range 200 {
		out := j.Render()
		if len(out) != 5 {
			t.Fatalf("%d", len(out))
		}
		for _, b := range out {
			if len(b) < 140 || len(b) > 150 || len(b) == 148 {
				t.Fatalf("%d bytes", len(b))
			}
		}
	}
	if len((Junk{}).Render()) != 0 {
		t.Error("junk without junk")
	}
	s := Specials{1: template(t, "<b 0x0a>"), 4: template(t, "<b 0x0b>")}
	if got := s.Render(time.Now()); len(got) != 2 || got[0][0] != 0x0a || got[1][0] != 0x0b {
		t.Errorf("% x", got)
	}
}

func TestFillUnlike(t *testing.T) {
	for range 100_000 {
		b := make([]byte, 4+rand.IntN(2))
		fillUnlike(b)
		if b[1]|b[2]|b[3] == 0 {
			t.Fatalf("% x", b)
		}
	}
	for n := range 20 {
		a, b := make([]byte, n), make([]byte, n)
		Fill(a)
		Fill(b)
		if n >= 8 && bytes.Equal(a, b) {
			t.Errorf("%d equal bytes", n)
		}
	}
}

func TestCode(t *testing.T) {
	p := Draw(V3)
	p.Special[0] = template(t, "<b 0xc0ff><r 7><t>")
	p.Special[3] = template(t, "<rc 7><rd 9>")
	p.Padding, p.Trailers = Range{4, 60}, true
	for name, p := range map[string]*Params{"all": p, "plain": Plain(), "second": Draw(V2), "first": Draw(V1)} {
		b := p.Marshal()
		q, err := Unmarshal(b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !bytes.Equal(q.Marshal(), b) || q.Type != p.Type || q.Prefix != p.Prefix || q.Junk != p.Junk ||
			q.Protection != p.Protection || q.Trailers != p.Trailers || q.Padding != p.Padding {
			t.Errorf("%s: %+v, want %+v", name, q, p)
		}
		for i := range p.Special {
			if q.Special[i].String() != p.Special[i].String() {
				t.Errorf("%s: i%d %s", name, i+1, q.Special[i])
			}
		}
		for n := range b {
			if _, err := Unmarshal(b[:n]); err == nil {
				t.Errorf("%s: %d of %d bytes accepted", name, n, len(b))
			}
		}
		if _, err := Unmarshal(append(b, 0)); err == nil {
			t.Errorf("%s: trailing byte accepted", name)
		}
		if name == "second" && len(b) > 60 {
			t.Errorf("%d bytes for a link", len(b))
		}
	}
}

func FuzzUnmarshal(f *testing.F) {
	f.Add(Plain().Marshal())
	p := Draw(V3)
	p.Special[0] = template(f, "<b 0xc0ff><r 7><t>")
	f.Add(p.Marshal())
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Unmarshal(b)
		if err == nil && !bytes.Equal(p.Marshal(), b) {
			t.Errorf("% x becomes % x", b, p.Marshal())
		}
		if err == nil && p.Check() != nil {
			t.Errorf("% x: %v", b, p.Check())
		}
	})
}
