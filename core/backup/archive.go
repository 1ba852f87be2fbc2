package backup

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"time"

	"filippo.io/age"
)

// Format is the newest form of an archive that this program reads.
const Format = 1

// Names inside the archive.
const (
	infoName    = "commucat-backup.json"
	digestsName = "commucat-digests.json"
	filesPrefix = "files/"
)

// maxDocument bounds Info and Manifest in bytes, maxName the name of a file.
const (
	maxDocument = 64 << 20
	maxName     = 4096
)

// Info is what an archive says of itself at its beginning.
type Info struct {
	Format  int       `json:"format"`
	Program string    `json:"program"`
	Created time.Time `json:"created"`
	// Layout is the data folder's.
	Layout int `json:"layout"`
	// Keys says which part of the folder it is.
	Keys Keys `json:"keys"`
	// Storage names the backend; Contained says whether its data is in the archive.
	Storage   string `json:"storage"`
	Contained bool   `json:"contained"`
}

// Keys says what an archive holds of the folder with the relay's keys.
type Keys string

// The three parts of a data folder that an archive may hold.
const (
	WithoutKeys Keys = "none" // everything else
	OnlyKeys    Keys = "only" // nothing else
	WithKeys    Keys = "with" // both
)

// File is one file or folder to be kept; a folder comes before what is in it.
type File struct {
	// Name is its name in the folder, with slashes.
	Name string
	// Path is where it lies; its first Size bytes are kept.
	Path string
	Size int64
	Mode fs.FileMode
	// UID and GID are its owner's, 0 where there are none.
	UID, GID int
}

// Bytes is the size of files together.
func Bytes(files []File) (n int64) {
	for _, f := range files {
		n += f.Size
	}
	return n
}

// Entry is one file of a Manifest; a folder's name ends in a slash.
type Entry struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// Manifest ends an archive.
type Manifest struct {
	Files []Entry `json:"files"`
}

// Bytes is the size of all files.
func (m *Manifest) Bytes() (n int64) {
	for _, e := range m.Files {
		n += e.Size
	}
	return n
}

// Write writes an archive that each of the recipients can read. progress is told of bytes
// of files as they are kept and may be nil. After an error what w got is no archive.
func Write(ctx context.Context, w io.Writer, to []age.Recipient, info Info, files []File, progress func(bytes int64)) (Manifest, error) {
	var m Manifest
	if progress == nil {
		progress = func(int64) {}
	}
	sealed, err := age.Encrypt(w, to...)
	if err != nil {
		return m, err
	}
	packed, err := gzip.NewWriterLevel(sealed, gzip.BestSpeed) // messages are sealed: nothing to gain there
	if err != nil {
		return m, err
	}
	t := tar.NewWriter(packed)
	info.Format = Format
	if err := document(t, infoName, info); err != nil {
		return m, err
	}
	for _, f := range files {
		if err := ctx.Err(); err != nil {
			return m, err
		}
		e, err := keep(ctx, t, f, progress)
		if err != nil {
			return m, err
		}
		m.Files = append(m.Files, e)
	}
	if err := document(t, digestsName, m); err != nil {
		return m, err
	}
	for _, layer := range []io.Closer{t, packed, sealed} {
		if err := layer.Close(); err != nil {
			return m, err
		}
	}
	return m, nil
}

func document(t *tar.Writer, name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(b)), Mode: 0o600, Format: tar.FormatPAX}); err != nil {
		return err
	}
	_, err = t.Write(b)
	return err
}

func keep(ctx context.Context, t *tar.Writer, f File, progress func(int64)) (e Entry, err error) {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: filesPrefix + f.Name, Size: f.Size, Mode: int64(f.Mode.Perm()), Uid: f.UID, Gid: f.GID, Format: tar.FormatPAX}
	if f.Mode.IsDir() {
		h.Typeflag, h.Size, h.Name = tar.TypeDir, 0, h.Name+"/"
		return Entry{Name: f.Name + "/"}, t.WriteHeader(h)
	}
	in, err := os.Open(f.Path)
	if err != nil {
		return e, err
	}
	defer in.Close()
	if err := t.WriteHeader(h); err != nil {
		return e, err
	}
	sum := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(t, sum), &counted{ctx, in, progress}, f.Size); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("it became shorter while it was read")
		}
		return e, fmt.Errorf("%s: %w", f.Path, err)
	}
	return Entry{f.Name, f.Size, hex.EncodeToString(sum.Sum(nil))}, nil
}

// counted tells of what is read, and ends with its context.
type counted struct {
	ctx  context.Context
	r    io.Reader
	tell func(int64)
}

func (c *counted) Read(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.r.Read(b)
	c.tell(int64(n))
	return n, err
}

// DamageError is an archive that cannot be believed.
type DamageError struct {
	// At is the file that was being read, "" before the first: age seals 64 KiB at a time.
	At  string
	Err error
}

// Error says how far the archive could be read.
func (e *DamageError) Error() string {
	if e.At == "" {
		return fmt.Sprintf("the archive is damaged or cut off in its first 64 KiB, so that no file can be named: %v", e.Err)
	}
	return fmt.Sprintf("the archive is damaged or cut off in %s: %v", e.At, e.Err)
}

