package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"filippo.io/age"

	"github.com/commucat/commucat/core/api"
	"github.com/commucat/commucat/core/backup"
	"github.com/commucat/commucat/core/server"
	"github.com/commucat/commucat/sdk"
)

// archiving is one archive that is being made.
type archiving struct {
	*app
	opt    server.Options
	socket string
	to     []age.Recipient
	part   backup.Keys
	file   string
}

// create archives a stopped relay's folder under its lock, and a running one's with the
// relay's help.
func (b *archiving) create(ctx context.Context) (err error) {
	release, err := server.HoldData(b.opt)
	switch {
	case errors.Is(err, server.ErrInUse):
		return b.live(ctx, err)
	case err != nil:
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	files, others, err := backup.Scan(b.opt.Data, b.part)
	if err != nil {
		return err
	}
	return b.write(ctx, files, others, server.DataHolds(b.opt), time.Now())
}

// live archives the folder of a running relay.
func (b *archiving) live(ctx context.Context, busy error) (err error) {
	if _, err := os.Lstat(b.file); err == nil {
		return fmt.Errorf("open %s: file exists", b.file)
	}
	began := time.Now()
	relay := api.NewClient(b.socket)
	s, end, err := relay.Snapshot(ctx, string(b.part))
	switch {
	case errors.Is(err, api.ErrNotRunning):
		return fmt.Errorf("%w (%w)", busy, err) // a relay that starts or ends, or another program
	case err != nil:
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	l := &backup.Live{Dir: b.opt.Data, Stage: s.Stage, Keys: b.part, Instead: map[string]string{}}
	for _, f := range s.Folders {
		l.Instead[f.Name] = f.Dir
	}
	files, others, err := l.Gather(ctx)
	if err != nil {
		return err
	}
	if err := relay.ReleaseSnapshot(ctx, s.ID); err != nil {
		return err
	}
	for _, name := range s.Busy {
		b.say("ledger %s was taking records: what it keeps in the data folder is not of one moment", name)
	}
	return b.write(ctx, files, others, s.Contained, began)
}

func (b *archiving) write(ctx context.Context, files []backup.File, others []string, contained bool, at time.Time) error {
	for _, o := range others {
		b.say("%s is no file and is left out", filepath.Join(b.opt.Data, o))
	}
	info := backup.Info{
		Program: version, Created: at.UTC().Truncate(time.Second), Layout: server.Layout, Keys: b.part,
		Storage: b.opt.Config.Storage.Backend, Contained: b.part != backup.OnlyKeys && contained,
	}
	all := backup.Bytes(files)
	if err := b.room(all); err != nil {
		return err
	}
	var (
		m    backup.Manifest
		done atomic.Int64
	)
	err := b.showing("keeping", &done, all, func() error {
		return newFile(b.file, func(w io.Writer) (err error) {
			m, err = backup.Write(ctx, w, b.to, info, files, func(n int64) { done.Add(n) })
			return err
		})
	})
	if err != nil {
		return err
	}
	if b.part != backup.OnlyKeys && !info.Contained {
		b.say("accounts and messages are in storage %s, not in this archive: back it up with its own tools%s", info.Storage, own(info.Storage))
	}
	if c := b.opt.Config.File; c != "" && b.part != backup.OnlyKeys && filepath.Dir(c) != filepath.Clean(b.opt.Data) {
		b.say("the configuration %s is outside the data folder and not in it", c)
	}
	if b.part == backup.WithoutKeys {
		b.say("keys/ is not in it; keep it apart: commucat backup create --keys only …")
	}
	return b.tellBackup("kept", b.file, info, m)
}

// own names the tools of a storage that we know.
func own(storage string) string {
	if storage == "postgres" {
		return " (pg_dump)"
	}
	return ""
}

// room refuses an archive that its disk has no space for before anything is written: what
// is sealed cannot be packed, so it comes to the size of the files, nearly.
func (b *archiving) room(bytes int64) error {
	dir := filepath.Dir(b.file)
	free, err := backup.Free(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no folder %s to write %s in", dir, filepath.Base(b.file))
	}
	if err != nil {
		return err
	}
	if uint64(bytes) > free {
		return fmt.Errorf("the disk of %s is too full for %s: %s", dir, filepath.Base(b.file), shortage(uint64(bytes), free))
	}
	return nil
}

// shortage compares two sizes so that the difference shows: what is needed is rounded up,
// what is free down.
func shortage(need, free uint64) string {
	unit, name := uint64(1<<10), "KiB"
	if need >= 64<<20 {
		unit, name = 1<<20, "MiB"
	}
	return fmt.Sprintf("%d %s of files are to be kept, %d %[2]s are free", (need+unit-1)/unit, name, free/unit)
}

func mebibytes(n uint64) string { return sdk.Size((n + 1<<20 - 1) >> 20 << 20).String() }

// reading shows how much of a file f has read.
func (a *app) reading(what string, file *os.File, f func(io.Reader) error) error {
	st, err := file.Stat()
	if err != nil {
		return err
	}
	var done atomic.Int64
	return a.showing(what, &done, st.Size(), func() error { return f(&counting{file, &done}) })
}

type counting struct {
	r io.Reader
	n *atomic.Int64
}

func (c *counting) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n.Add(int64(n))
	return n, err
}

// showing shows how many of all bytes are done while f works.
func (a *app) showing(what string, done *atomic.Int64, all int64, f func() error) error {
	over, shown := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(shown)
		a.progress(over, func(bar bool) { a.showBytes(what, done.Load(), all, bar) })
	}()
	err := f()
	close(over)
	<-shown
	return err
}

func (a *app) showBytes(what string, done, all int64, bar bool) {
	done = min(done, all)
	switch {
	case bar:
		const width = 30
		filled := 0
		if all > 0 {
			filled = int(float64(width) * float64(done) / float64(all))
		}
		fmt.Fprintf(a.err, "\r%-9s [%s%s] %s of %s\x1b[K", what, strings.Repeat("#", filled), strings.Repeat(".", width-filled),
			mebibytes(uint64(done)), mebibytes(uint64(all)))
	case a.json:
		// A closed pipe ends nothing: the result tells.
		_ = a.emit(struct {
			Event string `json:"event"`
			Bytes int64  `json:"bytes"`
			All   int64  `json:"all_bytes"`
		}{what, done, all})
	default:
		a.say("%s: %s of %s", what, mebibytes(uint64(done)), mebibytes(uint64(all)))
	}
}
