package link

import (
	"encoding/base32"
	"net/url"
	"strings"
)

// Scheme begins a link's text.
const Scheme = "commucat://"

// base32Text is RFC 4648 without padding, in lower case.
const base32Text = "abcdefghijklmnopqrstuvwxyz234567"

// maxText is the longest base32 that MaxBytes can make.
const maxText = (MaxBytes*8 + 4) / 5

func coding() *base32.Encoding { return base32.NewEncoding(base32Text).WithPadding(base32.NoPadding) }

func encode(b []byte) string { return coding().EncodeToString(b) }

// Parse reads a link in either form and either case and verifies its signature.
// It does not look at the clock: see Expired. Errors are *Error of kind
// Malformed, NewerVersion or BadSignature.
func Parse(s string) (Link, error) {
	text, err := payload(s)
	if err != nil {
		return Link{}, err
	}
	if len(text) > maxText {
		return Link{}, badLink(Malformed, "longer than 1024 bytes")
	}
	lower := strings.ToLower(text)
	b, err := coding().DecodeString(lower)
	// The decoder passes over line breaks and surplus bits; a link is canonical.
	if err != nil || encode(b) != lower {
		return Link{}, badLink(Malformed, "not base32")
	}
	return decode(b)
}

// payload is the base32 of a link in either form.
func payload(s string) (string, error) {
	if hasPrefix(s, Scheme) {
		return s[len(Scheme):], nil
	}
	if !hasPrefix(s, "https://") {
		return "", badLink(Malformed, "begins neither with commucat:// nor with https://")
	}
	page, fragment, ok := strings.Cut(s, "#")
	if !ok {
		return "", badLink(Malformed, "no fragment")
	}
	u, err := url.Parse(page)
	if err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Path != "/" && u.Path != "" {
		return "", badLink(Malformed, "not https://HOST/#…")
	}
	return fragment, nil
}

func hasPrefix(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

// String is the text of a link that Parse has read, "" for any other. The text is
// a secret while the link is valid.
func (l Link) String() string {
	if l.Raw == nil {
		return ""
	}
	return Scheme + encode(l.Raw)
}

// Web is the web form, for a page at host (a name or address, with :PORT if it is
// not 443), of a link that Parse has read.
func (l Link) Web(host string) (string, error) {
	if l.Raw == nil {
		return "", badLink(Malformed, "not a parsed link")
	}
	web := "https://" + host + "/#" + encode(l.Raw)
	if _, err := payload(web); err != nil || strings.ContainsAny(host, "/?#@") {
		return "", badLink(Malformed, "not a host")
	}
	return web, nil
}

// QR is a link's text as a QR code holds it best: upper case throughout, which
// the alphanumeric mode covers. Parse reads it.
func QR(text string) string { return strings.ToUpper(text) }
