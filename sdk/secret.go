package sdk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
)

// Redacted stands where a secret would be printed.
const Redacted = "[redacted]"

// Secret is a value that prints itself as Redacted everywhere: fmt (all verbs),
// JSON, text, slog. Only Bytes and Text give it out. The zero Secret is "not set".
type Secret struct{ bytes *[]byte }

// NewSecret keeps a copy of b.
func NewSecret(b []byte) Secret {
	c := append([]byte{}, b...)
	return Secret{bytes: &c}
}

// Bytes is the secret itself, nil when not set. It must not be changed.
func (s Secret) Bytes() []byte {
	if s.bytes == nil {
		return nil
	}
	return *s.bytes
}

// Text is the secret as a string.
func (s Secret) Text() string { return string(s.Bytes()) }

// IsZero reports that no secret is set.
func (s Secret) IsZero() bool { return s.bytes == nil || len(*s.bytes) == 0 }

func (s Secret) shown() string {
	if s.IsZero() {
		return ""
	}
	return Redacted
}

// String is Redacted, or empty when nothing is set.
func (s Secret) String() string { return s.shown() }

// GoString is Redacted.
func (s Secret) GoString() string { return s.shown() }

// Format prints Redacted for every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.shown()) }

// MarshalText is Redacted.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.shown()), nil }

// MarshalJSON is Redacted.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + s.shown() + `"`), nil }

// LogValue is Redacted.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.shown()) }

// File is a file named in the configuration, with its content as it was when the
// configuration was read. It prints as its path.
type File struct {
	path  string
	bytes []byte
}

// NewFile makes a File from content that the caller has.
func NewFile(path string, content []byte) File { return File{path: path, bytes: content} }

// Path is where the file was read from, "" when not set.
func (f File) Path() string { return f.path }

// Bytes is the content. It must not be changed.
func (f File) Bytes() []byte { return f.bytes }

// IsZero reports that no file is named.
func (f File) IsZero() bool { return f.path == "" && f.bytes == nil }

// String is the path.
func (f File) String() string { return f.path }

// Format prints the path for every verb: a file may hold a key.
func (f File) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, f.path) }

// MarshalText is the path.
func (f File) MarshalText() ([]byte, error) { return []byte(f.path), nil }

// LogValue is the path.
func (f File) LogValue() slog.Value { return slog.StringValue(f.path) }

// Resolver turns references in a configuration into content.
type Resolver interface {
	// File reads a named file and gives the path that it was read from.
	File(name string) (path string, content []byte, err error)
	// Secret reads a secret's reference: "file:PATH", "env:NAME",
	// "credential:NAME" (systemd); anything else is the secret itself.
	Secret(ref string) ([]byte, error)
}

// MaxFile bounds a file or secret that a Resolver reads.
const MaxFile = 1 << 20

// Files is the Resolver of the file system. The zero value resolves relative
// names against the working directory and knows no credentials.
type Files struct {
	// Dir is where relative names start.
	Dir string
	// Credentials is systemd's $CREDENTIALS_DIRECTORY.
	Credentials string
	// Getenv answers "env:NAME"; nil refuses those references.
	Getenv func(name string) string
}

var _ Resolver = Files{}

// File implements Resolver. Only regular files of at most MaxFile bytes are read.
func (r Files) File(name string) (string, []byte, error) {
	path := name
	if !filepath.IsAbs(path) {
		path = filepath.Join(r.Dir, path)
	}
	content, err := readLimited(path)
	return path, content, err
}

// Secret implements Resolver; one trailing line end of a file is dropped.
func (r Files) Secret(ref string) ([]byte, error) {
	scheme, name, _ := strings.Cut(ref, ":")
	switch scheme {
	case "file":
		_, b, err := r.File(name)
		return trimLine(b), err
	case "credential":
		if r.Credentials == "" {
			return nil, errors.New("no credentials folder: the service manager gave no CREDENTIALS_DIRECTORY")
		}
		if name == "" || name != filepath.Base(name) || name == "." || name == ".." {
			return nil, fmt.Errorf("%q is not the name of a credential", name)
		}
		b, err := readLimited(filepath.Join(r.Credentials, name))
		return trimLine(b), err
	case "env":
		if r.Getenv == nil {
			return nil, errors.New("environment references are not available here")
		}
		v := r.Getenv(name)
		if v == "" {
			return nil, fmt.Errorf("environment variable %s is not set", name)
		}
		return []byte(v), nil
	}
	return []byte(ref), nil
}

func trimLine(b []byte) []byte {
	s := strings.TrimSuffix(string(b), "\n")
	return []byte(strings.TrimSuffix(s, "\r"))
}

func readLimited(path string) ([]byte, error) {
	info, err := os.Stat(path) // before opening: a FIFO would block
	if err != nil {
		return nil, plainPathError(err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, plainPathError(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return nil, plainPathError(err)
	}
	if len(b) > MaxFile {
		return nil, fmt.Errorf("%s: larger than 1 MiB", path)
	}
	return b, nil
}

// plainPathError drops the name of the system call, which helps nobody.
func plainPathError(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return fmt.Errorf("%s: %w", p.Path, p.Err)
	}
	return err
}
