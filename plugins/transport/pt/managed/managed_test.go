package managed

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestArgs(t *testing.T) {
	for text, want := range map[string]Args{
		"":                       nil,
		"cert=a+/b,iat-mode=0":   {{"cert", "a+/b"}, {"iat-mode", "0"}},
		`a=1\,2,b=c=d,e=\\`:      {{"a", "1,2"}, {"b", "c=d"}, {"e", `\`}},
		`k\==v,k\==w`:            {{"k=", "v"}, {"k=", "w"}},
		"empty=":                 {{"empty", ""}},
		"url=https://x.org/a?b;": {{"url", "https://x.org/a?b;"}},
	} {
		got, err := ParseArgs(text, Comma)
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Errorf("%q: %v %s", text, err, d)
		}
		again, err := ParseArgs(got.Encode(Semicolon), Semicolon)
		if d := cmp.Diff(want, again); err != nil || d != "" {
			t.Errorf("%q by semicolons: %v %s", text, err, d)
		}
	}
	for _, text := range []string{"a", "=v", "a=b,", ",", `a=b\`, "a=b\nc=d", "a=\x00", strings.Repeat("a=b,", 64) + "a=b", "a=" + strings.Repeat("b", maxArg)} {
		if got, err := ParseArgs(text, Comma); err == nil {
			t.Errorf("%.20q was read as %v", text, got)
		}
	}
}

func TestLogin(t *testing.T) {
	for _, n := range []int{1, 253, 254, 300, 508} {
		want := Args{{"k", strings.Repeat("x", n)}}
		user, password, ok, err := want.Login()
		if err != nil || !ok || len(user) > 255 || len(password) == 0 || len(password) > 255 {
			t.Fatalf("%d: %d and %d bytes, %v %v", n, len(user), len(password), ok, err)
		}
		got, err := FromLogin(user, password)
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Errorf("%d: %v %s", n, err, d)
		}
	}
	if _, _, ok, err := (Args{}).Login(); ok || err != nil {
		t.Error("a login without arguments")
	}
	if _, _, _, err := (Args{{"k", strings.Repeat("x", 509)}}).Login(); err == nil {
		t.Error("511 bytes fit")
	}
}

func TestOptions(t *testing.T) {
	want := Args{{"url", "https://x.org:80/a;b=c"}, {"k", `\`}}
	text := "other:k=v;" + want.options("m") + ";other:url=x"
	got, err := ParseOptions(text, "m")
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Errorf("%q: %v %s", text, err, d)
	}
}

func TestLines(t *testing.T) {
	addr := netip.MustParseAddrPort("127.0.0.1:4000")
	for text, want := range map[string]Line{
		"VERSION 1":                                        {Word: Version, Text: "1"},
		"VERSION-ERROR no-version":                         {Word: VersionError, Text: "no-version"},
		"ENV-ERROR no TOR_PT_STATE_LOCATION":               {Word: EnvError, Text: "no TOR_PT_STATE_LOCATION"},
		"PROXY DONE":                                       {Word: ProxyDone},
		"CMETHOD obfs4 socks5 127.0.0.1:4000":              {Word: CMethod, Method: "obfs4", Protocol: "socks5", Addr: addr},
		"CMETHOD-ERROR x no such method":                   {Word: CMethodError, Method: "x", Text: "no such method"},
		"CMETHODS DONE":                                    {Word: CMethodsDone},
		"SMETHOD t 127.0.0.1:4000":                         {Word: SMethod, Method: "t", Addr: addr},
		"SMETHOD t 127.0.0.1:4000 ARGS:a=b,c=":             {Word: SMethod, Method: "t", Addr: addr, Args: Args{{"a", "b"}, {"c", ""}}},
		"SMETHODS DONE":                                    {Word: SMethodsDone},
		`LOG SEVERITY=warning MESSAGE="a \"b\"\n\303\244"`: {Word: Log, Args: Args{{"SEVERITY", "warning"}, {"MESSAGE", "a \"b\"\nä"}}},
		"STATUS TRANSPORT=x CONNECT=Success":               {Word: Status, Args: Args{{"TRANSPORT", "x"}, {"CONNECT", "Success"}}},
		"NEWS from tomorrow":                               {},
		"CMETHODS LATER":                                   {},
		"":                                                 {},
	} {
		got, err := ParseLine(text)
		if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); err != nil || d != "" {
			t.Errorf("%q: %v %s", text, err, d)
		}
	}
	for _, text := range []string{
		"CMETHOD", "CMETHOD obfs4 socks5", "CMETHOD obfs4 socks5 example.org:1", "CMETHOD ob-fs4 socks5 127.0.0.1:1", "CMETHOD a http 127.0.0.1:1",
		"SMETHOD t", "SMETHOD t 127.0.0.1", "SMETHOD t 127.0.0.1:1 ARGS:a", "LOG MESSAGE=\"a", "LOG x", "SMETHOD-ERROR", strings.Repeat("x", maxLine+1),
	} {
		if got, err := ParseLine(text); err == nil {
			t.Errorf("%.40q was read as %+v", text, got)
		}
	}
}

func TestLongLinesArePassedOver(t *testing.T) {
	l := NewLines(strings.NewReader("a\r\n" + strings.Repeat("x", 3*maxLine) + "\nb\nlast"))
	var got []string
	for {
		s, err := l.Next()
		if err != nil {
			break
		}
		got = append(got, s)
	}
	if d := cmp.Diff([]string{"a", "b", "last"}, got); d != "" {
		t.Error(d)
	}
}

func FuzzLine(f *testing.F) {
	for _, s := range []string{"VERSION 1", "CMETHOD a socks5 [::1]:2", `SMETHOD t 1.2.3.4:5 ARGS:a=b\,,c=`, `LOG SEVERITY=error MESSAGE="\303\"x"`, "PROXY DONE"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ParseLine(s)
		if err != nil || l.Word == "" {
			return
		}
		again, err := ParseLine(l.String())
		if d := cmp.Diff(l, again, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); err != nil || d != "" {
			t.Errorf("%q became %q: %v\n%s", s, l.String(), err, d)
		}
	})
}

func FuzzArgs(f *testing.F) {
	f.Add(`cert=a+/b,iat-mode=0`)
	f.Add(`a=\\,b=\,`)
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseArgs(s, Comma)
		if err != nil {
			return
		}
		text := a.Encode(Semicolon)
		if len(text) > maxArg {
			return
		}
		again, err := ParseArgs(text, Semicolon)
		if d := cmp.Diff(a, again); err != nil || d != "" {
			t.Errorf("%q became %q: %v\n%s", s, text, err, d)
		}
	})
}

// pair is two ends of a TCP connection.
func pair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if a, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func TestExtORPort(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cookie")
	cookie, err := NewCookie(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the cookie's file: %v, %v", info.Mode(), err)
	}
	read, err := ReadCookie(path)
	if err != nil || *read != *cookie {
		t.Fatalf("the cookie was read as another one: %v", err)
	}
	t.Run("accepted", func(t *testing.T) {
		child, parent := pair(t)
		want := Arrival{Client: netip.MustParseAddrPort("203.0.113.7:1234"), Method: "obfs4"}
		failed := make(chan error, 1)
		go func() {
			err := DialExtOR(child, read, want)
			if err == nil {
				_, err = child.Write([]byte("first words"))
			}
			failed <- errors.Join(err, child.(*net.TCPConn).CloseWrite())
		}()
		got, err := AcceptExtOR(parent, cookie)
		if err != nil || got != want {
			t.Errorf("%+v, %v", got, err)
		}
		if err := <-failed; err != nil {
			t.Error(err)
		}
		var rest bytes.Buffer
		if _, err := rest.ReadFrom(parent); err != nil || rest.String() != "first words" {
			t.Errorf("behind the header: %q, %v", rest.String(), err)
		}
	})
	t.Run("other cookie", func(t *testing.T) {
		child, parent := pair(t)
		failed := make(chan error, 1)
		go func() {
			failed <- DialExtOR(child, new(Cookie), Arrival{Method: "x"})
			child.Close()
		}()
		if _, err := AcceptExtOR(parent, cookie); err == nil {
			t.Error("accepted")
		}
		if err := <-failed; !errors.Is(err, errCookie) {
			t.Errorf("the child noticed: %v", err)
		}
	})
	for name, said := range map[string]string{
		"another type":    "\x02" + strings.Repeat("n", nonceSize),
		"wrong hash":      "\x01" + strings.Repeat("n", nonceSize) + strings.Repeat("h", 32),
		"ends":            "\x01nonce",
		"a plain client":  "GET / HTTP/1.1\r\nHost: example.org\r\nAccept: everything\r\n\r\n" + strings.Repeat("x", 100),
		"nothing at all ": "",
	} {
		t.Run(name, func(t *testing.T) {
			child, parent := pair(t)
			if _, err := child.Write([]byte(said)); err != nil {
				t.Fatal(err)
			}
			if err := child.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if a, err := AcceptExtOR(parent, cookie); err == nil {
				t.Errorf("accepted as %+v", a)
			}
		})
	}
	for name, content := range map[string]string{"short": cookieHeader + "x", "long": cookieHeader + strings.Repeat("x", 33), "other": strings.Repeat("x", 64)} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadCookie(path); err == nil {
			t.Errorf("%s cookie was read", name)
		}
	}
}

// said answers reads with fixed bytes and swallows writes.
type said struct{ *bytes.Reader }

func (said) Write(b []byte) (int, error) { return len(b), nil }

func FuzzExtORPort(f *testing.F) {
	f.Add([]byte("\x01" + strings.Repeat("n", 64)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, err := AcceptExtOR(said{bytes.NewReader(b)}, new(Cookie)); err == nil {
			t.Errorf("let in without the cookie: %+v", a)
		}
		// The commands themselves, as from who knows the cookie.
		var a Arrival
		if err := a.commands(said{bytes.NewReader(b)}); err == nil && a.Method != "" && !ValidMethod(a.Method) {
			t.Errorf("method %q", a.Method)
		}
	})
}

func TestSocks(t *testing.T) {
	for _, want := range []Request{
		{Target: "192.0.2.1:80"},
		{Target: "[2001:db8::1]:443", Args: Args{{"cert", "a;b"}}},
		{Target: "example.org:1", Args: Args{{"k", strings.Repeat("x", 400)}}},
	} {
		parent, child := pair(t)
		failed := make(chan error, 1)
		go func() { failed <- Connect(t.Context(), parent, want.Target, want.Args) }()
		got, err := AcceptSocks(child)
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Errorf("%v %s", err, d)
		}
		if err := AnswerSocks(child, true); err != nil {
			t.Error(err)
		}
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	parent, child := pair(t)
	failed := make(chan error, 1)
	go func() { failed <- Connect(t.Context(), parent, "192.0.2.1:80", nil) }()
	if _, err := AcceptSocks(child); err != nil {
		t.Error(err)
	}
	if err := AnswerSocks(child, false); err != nil {
		t.Error(err)
	}
	if err := <-failed; err == nil {
		t.Error("a refusal was taken for a stream")
	}
}

func FuzzSocks(f *testing.F) {
	f.Add([]byte("\x05\x01\x00\x05\x01\x00\x01\x01\x02\x03\x04\x00\x50"))
	f.Add([]byte("\x05\x01\x02\x01\x03k=v\x01\x00\x05\x01\x00\x03\x01h\x00\x50"))
	f.Add([]byte("\x05\x01\x00\x05\x01\x00\x03\x01[\x00\x50"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := AcceptSocks(said{bytes.NewReader(b)})
		if err != nil {
			return
		}
		if _, _, err := net.SplitHostPort(r.Target); err != nil {
			t.Errorf("target %q: %v", r.Target, err)
		}
	})
}
