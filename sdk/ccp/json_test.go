package ccp

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestValidControl(t *testing.T) {
	nest := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for _, c := range []struct {
		name, in string
		ok       bool
	}{
		{"object", `{"a":[1,2.5,-3e2,true,false,null,"x"]}`, true},
		{"any value", `17`, true},
		{"string", `"x"`, true},
		{"space around", " \t\r\n{} \t\r\n", true},
		{"space inside", ` { "a" : [ 1 , 2 ] , "b" : { } , "c" : [ ] } `, true},
		{"duplicate keys", `{"a":1,"a":2}`, true},
		{"escapes", `"\"\\\/\b\f\n\r\t\u00e9\uD83D\uDE00"`, true},
		{"raw unicode", `"é😀` + "\u2028\u007f" + `"`, true},
		{"escaped nul", `"\u0000"`, true},
		{"depth 127", nest(127), true},
		{"depth 128", nest(128), false},
		{"depth 127 of objects", strings.Repeat(`{"a":`, 127) + "1" + strings.Repeat("}", 127), true},
		{"depth 128 of objects", strings.Repeat(`{"a":`, 128) + "1" + strings.Repeat("}", 128), false},
		{"empty", ``, false},
		{"space only", ` `, false},
		{"two values", `{} {}`, false},
		{"trailing", `{}x`, false},
		{"byte order mark", "\ufeff{}", false},
		{"comma at the end", `[1,]`, false},
		{"comma in front", `[,1]`, false},
		{"comma at the end of an object", `{"a":1,}`, false},
		{"no comma", `[1 2]`, false},
		{"no colon", `{"a" 1}`, false},
		{"no key", `{1:2}`, false},
		{"no value", `{"a":}`, false},
		{"open object", `{"a":1`, false},
		{"open key", `{"a`, false},
		{"open array", `[1`, false},
		{"open string", `"a`, false},
		{"open escape", `"\`, false},
		{"closing only", `}`, false},
		{"wrong bracket", `[1}`, false},
		{"control character", "\"\x1f\"", false},
		{"bad utf-8", "\"\xff\"", false},
		{"overlong utf-8", "\"\xc0\x80\"", false},
		{"utf-8 surrogate", "\"\xed\xa0\x80\"", false},
		{"cut utf-8", "\"\xe2\x82\"", false},
		{"bad escape", `"\x"`, false},
		{"short escape", `"\u12"`, false},
		{"bad hex", `"\u12g4"`, false},
		{"lone high surrogate", `"\ud800"`, false},
		{"high surrogate and text", `"\ud800abcdef"`, false},
		{"two high surrogates", `"\ud800\ud800"`, false},
		{"lone low surrogate", `"\udc00"`, false},
		{"word", `nul`, false},
		{"capital word", `True`, false},
		{"word and more", `truex`, false},
		{"zero", `0`, true},
		{"minus zero", `-0`, true},
		{"leading zero", `01`, false},
		{"plus", `+1`, false},
		{"minus alone", `-`, false},
		{"point alone", `1.`, false},
		{"no whole part", `.5`, false},
		{"exponent alone", `1e`, false},
		{"exponent sign alone", `1e+`, false},
		{"hex", `0x1`, false},
		{"infinity", `Infinity`, false},
		{"nan", `NaN`, false},
		{"largest float", `1.7976931348623157e308`, true},
		{"rounds to the largest float", `1.797693134862315807e308`, true},
		{"rounds to infinity", `1.797693134862315808e308`, false},
		{"too large", `1e309`, false},
		{"too large, negative", `-1e309`, false},
		{"large mantissa, small exponent", "1" + strings.Repeat("0", 400) + "e-200", true},
		{"large mantissa", "1" + strings.Repeat("0", 309), false},
		{"309 digits", "1" + strings.Repeat("0", 308), true},
		{"small mantissa, large exponent", "0." + strings.Repeat("0", 400) + "1e700", true},
		{"the limit itself", floatOverflow, false},
		{"just below the limit", floatOverflow[:308] + "1", true},
		{"zero with a huge exponent", `0e99999999999999999999`, true},
		{"zero fraction with a huge exponent", `0.000e999999999999`, true},
		{"tiny", `1e-99999999999999999999`, true},
		{"leading zeros of an exponent", `1e000000000000000000001`, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := ValidControl([]byte(c.in))
			if c.ok != (err == nil) || !c.ok && KindOf(err) != Control {
				t.Errorf("ValidControl(%.60s): %v", c.in, err)
			}
		})
	}
	full := append(bytes.Repeat([]byte{' '}, MaxControl-1), '1')
	if err := ValidControl(full); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	if err := ValidControl(append(full, ' ')); KindOf(err) != ControlLimit {
		t.Errorf("over the limit: %v", err)
	}
}

func TestCanonicalJSON(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"sorted at every depth", ` { "b" : 1 , "a" : { "z":[ {"y":1,"x":2} ] , "A":null } } `, `{"a":{"A":null,"z":[{"x":2,"y":1}]},"b":1}`},
		{"last of equal keys", `{"a":1,"b":2,"a":{"c":3}}`, `{"a":{"c":3},"b":2}`},
		{"equal after unescaping", `{"a":1,"\u0061":2}`, `{"a":2}`},
		{"order of bytes, not of escapes", `{"a\\":1,"a\u0000":2,"a\"":3,"a!":4,"a":5,"é":6,"\u00e8":7}`,
			`{"a":5,"a\u0000":2,"a!":4,"a\"":3,"a\\":1,"è":7,"é":6}`},
		{"escapes", `"\/\u0041\u001F\b\f\n\r\t\"\\\u007f\u2028<>&\ud83d\ude00"`, `"/A\u001f\b\f\n\r\t\"\\` + "\u007f\u2028<>&😀" + `"`},
		{"integers", `[0,-1,18446744073709551615,-9223372036854775808,9007199254740993]`, `[0,-1,18446744073709551615,-9223372036854775808,9007199254740993]`},
		{"integers over 64 bits", `[18446744073709551616,-9223372036854775809]`, `[1.8446744073709552e19,-9.223372036854776e18]`},
		{"floats", `[1.0,1e2,1E+2,0.1,-0,-0.0,0e5,1e16,1e15,123456789012345680.0,1e-5,1e-6,0.00001234,0.0000012,5e-324,1.7976931348623157e308,100.25]`,
			`[1.0,100.0,100.0,0.1,-0.0,-0.0,0.0,1e16,1000000000000000.0,1.2345678901234568e17,0.00001,1e-6,0.00001234,1.2e-6,5e-324,1.7976931348623157e308,100.25]`},
		{"empty", `{"b":{},"a":[]}`, `{"a":[],"b":{}}`},
		{"scalar", ` true `, `true`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := CanonicalJSON([]byte(c.in))
			if err != nil || string(got) != c.want {
				t.Errorf("CanonicalJSON = %s, %v, want %s", got, err, c.want)
			}
			if again, err := CanonicalJSON(got); err != nil || !bytes.Equal(again, got) {
				t.Errorf("again %s, %v", again, err)
			}
		})
	}
	if got, err := AppendCanonicalJSON([]byte("kept"), []byte(`{`)); string(got) != "kept" || KindOf(err) != Control {
		t.Errorf("%s, %v", got, err)
	}
}

// Hostile shapes cost time in proportion to their length, not to its square.
func TestCanonicalJSONOfHostileShapes(t *testing.T) {
	deep := strings.Repeat(`{"b":1,"a":`, 126) + "[" + strings.Repeat(`"xxxxxxxxxxxxxx",`, 14_000) + "0]" + strings.Repeat("}", 126)
	var wide strings.Builder
	for i := range 20_000 {
		wide.WriteString(`,"` + strconv.Itoa(20_000-i) + `":0`)
	}
	for name, in := range map[string]string{"deep": deep, "wide": "{" + wide.String()[1:] + "}"} {
		got, err := CanonicalJSON([]byte(in))
		if err != nil || len(got) != len(in) {
			t.Errorf("%s: %d bytes of %d, %v", name, len(got), len(in), err)
		}
	}
}

func TestRaw(t *testing.T) {
	v, err := ParseRaw([]byte(` {"u":7,"i":-7,"m":-9223372036854775808,"s":"\u00e9x","b":true,"n":null,"h":"00Ff","a":[1,"two"],"o":{"k":1,"k":2},"f":1.0} `))
	if err != nil {
		t.Fatal(err)
	}
	if u, ok := v.Get("u").Uint(); u != 7 || !ok {
		t.Error(u, ok)
	}
	if i, ok := v.Get("i").Int(); i != -7 || !ok {
		t.Error(i, ok)
	}
	if i, ok := v.Get("m").Int(); i != math.MinInt64 || !ok {
		t.Error(i, ok)
	}
	if s, ok := v.Get("s").Text(); s != "éx" || !ok {
		t.Error(s, ok)
	}
	if b, ok := v.Get("b").Bool(); !b || !ok {
		t.Error(b, ok)
	}
	var h [2]byte
	if !v.Get("h").Hex(h[:]) || h != [2]byte{0, 255} {
		t.Error(h)
	}
	n := 0
	for range v.Get("a").Elements() {
		n++
	}
	for range v.Get("o").Members() {
		n++
	}
	if k, _ := v.Get("o").Get("k").Uint(); n != 4 || k != 2 {
		t.Error(n, k)
	}
	if !v.Get("n").IsNull() || !v.IsObject() || !v.Get("a").IsArray() || v.Get("missing") != nil {
		t.Error("kinds")
	}
	for _, wrong := range []string{"i", "s", "f", "n", "a", "missing"} {
		if _, ok := v.Get(wrong).Uint(); ok {
			t.Errorf("%s reads as an unsigned integer", wrong)
		}
	}
	for _, wrong := range []string{"u", "n", "a", "o", "missing"} {
		if _, ok := v.Get(wrong).Text(); ok {
			t.Errorf("%s reads as a text", wrong)
		}
		for range v.Get(wrong).Get("x").Elements() {
			t.Error("elements of nothing")
		}
	}
}

func TestAppendObject(t *testing.T) {
	got := string(AppendObject(nil, Text("b", "x\"\n"), Bool("a", true), Uint("c", 7), Member{"u", User{ID: "u", Handle: "h"}.AppendJSON(nil)}, Member{Key: "none"}))
	if want := `{"a":true,"b":"x\"\n","c":7,"u":{"avatar_url":null,"display_name":null,"handle":"h","id":"u","user_id":"u"}}`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	members := append(make([]Member, 0, 4), Text("z", ""), Text("a", ""))
	AppendReply(nil, 1, members...)
	if members[:3][2].Key != "" {
		t.Error("AppendReply wrote behind its caller's members")
	}
}

func TestFormatTime(t *testing.T) {
	base := time.Date(2025, 10, 16, 2, 0, 0, 0, time.FixedZone("", 7200))
	for ns, want := range map[int]string{
		0: "2025-10-16T00:00:00+00:00", 120e6: "2025-10-16T00:00:00.120+00:00",
		1e3: "2025-10-16T00:00:00.000001+00:00", 1: "2025-10-16T00:00:00.000000001+00:00",
	} {
		if got := FormatTime(base.Add(time.Duration(ns))); got != want {
			t.Errorf("FormatTime = %s, want %s", got, want)
		}
	}
}

func TestJSONAllocs(t *testing.T) {
	in := []byte(`{"a":[1,2.5e10,"x\u00e9",{"b":null}],"c":"` + strings.Repeat("é", 500) + `"}`)
	if n := testing.AllocsPerRun(100, func() {
		if err := ValidControl(in); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzControl(f *testing.F) {
	for _, s := range []string{`{"b":1,"a":[1e2,"\u0000"],"b":2}`, `[[[]]]`, `"\ud83d\ude00"`, `-0.0`, `18446744073709551616`, `{"a":`, "\"\xff\"", `1e309`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		err := ValidControl(in)
		if err == nil && !json.Valid(in) {
			t.Fatal("accepted what encoding/json refuses")
		}
		out, cerr := CanonicalJSON(in)
		if (err == nil) != (cerr == nil) {
			t.Fatalf("ValidControl %v, CanonicalJSON %v", err, cerr)
		}
		if err != nil {
			return
		}
		if len(out) > MaxControl {
			return
		}
		again, err := CanonicalJSON(out)
		if err != nil || !bytes.Equal(again, out) {
			t.Fatalf("%s becomes %s, %v", out, again, err)
		}
		// A second opinion: both texts mean the same to encoding/json.
		var a, b any
		if json.Unmarshal(in, &a) != nil || json.Unmarshal(out, &b) != nil {
			t.Fatal("encoding/json cannot read it")
		}
		x, errX := json.Marshal(a)
		y, errY := json.Marshal(b)
		if errX != nil || errY != nil || !bytes.Equal(x, y) {
			t.Fatalf("%s is not %s", x, y)
		}
	})
}

func BenchmarkValidControl(b *testing.B) {
	in := []byte(`{"call_id":"0123456789abcdef","direction":"send","audio":{"bitrate":16000,"packet_loss":0.25,"jitter_ms":12}}`)
	b.ReportAllocs()
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		if err := ValidControl(in); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCanonicalJSON(b *testing.B) {
	in := []byte(`{"direction":"send","call_id":"0123456789abcdef","audio":{"packet_loss":0.25,"bitrate":16000,"jitter_ms":12}}`)
	buf := make([]byte, 0, 256)
	b.ReportAllocs()
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		var err error
		if buf, err = AppendCanonicalJSON(buf[:0], in); err != nil {
			b.Fatal(err)
		}
	}
}
