package account

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

// Limits of texts, in characters.
const (
	MaxHandle      = 64
	MaxDisplayName = 128
	MaxDeviceName  = 64
	MaxAvatarURL   = 1024 // bytes
)

// CheckHandle tells whether h may become a handle: 1 to 64 characters, UTF-8,
// letters, marks, digits and ordinary symbols, no controls, no white space, no
// '@', '/', '\', '"', '<', '>', '&' and nothing that does not print.
func CheckHandle(h string) error {
	bad := &Error{Code: CodeHandleInvalid, Text: "handle breaks the rules", Kind: sdk.Invalid}
	if h == "" || !utf8.ValidString(h) || utf8.RuneCountInString(h) > MaxHandle {
		return bad
	}
	for _, r := range h {
		if strings.ContainsRune("@/\\\"<>&", r) || unicode.IsSpace(r) || !unicode.IsPrint(r) || ignorable(r) {
			return bad
		}
	}
	// Some characters unfold into many; the key must be one that records can have.
	if k := Fold(h); k == "" || len(k) > storage.MaxID {
		return bad
	}
	return nil
}

// Fold gives the key under which a handle is unique: Unicode form NFKC (full-width
// letters, ligatures), simple case folding, with the separators '-', '_' and '.' counted as one. Two handles with one key are
// near-duplicates, and the second is refused.
func Fold(h string) string {
	for range 4 { // folding can make new compositions; a few rounds settle them
		next := foldOnce(h)
		if next == h {
			break
		}
		h = next
	}
	return h
}

func foldOnce(h string) string {
	var b strings.Builder
	b.Grow(len(h))
	for _, r := range norm.NFKC.String(h) {
		switch {
		case r == '-' || r == '_' || r == '.':
			r = '_'
		case ignorable(r):
			continue
		default:
			r = foldRune(r)
		}
		b.WriteRune(r)
	}
	return norm.NFKC.String(b.String())
}

// foldRune picks the smallest rune of the case orbit, so that every member of
// an orbit (also 'ſ' and 'K') gives the same one.
func foldRune(r rune) rune {
	least := r
	for n := unicode.SimpleFold(r); n != r; n = unicode.SimpleFold(n) {
		least = min(least, n)
	}
	return unicode.ToLower(least)
}

// ignorable are characters that print nothing by themselves.
func ignorable(r rune) bool {
	switch {
	case r == 0x00ad, r == 0x034f, r == 0x115f, r == 0x1160, r == 0x3164, r == 0xffa0, r == 0xfeff:
		return true
	case r >= 0x200b && r <= 0x200f, r >= 0x2028 && r <= 0x202f, r >= 0x2060 && r <= 0x206f:
		return true
	case r >= 0xfe00 && r <= 0xfe0f, r >= 0xe0000 && r <= 0xe0fff:
		return true
	}
	return false
}

// cleanText returns s if it may be shown as a name of at most limit characters,
// and otherwise "": a hint that breaks the rules is dropped, not an error.
func cleanText(s string, limit int) string {
	s = strings.TrimSpace(s)
	if !utf8.ValidString(s) || utf8.RuneCountInString(s) > limit {
		return ""
	}
	for _, r := range s {
		if unicode.IsControl(r) || (r >= 0x2028 && r <= 0x202e) || (r >= 0x2066 && r <= 0x2069) {
			return ""
		}
	}
	return s
}

// cleanURL accepts what may stand in an avatar URL: printable ASCII or UTF-8
// without controls and white space, http, https or a path of this relay.
func cleanURL(s string) string {
	if len(s) > MaxAvatarURL || !utf8.ValidString(s) {
		return ""
	}
	for _, r := range s {
		if unicode.IsSpace(r) || unicode.IsControl(r) || strings.ContainsRune("\"<>\\", r) {
			return ""
		}
	}
	if strings.HasPrefix(s, "https://") || strings.HasPrefix(s, "http://") || (strings.HasPrefix(s, "/") && !strings.HasPrefix(s, "//")) {
		return s
	}
	return ""
}
