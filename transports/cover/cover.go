package cover

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"time"
)

// Options choose the site. At most one of Folder and Origin may be set; with
// neither the built-in site answers.
type Options struct {
	// Folder is a directory with an index.html; a 404.html there is the page
	// for unknown paths. Names that begin with a dot are never served, and
	// symbolic links do not lead out of it.
	Folder string
	// Origin is the base URL (http or https) of the site to pass requests to.
	Origin *url.URL
	// Cookie is the name of the cookie that carries entry tokens; it is never
	// passed on to the origin.
	Cookie string
	// Forward passes the stranger's address on to the origin as
	// X-Forwarded-For.
	Forward bool
	// Domain is the host name that the built-in site shows; it also chooses the
	// site's look, so that two relays do not show the same bytes.
	Domain string
	// Transport carries the requests to the origin; nil means one with bounded
	// connections and time limits.
	Transport http.RoundTripper
	// Log is told of an origin that does not answer; may be nil.
	Log *slog.Logger
}

// ErrBoth: a folder and an origin were given.
var ErrBoth = errors.New("cover: folder and origin exclude each other")

// New makes the handler. It reads nothing but the folder's existence; files are
// opened for each request, so changes show at once.
func New(opt Options) (http.Handler, error) {
	switch {
	case opt.Folder != "" && opt.Origin != nil:
		return nil, ErrBoth
	case opt.Origin != nil:
		return newProxy(opt)
	case opt.Folder != "":
		root, err := os.OpenRoot(opt.Folder)
		if err != nil {
			return nil, fmt.Errorf("cover folder: %w", err)
		}
		if _, err := fs.Stat(root.FS(), "index.html"); err != nil {
			root.Close()
			return nil, fmt.Errorf("cover folder %s: it needs an index.html", opt.Folder)
		}
		return &site{files: root.FS()}, nil
	default:
		return &site{files: builtIn(opt.Domain), fixed: builtInTime(opt.Domain)}, nil
	}
}

// builtInTime is the Last-Modified of the built-in site: a moment in 2024 or
// 2025 drawn from the domain, the same after every restart.
func builtInTime(domain string) time.Time {
	d := draw(domain, "time")
	return time.Unix(1704100000+int64(d.n(55_000_000)), 0).UTC()
}
