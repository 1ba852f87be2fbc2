package onion

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

// spoken is a connection whose other side has said everything in advance.
type spoken struct {
	io.Reader
	said bytes.Buffer
}

func (s *spoken) Write(b []byte) (int, error) { return s.said.Write(b) }

func TestAskSocks(t *testing.T) {
	for name, x := range map[string]struct {
		answer string
		want   string // "" is granted
		rest   string
	}{
		"IPv4":          {"\x05\x02\x01\x00\x05\x00\x00\x01abcdPPrest", "", "rest"},
		"IPv6":          {"\x05\x02\x01\x00\x05\x00\x00\x040123456789abcdefPPrest", "", "rest"},
		"name":          {"\x05\x02\x01\x00\x05\x00\x00\x03\x02hiPPrest", "", "rest"},
		"no login":      {"\x05\xff", "answers 5, 255", ""},
		"refused login": {"\x05\x02\x01\x01", "refuses the login", ""},
		"short":         {"\x05\x02\x01\x00\x05\x00", "EOF", ""},
		"version":       {"\x05\x02\x01\x00\x04\x00\x00\x01", "version 4", ""},
		"kind":          {"\x05\x02\x01\x00\x05\x00\x00\x09", "kind 9", ""},
		"revoked":       {"\x05\x02\x01\x00\x05\xf5\x00\x01", "does not know the key", ""},
		"unknown":       {"\x05\x02\x01\x00\x05\x99\x00\x01", "code 153", ""},
	} {
		c := &spoken{Reader: strings.NewReader(x.answer)}
		err := askSocks(c, "user", "x.onion", 80)
		if (err == nil) != (x.want == "") || err != nil && !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil {
			continue
		}
		if rest, _ := io.ReadAll(c); string(rest) != x.rest {
			t.Errorf("%s: %q is left", name, rest)
		}
		if want := "\x05\x01\x02\x01\x04user\x010\x05\x01\x00\x03\x07x.onion\x00P"; c.said.String() != want {
			t.Errorf("%s: said %q", name, c.said.String())
		}
	}
	// Every refusal says something of its own, or its code.
	seen := map[string]bool{}
	for code := range 256 {
		if text := refusal(byte(code)).Error(); seen[text] {
			t.Errorf("%d: %s again", code, text)
		} else {
			seen[text] = true
		}
	}
}

func FuzzAskSocks(f *testing.F) {
	f.Add([]byte("\x05\x02\x01\x00\x05\x00\x00\x01abcdPPrest"))
	f.Add([]byte("\x05\x02\x01\x00\x05\xf0"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		err := askSocks(&spoken{Reader: r}, "user", "x.onion", 80)
		var no refusal
		if errors.As(err, &no) && no == 0 {
			t.Error("a refusal without a reason")
		}
		if err == nil && r.Len() > len(b)-2-2-4-4-2+3 {
			t.Errorf("%d of %d bytes are left", r.Len(), len(b))
		}
	})
}
