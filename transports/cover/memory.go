package cover

import (
	"bytes"
	"io/fs"
	"time"
)

// memory is a flat read-only folder.
type memory map[string][]byte

// Open returns a seekable file, or the folder itself for ".".
func (m memory) Open(name string) (fs.File, error) {
	if name == "." {
		return &memoryFile{name: name, dir: true}, nil
	}
	data, ok := m[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	f := &memoryFile{name: name}
	f.Reader.Reset(data)
	return f, nil
}

// memoryFile is an open file and its own description.
type memoryFile struct {
	bytes.Reader
	name string
	dir  bool
}

func (f *memoryFile) Stat() (fs.FileInfo, error) { return f, nil }
func (f *memoryFile) Close() error               { return nil }
func (f *memoryFile) Name() string               { return f.name }
func (f *memoryFile) ModTime() time.Time         { return time.Time{} }
func (f *memoryFile) IsDir() bool                { return f.dir }
func (f *memoryFile) Sys() any                   { return nil }

func (f *memoryFile) Mode() fs.FileMode {
	if f.dir {
		return fs.ModeDir | 0o555
	}
	return 0o444
}
