package cover

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
	"time"
)

// site serves files as an ordinary static server does: GET and HEAD with
// conditional requests and ranges, 405 with Allow for other methods, folders
// by their index.html.
type site struct {
	files fs.FS
	fixed time.Time // Last-Modified where the files have none
}

const allow = "GET, HEAD"

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", allow)
		if r.Method == http.MethodOptions {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		s.plain(w, http.StatusMethodNotAllowed)
		return
	}
	name, slash, ok := clean(r.URL.Path)
	if !ok {
		s.missing(w, r)
		return
	}
	f, info, err := s.open(name)
	if err != nil {
		s.missing(w, r)
		return
	}
	if info.IsDir() {
		f.Close()
		if name != "." && !slash {
			redirect(w, r)
			return
		}
		if f, info, err = s.open(path.Join(name, "index.html")); err != nil || info.IsDir() {
			if err == nil {
				f.Close()
			}
			s.missing(w, r)
			return
		}
		name = "index.html"
	} else if slash {
		f.Close()
		s.missing(w, r)
		return
	}
	defer f.Close()
	s.serve(w, r, name, f, info)
}

// clean turns a URL path into a name for fs.FS. Hidden names do not exist.
func clean(p string) (name string, slash, ok bool) {
	if p == "" || p[0] != '/' || strings.ContainsAny(p, "\x00\\") {
		return "", false, false
	}
	for part := range strings.SplitSeq(p[1:], "/") {
		if strings.HasPrefix(part, ".") {
			return "", false, false
		}
	}
	slash = strings.HasSuffix(p, "/")
	name = strings.TrimPrefix(path.Clean(p), "/")
	if name == "" {
		name = "."
	}
	return name, slash, fs.ValidPath(name)
}

func (s *site) open(name string) (fs.File, fs.FileInfo, error) {
	f, err := s.files.Open(name)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.IsDir() && !info.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

func (s *site) serve(w http.ResponseWriter, r *http.Request, name string, f fs.File, info fs.FileInfo) {
	body, ok := f.(io.ReadSeeker)
	if !ok {
		s.missing(w, r)
		return
	}
	mod := s.modified(info)
	h := w.Header()
	if t := contentType(name); t != "" {
		h.Set("Content-Type", t)
	}
	h.Set("Etag", fmt.Sprintf(`"%x-%x"`, mod.Unix(), info.Size()))
	http.ServeContent(w, r, name, mod, body)
}

func (s *site) modified(info fs.FileInfo) time.Time {
	if m := info.ModTime(); !m.IsZero() {
		return m
	}
	return s.fixed
}

// contentType knows the usual types itself: the system's table differs from
// machine to machine.
func contentType(name string) string {
	switch ext := strings.ToLower(path.Ext(name)); ext {
	case ".html", ".htm":
		return "text/html; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".js", ".mjs":
		return "text/javascript; charset=utf-8"
	case ".txt":
		return "text/plain; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	case ".ico":
		return "image/x-icon"
	case ".woff2":
		return "font/woff2"
	default:
		return mime.TypeByExtension(ext)
	}
}

// missing answers 404 with the site's own page, or a plain one.
func (s *site) missing(w http.ResponseWriter, r *http.Request) {
	f, info, err := s.open("404.html")
	if err != nil {
		s.plain(w, http.StatusNotFound)
		return
	}
	defer f.Close()
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", fmt.Sprint(info.Size()))
	w.WriteHeader(http.StatusNotFound)
	if r.Method != http.MethodHead {
		_, _ = io.CopyN(w, f, info.Size())
	}
}

func (s *site) plain(w http.ResponseWriter, status int) {
	text := http.StatusText(status) + "\n"
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Length", fmt.Sprint(len(text)))
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}

// redirect adds the slash that a folder's address lacks.
func redirect(w http.ResponseWriter, r *http.Request) {
	// Only the last part goes into the header: a path such as //host must not
	// become an address of another host.
	to := path.Base(r.URL.EscapedPath()) + "/"
	if q := r.URL.RawQuery; q != "" {
		to += "?" + q
	}
	w.Header().Set("Location", "./"+to)
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusMovedPermanently)
}
