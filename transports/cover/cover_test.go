package cover

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func do(t *testing.T, h http.Handler, method, target string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func mustNew(t *testing.T, opt Options) http.Handler {
	t.Helper()
	h, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func folder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"index.html": "<h1>hello</h1>", "404.html": "<h1>gone</h1>", "sub/index.html": "sub", "a.css": "a{}", ".git/config": "secret",
		"data.bin": "0123456789",
	} {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		_ = os.Chtimes(p, time.Unix(1.7e9, 0), time.Unix(1.7e9, 0))
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "passwd")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestFolder(t *testing.T) {
	h := mustNew(t, Options{Folder: folder(t)})
	for _, tc := range []struct {
		name, method, target string
		header               []string
		status               int
		want                 map[string]string
		body                 string
	}{
		{"index", "GET", "/", nil, 200, map[string]string{"Content-Type": "text/html; charset=utf-8", "Accept-Ranges": "bytes", "Last-Modified": "Tue, 14 Nov 2023 22:13:20 GMT"}, "<h1>hello</h1>"},
		{"head", "HEAD", "/", nil, 200, map[string]string{"Content-Length": "14"}, ""},
		{"sub folder", "GET", "/sub/", nil, 200, nil, "sub"},
		{"sub folder without slash", "GET", "/sub?x=1", nil, 301, map[string]string{"Location": "./sub/?x=1"}, ""},
		{"file with slash", "GET", "/a.css/", nil, 404, nil, "<h1>gone</h1>"},
		{"css", "GET", "/a.css", nil, 200, map[string]string{"Content-Type": "text/css; charset=utf-8"}, "a{}"},
		{"range", "GET", "/data.bin", []string{"Range", "bytes=2-4"}, 206, map[string]string{"Content-Range": "bytes 2-4/10"}, "234"},
		{"bad range", "GET", "/data.bin", []string{"Range", "bytes=99-"}, 416, map[string]string{"Content-Range": "bytes */10"}, "invalid range: failed to overlap\n"},
		{"etag matches", "GET", "/data.bin", []string{"If-None-Match", `"6553f100-a"`}, 304, map[string]string{"Etag": `"6553f100-a"`}, ""},
		{"not modified", "GET", "/data.bin", []string{"If-Modified-Since", "Tue, 14 Nov 2023 22:13:20 GMT"}, 304, nil, ""},
		{"precondition", "GET", "/data.bin", []string{"If-Match", `"x"`}, 412, nil, ""},
		{"missing", "GET", "/nothing", nil, 404, map[string]string{"Content-Type": "text/html; charset=utf-8"}, "<h1>gone</h1>"},
		{"missing head", "HEAD", "/nothing", nil, 404, map[string]string{"Content-Length": "13"}, ""},
		{"post", "POST", "/", nil, 405, map[string]string{"Allow": "GET, HEAD"}, "Method Not Allowed\n"},
		{"post to nothing", "POST", "/connect", nil, 405, map[string]string{"Allow": "GET, HEAD"}, "Method Not Allowed\n"},
		{"odd method", "BREW", "/", nil, 405, nil, "Method Not Allowed\n"},
		{"options", "OPTIONS", "/", nil, 204, map[string]string{"Allow": "GET, HEAD"}, ""},
		{"hidden", "GET", "/.git/config", nil, 404, nil, "<h1>gone</h1>"},
		{"traversal", "GET", "/../../etc/passwd", nil, 404, nil, "<h1>gone</h1>"},
		{"encoded traversal", "GET", "/%2e%2e/%2e%2e/etc/passwd", nil, 404, nil, "<h1>gone</h1>"},
		{"symlink out", "GET", "/passwd", nil, 404, nil, "<h1>gone</h1>"},
		{"zero byte", "GET", "/a%00.css", nil, 404, nil, "<h1>gone</h1>"},
		{"host in path", "GET", "//example.org/sub", nil, 404, nil, "<h1>gone</h1>"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := do(t, h, tc.method, tc.target, tc.header...)
			if r.StatusCode != tc.status {
				t.Errorf("status %d, want %d", r.StatusCode, tc.status)
			}
			for k, v := range tc.want {
				if got := r.Header.Get(k); got != v {
					t.Errorf("%s: %q, want %q", k, got, v)
				}
			}
			if got := body(t, r); got != tc.body {
				t.Errorf("body %q, want %q", got, tc.body)
			}
		})
	}
}

