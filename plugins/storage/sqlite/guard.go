package sqlite

import (
	"io"
	"io/fs"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// guard remembers the first failed write or sync of a database. Nothing that such a
// database says afterwards is believed: a sync that failed once may answer "done" the
// next time without having written anything.
//
// Pebble itself does not learn of the failure. It has no way on from there: it would
// end the process, or wait for ever with its locks held. Instead its files become
// bottomless from then on: whatever it writes is dropped and succeeds, so that it can be
// closed in order, without touching the files that its successor uses.
type guard struct{ cause atomic.Pointer[error] }

func (g *guard) fail(err error) {
	if err != nil {
		g.cause.CompareAndSwap(nil, &err)
	}
}

func (g *guard) failed() error {
	if p := g.cause.Load(); p != nil {
		return *p
	}
	return nil
}

// do runs a writing operation, or drops it.
func (g *guard) do(f func() error) {
	if g.failed() == nil {
		g.fail(f())
	}
}

// unwind leaves a goroutine from deep inside Pebble.
func unwind(err error) {
	pc := make([]uintptr, 64)
	frames := runtime.CallersFrames(pc[:runtime.Callers(1, pc)])
	for {
		f, more := frames.Next()
		if strings.HasSuffix(f.Function, "(*instance).protected") || strings.HasSuffix(f.Function, "(*instance).open") {
			panic(err)
		}
		if !more {
			runtime.Goexit()
		}
	}
}

// guardFS is a file system whose writes are guarded.
type guardFS struct {
	vfs.FS
	g *guard
	// aside is a folder that is no part of the database: what fails there is told to
	// whoever writes there, and fails nothing else.
	aside   *aside
	witness *witness
}

// aside is a folder, or none.
type aside struct{ dir atomic.Pointer[string] }

func (a *aside) set(dir string) { a.dir.Store(&dir) }

func (a *aside) clear() { a.dir.Store(nil) }

// has says whether a path is the folder or lies in it.
func (a *aside) has(path string) bool {
	d := a.dir.Load()
	if d == nil {
		return false
	}
	rest, ok := strings.CutPrefix(path, *d)
	return ok && (rest == "" || rest[0] == '/')
}

func (f *guardFS) Unwrap() vfs.FS { return f.FS }

func (f *guardFS) file(open func() (vfs.File, error)) (vfs.File, error) {
	var file vfs.File
	f.g.do(func() (err error) { file, err = open(); return err })
	if file == nil {
		return &bottomless{}, nil
	}
	return &guardFile{File: file, g: f.g}, nil
}

func (f *guardFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if f.aside.has(name) {
		return f.FS.Create(name, c)
	}
	return f.file(func() (vfs.File, error) {
		file, err := f.FS.Create(name, c)
		if base := f.FS.PathBase(name); err == nil && strings.HasPrefix(base, "MANIFEST-") {
			file = &manifest{File: file, witness: f.witness, at: witnessed{name: base}}
		}
		return file, err
	})
}

func (f *guardFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	if f.aside.has(name) {
		return f.FS.OpenReadWrite(name, c, o...)
	}
	return f.file(func() (vfs.File, error) { return f.FS.OpenReadWrite(name, c, o...) })
}

func (f *guardFS) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return f.file(func() (vfs.File, error) { return f.FS.ReuseForWrite(oldname, newname, c) })
}

func (f *guardFS) OpenDir(name string) (vfs.File, error) {
	if f.aside.has(name) {
		return f.FS.OpenDir(name)
	}
	return f.file(func() (vfs.File, error) { return f.FS.OpenDir(name) })
}

func (f *guardFS) Link(oldname, newname string) error {
	if f.aside.has(newname) {
		return f.FS.Link(oldname, newname)
	}
	f.g.do(func() error { return f.FS.Link(oldname, newname) })
	return nil
}

func (f *guardFS) Rename(oldname, newname string) error {
	if f.aside.has(newname) {
		return f.FS.Rename(oldname, newname)
	}
	f.g.do(func() error { return f.FS.Rename(oldname, newname) })
	return nil
}

// Remove and RemoveAll may fail in good health.
func (f *guardFS) Remove(name string) error {
	if f.g.failed() != nil {
		return nil //nolint:nilerr // a failed database ends on files that keep nothing
	}
	return f.FS.Remove(name)
}

func (f *guardFS) RemoveAll(name string) error {
	if f.g.failed() != nil {
		return nil //nolint:nilerr // as above
	}
	return f.FS.RemoveAll(name)
}

type guardFile struct {
	vfs.File
	g *guard
}

func (f *guardFile) Write(b []byte) (int, error) {
	f.g.do(func() error { return second(f.File.Write(b)) })
	return len(b), nil
}

func (f *guardFile) WriteAt(b []byte, off int64) (int, error) {
	f.g.do(func() error { return second(f.File.WriteAt(b, off)) })
	return len(b), nil
}

func (f *guardFile) Sync() error {
	f.g.do(f.File.Sync)
	return nil
}

func (f *guardFile) SyncData() error {
	f.g.do(f.File.SyncData)
	return nil
}

func (f *guardFile) SyncTo(length int64) (full bool, err error) {
	f.g.do(func() error { full, err = f.File.SyncTo(length); return err })
	return full, nil
}

func second[T any](_ T, err error) error { return err }

// Preallocate may fail in good health: not all file systems can.
func (f *guardFile) Preallocate(offset, length int64) error {
	if f.g.failed() == nil {
		_ = f.File.Preallocate(offset, length)
	}
	return nil
}

// bottomless takes everything and keeps nothing.
type bottomless struct{ length int64 }

func (b *bottomless) Close() error                           { return nil }
func (b *bottomless) Read([]byte) (int, error)               { return 0, io.EOF }
func (b *bottomless) ReadAt([]byte, int64) (int, error)      { return 0, io.EOF }
func (b *bottomless) Write(p []byte) (int, error)            { b.length += int64(len(p)); return len(p), nil }
func (b *bottomless) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (b *bottomless) Preallocate(int64, int64) error         { return nil }
func (b *bottomless) Stat() (vfs.FileInfo, error)            { return bottomlessInfo{b.length}, nil }
func (b *bottomless) Sync() error                            { return nil }
func (b *bottomless) SyncTo(int64) (bool, error)             { return true, nil }
func (b *bottomless) SyncData() error                        { return nil }
func (b *bottomless) Prefetch(int64, int64) error            { return nil }
func (b *bottomless) Fd() uintptr                            { return vfs.InvalidFd }

type bottomlessInfo struct{ length int64 }

func (i bottomlessInfo) Name() string           { return "" }
func (i bottomlessInfo) Size() int64            { return i.length }
func (i bottomlessInfo) Mode() fs.FileMode      { return 0o600 }
func (i bottomlessInfo) ModTime() time.Time     { return time.Time{} }
func (i bottomlessInfo) IsDir() bool            { return false }
func (i bottomlessInfo) Sys() any               { return nil }
func (i bottomlessInfo) DeviceID() vfs.DeviceID { return vfs.DeviceID{} }
