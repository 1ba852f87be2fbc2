package obfs

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestParseTemplate(t *testing.T) {
	tests := []struct {
		in     string
		length int
		column int    // 0: no mistake
		text   string // part of the mistake
	}{
		{"", 0, 0, ""},
		{"<b 0x0102ff>", 3, 0, ""},
		{"<b 0xAB><r 10><rc 3><rd 4><t>", 1 + 10 + 3 + 4 + 4, 0, ""},
		{"<r 1232>", 1232, 0, ""},
		{"x<t>", 0, 1, "outside"},
		{"<t> <t>", 0, 4, "outside"},
		{"<t>\n", 0, 4, "outside"},
		{"<t", 0, 1, "no end"},
		{"<t><r 5", 0, 4, "no end"},
		{"<c>", 0, 2, `unknown tag "c"`},
		{"<t><wt 10>", 0, 5, `unknown tag "wt"`},
		{"<>", 0, 2, "unknown tag"},
		{"<T>", 0, 2, "unknown tag"},
		{"<t 4>", 0, 4, "no value"},
		{"<r>", 0, 4, "number from 1"},
		{"<r 0>", 0, 4, "number from 1"},
		{"<r 05>", 0, 4, "number from 1"},
		{"<r +5>", 0, 4, "number from 1"},
		{"<r 5 >", 0, 4, "number from 1"},
		{"<r 1233>", 0, 4, "number from 1"},
		{"<rc -1>", 0, 5, "number from 1"},
		{"<rd 99999999999999999999>", 0, 5, "number from 1"},
		{"<b 0x>", 0, 4, "hexadecimal"},
		{"<b 0x1>", 0, 4, "hexadecimal"},
		{"<b 01>", 0, 4, "hexadecimal"},
		{"<b 0x0g>", 0, 4, "hexadecimal"},
		{"<r 1000><r 233>", 0, 9, "grows beyond"},
		{strings.Repeat("<t>", MaxTagText), 0, MaxTagText + 1, "longer"},
	}
	for _, tt := range tests {
		tpl, err := ParseTemplate(tt.in)
		var mistake *TagError
		switch {
		case tt.column == 0 && err != nil:
			t.Errorf("%q: %v", tt.in, err)
		case tt.column == 0 && tpl.Len() != tt.length:
			t.Errorf("%q: %d bytes", tt.in, tpl.Len())
		case tt.column > 0 && (!errors.As(err, &mistake) || mistake.Column != tt.column || !strings.Contains(mistake.Text, tt.text)):
			t.Errorf("%q: %v, want column %d: %s", tt.in, err, tt.column, tt.text)
		}
	}
}

func TestTemplateAppend(t *testing.T) {
	tpl, err := ParseTemplate("<b 0xc0ffee><t><rc 40><rd 40><r 40>")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(0x01020304, 0)
	a, b := tpl.Append([]byte("x"), now)[1:], tpl.Append(nil, now)
	if len(a) != tpl.Len() || len(b) != tpl.Len() || !bytes.Equal(a[:7], []byte{0xc0, 0xff, 0xee, 1, 2, 3, 4}) {
		t.Fatalf("% x", a)
	}
	if bytes.Equal(a[7:47], b[7:47]) || bytes.Equal(a[87:], b[87:]) {
		t.Error("random parts are equal")
	}
	if strings.Trim(string(a[7:47]), letters) != "" || strings.Trim(string(a[47:87]), digits) != "" {
		t.Errorf("%q", a[7:87])
	}
}

func FuzzTemplate(f *testing.F) {
	f.Add("<b 0xAB><r 10><rc 3><rd 4><t>")
	f.Add("<r 5")
	f.Fuzz(func(t *testing.T, s string) {
		tpl, err := ParseTemplate(s)
		if err != nil {
			var mistake *TagError
			if !errors.As(err, &mistake) || mistake.Column < 1 || mistake.Column > len(s)+1 {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		if tpl.Len() > MaxDatagram || len(tpl.Append(nil, time.Time{})) != tpl.Len() {
			t.Fatalf("%q: %d bytes", s, tpl.Len())
		}
		again, err := ParseTemplate(tpl.String())
		if err != nil || again.String() != tpl.String() || !strings.EqualFold(again.String(), s) {
			t.Errorf("%q: %v, then %v, %v", s, tpl, again, err)
		}
	})
}
