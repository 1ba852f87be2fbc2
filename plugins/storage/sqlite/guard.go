package sqlite

import (
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// guard remembers the first failed write or sync of a database. From then on its
// files refuse everything: a sync that failed once may answer "done" the next time
// without having written anything, and a database that was given up must not touch
// files that its successor uses.
//
// While a database is being opened failures are passed on but do not last: Open
// writes what it finds in the log into new files, and waits, trying again with
// other new files, until that has worked.
type guard struct {
	cause   atomic.Pointer[error]
	lenient atomic.Bool
}

// pause slows down the attempts that Pebble repeats without a pause of its own.
const pause = 50 * time.Millisecond

func (g *guard) fail(err error) error {
	if err == nil {
		return nil
	}
	if g.lenient.Load() {
		time.Sleep(pause)
		return err
	}
	g.cause.CompareAndSwap(nil, &err)
	return err
}

func (g *guard) failed() error {
	if p := g.cause.Load(); p != nil {
		return *p
	}
	return nil
}

// do runs a writing operation.
func (g *guard) do(f func() error) error {
	if err := g.failed(); err != nil {
		time.Sleep(pause)
		return err
	}
	return g.fail(f())
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

// guardFS is a file system whose writes are guarded. Operations that may fail in
// good health (removing what is not there) are passed on as they are.
type guardFS struct {
	vfs.FS
	g *guard
}

func (f *guardFS) Unwrap() vfs.FS { return f.FS }

func (f *guardFS) file(open func() (vfs.File, error)) (vfs.File, error) {
	if err := f.g.failed(); err != nil {
		time.Sleep(pause)
		return nil, err
	}
	file, err := open()
	if err != nil {
		return nil, f.g.fail(err)
	}
	return &guardFile{file, f.g}, nil
}

func (f *guardFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return f.file(func() (vfs.File, error) { return f.FS.Create(name, c) })
}

func (f *guardFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	return f.file(func() (vfs.File, error) { return f.FS.OpenReadWrite(name, c, o...) })
}

func (f *guardFS) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return f.file(func() (vfs.File, error) { return f.FS.ReuseForWrite(oldname, newname, c) })
}

func (f *guardFS) OpenDir(name string) (vfs.File, error) {
	return f.file(func() (vfs.File, error) { return f.FS.OpenDir(name) })
}

func (f *guardFS) Link(oldname, newname string) error {
	return f.g.do(func() error { return f.FS.Link(oldname, newname) })
}

func (f *guardFS) Rename(oldname, newname string) error {
	return f.g.do(func() error { return f.FS.Rename(oldname, newname) })
}

func (f *guardFS) Remove(name string) error {
	if err := f.g.failed(); err != nil {
		return err
	}
	return f.FS.Remove(name)
}

func (f *guardFS) RemoveAll(name string) error {
	if err := f.g.failed(); err != nil {
		return err
	}
	return f.FS.RemoveAll(name)
}

type guardFile struct {
	vfs.File
	g *guard
}

func (f *guardFile) Write(b []byte) (n int, err error) {
	err = f.g.do(func() error { n, err = f.File.Write(b); return err })
	return n, err
}

func (f *guardFile) WriteAt(b []byte, off int64) (n int, err error) {
	err = f.g.do(func() error { n, err = f.File.WriteAt(b, off); return err })
	return n, err
}

func (f *guardFile) Sync() error     { return f.g.do(f.File.Sync) }
func (f *guardFile) SyncData() error { return f.g.do(f.File.SyncData) }

func (f *guardFile) SyncTo(length int64) (full bool, err error) {
	err = f.g.do(func() error { full, err = f.File.SyncTo(length); return err })
	return full, err
}

func (f *guardFile) Preallocate(offset, length int64) error {
	if err := f.g.failed(); err != nil {
		return err
	}
	// Not all file systems can; the write that follows tells.
	_ = f.File.Preallocate(offset, length)
	return nil
}
