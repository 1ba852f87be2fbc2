package reality

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	utls "github.com/refraction-networking/utls"

	"github.com/commucat/commucat/sdk"
)

// Weight grades a finding about a cover.
type Weight uint8

// The weights: a Note is worth knowing, a Risk makes the cover less convincing, an
// Unfit cover is refused unless forced.
const (
	Note Weight = iota
	Risk
	Unfit
)

// String is the weight in words.
func (w Weight) String() string { return [...]string{"note", "risk", "unfit"}[min(w, Unfit)] }

// Finding is one remark on a cover; Text says what is so and what to do.
type Finding struct {
	Name   string `json:"name"` // the server name it was seen with
	Weight Weight `json:"weight"`
	Text   string `json:"text"`
}

// String is one line for people.
func (f Finding) String() string { return fmt.Sprintf("%s: %s: %s", f.Name, f.Weight, f.Text) }

// Verdict is what Judge says of a cover.
type Verdict struct {
	Cover    string    `json:"cover"`
	Findings []Finding `json:"findings"`
	// Ahead is how far this machine's clock is ahead of the site's; zero where the
	// site tells no time.
	Ahead time.Duration `json:"ahead"`
}

// Fit reports that nothing makes the cover unfit.
func (v Verdict) Fit() bool {
	return !slices.ContainsFunc(v.Findings, func(f Finding) bool { return f.Weight == Unfit })
}

// Err is nil for a fit cover, else it says why it is unfit.
func (v Verdict) Err() error {
	var why []string
	for _, f := range v.Findings {
		if f.Weight == Unfit {
			why = append(why, f.Name+": "+f.Text)
		}
	}
	if why == nil {
		return nil
	}
	return &sdk.Error{Kind: sdk.Invalid, Op: "reality", Text: fmt.Sprintf("the cover %s is unfit: %s; choose another, or set force = true", v.Cover, strings.Join(why, "; "))}
}

// Limits of a fit cover.
const (
	slowHandshake = 800 * time.Millisecond
	lazyHandshake = 300 * time.Millisecond
	// leastCertificate is what the throw-away certificate's record needs.
	leastCertificate = 330
	shortValidity    = 3 * 24 * time.Hour
)

// study is everything that is learnt of a cover with one server name.
type study struct {
	looks   [offeredKinds]*look
	firefox *look // an old one, which takes no compressed certificate
	page    *page
	pageErr error
}