// Unwrap gives the cause.
func (e *DamageError) Unwrap() error { return e.Err }

// A keeper takes the files of an archive as they are read. Their content is believed
// only once Read has returned without an error.
type keeper interface {
	begin(info Info) error
	folder(h *tar.Header, name string) error
	file(h *tar.Header, name string, r io.Reader) error
}

// Verify reads a whole archive and checks every digest.
func Verify(ctx context.Context, r io.Reader, by []age.Identity) (Info, Manifest, error) {
	return read(ctx, r, by, nil)
}

func read(ctx context.Context, r io.Reader, by []age.Identity, to keeper) (info Info, m Manifest, err error) {
	plain, err := age.Decrypt(r, by...)
	if err != nil {
		var none *age.NoIdentityMatchError
		if errors.As(err, &none) {
			return info, m, errors.New("none of the identities can read this archive, or its beginning is damaged")
		}
		return info, m, &DamageError{Err: err}
	}
	a := &reading{at: ""}
	packed, err := gzip.NewReader(plain)
	if err != nil {
		return info, m, &DamageError{Err: err}
	}
	a.tar = tar.NewReader(packed)
	if err = a.run(ctx, to); err == nil {
		// What stands behind the archive is read as well: its end must be age's.
		if n, errEnd := io.Copy(io.Discard, packed); errEnd != nil || n > 1<<20 {
			err = errors.Join(&DamageError{At: digestsName, Err: errEnd})
		}
	}
	return a.info, a.manifest, err
}

// reading is one pass over an archive.
type reading struct {
	tar      *tar.Reader
	at       string
	info     Info
	seen     []Entry
	manifest Manifest
}

func (a *reading) run(ctx context.Context, to keeper) error {
	for first := true; ; first = false {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := a.tar.Next()
		if errors.Is(err, io.EOF) {
			err = errors.New("it ends before its digests")
		}
		if err != nil {
			return a.damage(err)
		}
		switch {
		case first != (h.Name == infoName):
			return a.damage(errors.New("its parts are out of order"))
		case first:
			if err := a.begin(h, to); err != nil {
				return err
			}
		case h.Name == digestsName:
			return a.end(h)
		default:
			if err := a.file(h, to); err != nil {
				return err
			}
		}
	}
}

func (a *reading) damage(err error) error {
	var own *DamageError
	if errors.As(err, &own) {
		return err
	}
	return &DamageError{At: a.at, Err: err}
}

func (a *reading) begin(h *tar.Header, to keeper) error {
	if err := a.document(h, &a.info); err != nil {
		return err
	}
	if a.info.Format > Format {
		return fmt.Errorf("the archive was made by a newer version (format %d, this one knows %d); install that version", a.info.Format, Format)
	}
	if to == nil {
		return nil
	}
	return to.begin(a.info)
}

func (a *reading) document(h *tar.Header, v any) error {
	a.at = h.Name
	if h.Size > maxDocument {
		return a.damage(errors.New("it is too long"))
	}
	b, err := io.ReadAll(io.LimitReader(a.tar, maxDocument))
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		return a.damage(err)
	}
	return nil
}

func (a *reading) file(h *tar.Header, to keeper) error {
	name, err := nameOf(h)
	if err != nil {
		return a.damage(err)
	}
	a.at = name
	if h.Typeflag == tar.TypeDir {
		a.seen = append(a.seen, Entry{Name: name + "/"})
		if to == nil {
			return nil
		}
		return to.folder(h, name)
	}
	sum := sha256.New()
	content := &tee{r: a.tar, h: sum}
	if to == nil {
		_, err = io.Copy(io.Discard, content)
	} else {
		err = to.file(h, name, content)
	}
	if content.err != nil { // the archive's, not that of what keeps it
		return a.damage(content.err)
	}
	if err != nil {
		return err
	}
	a.seen = append(a.seen, Entry{name, h.Size, hex.EncodeToString(sum.Sum(nil))})
	return nil
}

// end compares what was read with what was written.
func (a *reading) end(h *tar.Header) error {
	if err := a.document(h, &a.manifest); err != nil {
		return err
	}
	if len(a.manifest.Files) != len(a.seen) {
		return a.damage(fmt.Errorf("it lists %d files, and there are %d", len(a.manifest.Files), len(a.seen)))
	}
	for i, e := range a.manifest.Files {
		if e != a.seen[i] {
			a.at = a.seen[i].Name
			return a.damage(errors.New("it is not the file that was kept"))
		}
	}
	return nil
}

// tee reads and hashes, and remembers the reader's error.
type tee struct {
	r   io.Reader
	h   hash.Hash
	err error
}

func (t *tee) Read(b []byte) (int, error) {
	n, err := t.r.Read(b)
	_, _ = t.h.Write(b[:n]) // a hash never fails
	if err != nil && !errors.Is(err, io.EOF) {
		t.err = err
	}
	return n, err
}