func TestBuiltIn(t *testing.T) {
	h := mustNew(t, Options{Domain: "relay.example"})
	pages := map[string]string{}
	for _, p := range []string{"/", "/robots.txt", "/nothing"} {
		r := do(t, h, "GET", p)
		pages[p] = body(t, r)
		if r.Header.Get("Content-Type") == "" || p != "/nothing" && r.Header.Get("Last-Modified") == "" {
			t.Errorf("%s: headers %v", p, r.Header)
		}
	}
	index := pages["/"]
	for _, link := range strings.Split(index, `href="`)[1:] {
		link, _, _ = strings.Cut(link, `"`)
		r := do(t, h, "GET", link)
		if text := body(t, r); r.StatusCode != 200 || text == "" {
			t.Errorf("%s: %d", link, r.StatusCode)
		} else {
			pages[link] = text
		}
	}
	if len(pages) < 7 {
		t.Errorf("only %d pages", len(pages))
	}
	for p, text := range pages {
		for _, word := range []string{"commu", "relay server", "noise", "messag", "<no value>", "{{"} {
			if strings.Contains(strings.ToLower(text), word) {
				t.Errorf("%s contains %q", p, word)
			}
		}
	}
	if again := body(t, do(t, mustNew(t, Options{Domain: "Relay.Example"}), "GET", "/robots.txt")); again != pages["/robots.txt"] {
		t.Error("the site changes between starts")
	}
	if again := body(t, do(t, mustNew(t, Options{Domain: "relay.example"}), "GET", "/")); again != index {
		t.Error("the site changes between starts")
	}
	looks := map[string]bool{}
	for _, d := range []string{"", "a.example", "b.example", "c.example", "<script>.example"} {
		text := body(t, do(t, mustNew(t, Options{Domain: d}), "GET", "/"))
		if strings.Contains(text, "<script") {
			t.Error("the domain is not escaped")
		}
		text = strings.ReplaceAll(text, d, "")
		looks[text] = true
	}
	if len(looks) < 4 {
		t.Errorf("%d different looks of 5", len(looks))
	}
}

func TestProxy(t *testing.T) {
	var got *http.Request
	var sent string
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got, sent = r, string(b)
		w.Header().Set("Server", "origin")
		w.WriteHeader(418)
		_, _ = io.WriteString(w, "teapot")
	}))
	defer origin.Close()
	base, _ := url.Parse(origin.URL + "/base")
	h := mustNew(t, Options{Origin: base, Cookie: "sid"})

	r := httptest.NewRequest("PUT", "https://relay.example/x/%2Fy?q=1;2", strings.NewReader("data"))
	r.Header["Cookie"] = []string{"a=1; sid=TOKEN.ST; b=2", "sid=TOKEN", "sidx=3"}
	r.Header.Set("X-Forwarded-For", "6.6.6.6")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != 418 || w.Body.String() != "teapot" || w.Header().Get("Server") != "origin" {
		t.Errorf("answer %d %q %v", w.Code, w.Body, w.Header())
	}
	if got.Method != "PUT" || got.RequestURI != "/base/x/%2Fy?q=1;2" || got.Host != "relay.example" || sent != "data" {
		t.Errorf("request %s %s %s %q", got.Method, got.RequestURI, got.Host, sent)
	}
	if c := strings.Join(got.Header["Cookie"], "|"); strings.Contains(c, "TOKEN") || !strings.Contains(c, "a=1; b=2") || !strings.Contains(c, "sidx=3") {
		t.Errorf("cookies %q", c)
	}
	for _, name := range []string{"X-Forwarded-For", "Forwarded", "X-Real-Ip", "User-Agent"} {
		if v := got.Header.Get(name); v != "" {
			t.Errorf("%s: %q", name, v)
		}
	}
}

func TestProxyOriginDown(t *testing.T) {
	base, _ := url.Parse("http://127.0.0.1:1")
	h := mustNew(t, Options{Origin: base})
	r := do(t, h, "GET", "/")
	if r.StatusCode != 502 || body(t, r) != "Bad Gateway\n" {
		t.Errorf("status %d", r.StatusCode)
	}
}

func TestOptions(t *testing.T) {
	u := func(s string) *url.URL { p, _ := url.Parse(s); return p }
	empty := t.TempDir()
	for _, opt := range []Options{
		{Folder: "x", Origin: u("http://a")}, {Folder: filepath.Join(empty, "none")}, {Folder: empty},
		{Origin: u("ftp://a")}, {Origin: u("http://")}, {Origin: u("http://u:p@a")}, {Origin: u("http://a?x")},
	} {
		if _, err := New(opt); err == nil {
			t.Errorf("%+v was accepted", opt)
		} else if strings.Contains(err.Error(), ":p@") {
			t.Errorf("the error shows a password: %v", err)
		}
	}
}

func FuzzClean(f *testing.F) {
	for _, s := range []string{"/", "/a/../b", "//", "/.x", "/a\\b", "/a/", "*", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, p string) {
		name, _, ok := clean(p)
		if !ok {
			return
		}
		if strings.HasPrefix(name, "/") || strings.Contains(name, "..") && strings.Contains("/"+name+"/", "/../") || strings.Contains("/"+name, "/.") && name != "." {
			t.Fatalf("%q became %q", p, name)
		}
	})
}