func studyCover(ctx context.Context, c cover, name string, roots *x509.CertPool) (*study, error) {
	s := &study{}
	errs := make(chan error, offeredKinds+2)
	for kind := range offeredKinds {
		go func() {
			spec, err := helloFor(kind)
			if err == nil {
				s.looks[kind], err = examine(ctx, c, name, spec, roots)
			}
			errs <- err
		}()
	}
	go func() {
		spec, err := utls.UTLSIdToSpec(utls.HelloFirefox_120)
		if err == nil {
			s.firefox, err = examine(ctx, c, name, &spec, roots)
		}
		errs <- err
	}()
	go func() {
		s.page, s.pageErr = visitCover(ctx, c, name, roots)
		errs <- nil
	}()
	var first error
	for range cap(errs) {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	return s, first
}

// judge turns a study into findings.
func (s *study) judge(name string, now time.Time) []Finding {
	var out []Finding
	say := func(w Weight, format string, args ...any) {
		out = append(out, Finding{Name: name, Weight: w, Text: fmt.Sprintf(format, args...)})
	}
	chrome := s.looks[offersHTTP2]
	s.judgeTLS(chrome, say)
	if chrome.certificate == nil {
		return out // it went no further than a group that is refused
	}
	switch {
	case chrome.trust != nil:
		say(Unfit, "browsers do not trust its certificate (%v): a stranger would see that at once", chrome.trust)
	case chrome.certificate.NotAfter.Sub(now) < shortValidity:
		say(Risk, "its certificate ends on %s", chrome.certificate.NotAfter.UTC().Format(time.DateOnly))
	}
	if chrome.protocol != "h2" {
		say(Unfit, "it does not speak HTTP/2, which the clients' hellos prefer and today's sites have")
	}
	switch {
	case chrome.handshake > slowHandshake:
		say(Unfit, "a handshake takes %d ms, and every client would wait that long; choose a nearer site", chrome.handshake.Milliseconds())
	case chrome.handshake > lazyHandshake:
		say(Risk, "a handshake takes %d ms: choose a nearer site", chrome.handshake.Milliseconds())
	}
	s.judgePage(name, say)
	return out
}

func (s *study) judgeTLS(chrome *look, say func(Weight, string, ...any)) {
	for kind, l := range map[string]*look{"Chrome": chrome, "Firefox": s.firefox} {
		switch {
		case l.hello.retry:
			say(Unfit, "it asks %s for another key share (HelloRetryRequest); it must take X25519 or X25519MLKEM768 at once", kind)
		case !l.hello.tls13:
			say(Unfit, "it does not speak TLS 1.3 with %s", kind)
		case l.hello.group != groupX25519 && l.hello.group != groupHybrid:
			say(Unfit, "it agrees on the group %d with %s; it must take X25519 or X25519MLKEM768", l.hello.group, kind)
		}
	}
	if chrome.hello.group == groupX25519 {
		say(Note, "it has no X25519MLKEM768: the outer TLS has no post-quantum key agreement")
	}
	if n := len(chrome.early); n > 1 || n == 1 && len(chrome.flight) != lastMessage {
		say(Unfit, "it sends more than a session ticket before the client has finished, which cannot be imitated")
	}
	judgeFlight("Chrome", chrome, say)
	judgeFlight("Firefox", s.firefox, say)
}

// judgeFlight says which of an answer's records cannot be imitated.
func judgeFlight(browser string, l *look, say func(Weight, string, ...any)) {
	for i, n := range l.flight {
		if n > maxMirrored {
			say(Unfit, "its answer to %s has a record of %d bytes, at most %d can be imitated: its certificate chain is too long", browser, n, maxMirrored)
		}
		if i == 3 && n < leastCertificate {
			say(Unfit, "its answer to %s has a certificate record of %d bytes, at least %d are needed", browser, n, leastCertificate)
		}
	}
	if n := len(l.flight); l.hello.tls13 && !l.hello.retry && n != 3 && n != lastMessage {
		say(Unfit, "its answer to %s has %d records, which cannot be imitated", browser, n)
	}
}

func (s *study) judgePage(name string, say func(Weight, string, ...any)) {
	if s.pageErr != nil {
		say(Risk, "its first page does not come: %v", s.pageErr)
		return
	}
	switch p := s.page; {
	case p.status >= 300 && p.status < 400:
		if to, err := url.Parse(p.location); err == nil && to.Host != "" && to.Hostname() != name {
			say(Unfit, "its first page only sends visitors on to %s: nobody stays connected to it; use that name if it is on the same server", to.Host)
		}
	case p.status >= 400:
		say(Risk, "its first page answers with status %d: a site that visitors would use is more convincing", p.status)
	}
	if s.page.http3 {
		say(Risk, "it announces HTTP/3 (Alt-Svc), which browsers then try at this address: send UDP 443 on to it as well, or choose a site without")
	}
}

// assess studies a cover with every name. The error is for a cover that does not answer;
// what it answers is the verdict.
func assess(ctx context.Context, c cover, names []string, roots *x509.CertPool, now func() time.Time) (Verdict, map[string]*study, error) {
	v := Verdict{Cover: c.String()}
	studies := map[string]*study{}
	for _, name := range names {
		s, err := studyCover(ctx, c, name, roots)
		if err != nil {
			return v, nil, &sdk.Error{Kind: sdk.Unavailable, Op: "reality: cover " + c.String(), Text: "it does not answer for " + name, Err: err}
		}
		studies[name] = s
		v.Findings = append(v.Findings, s.judge(name, now())...)
		if s.page != nil && !s.page.date.IsZero() {
			v.Ahead = now().Sub(s.page.date)
		}
	}
	return v, studies, nil
}
