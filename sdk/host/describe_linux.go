package host

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/internal/wire"
)

// describing bounds a description where ctx does not.
const describing = 10 * time.Second

// Describe asks a binary for its description without starting it as a plugin.
func Describe(ctx context.Context, file *os.File) (Description, error) {
	return DescribeWith(ctx, Options{File: file})
}

// DescribeWith is Describe with a command that o.Command may change.
func DescribeWith(ctx context.Context, o Options) (Description, error) {
	o.fill()
	d, err := describe(ctx, &o)
	if err != nil {
		return Description{}, &sdk.Error{Kind: sdk.KindOf(err), Op: "plugin " + o.Name, Err: err}
	}
	return description(d), nil
}

func describe(ctx context.Context, o *Options) (wire.Document, error) {
	if o.File == nil {
		return wire.Document{}, &sdk.Error{Kind: sdk.Invalid, Text: "no file"}
	}
	ctx, cancel := context.WithTimeout(ctx, describing)
	defer cancel()
	cmd := o.command("describe")
	cmd.ExtraFiles = []*os.File{nil, o.File}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	out, errs := &bounded{most: wire.MaxDocument}, &bounded{most: 4 << 10}
	cmd.Stdout, cmd.Stderr = out, errs
	cmd.WaitDelay = time.Second // who inherited the pipes does not hold this up
	if o.Command != nil {
		if err := o.Command(cmd); err != nil {
			return wire.Document{}, err
		}
	}
	ended := make(chan error, 1)
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // Pdeathsig is bound to the thread
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		started <- nil
		ended <- cmd.Wait()
	}()
	if err := <-started; err != nil {
		return wire.Document{}, plain(err)
	}
	stop := context.AfterFunc(ctx, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	err := <-ended
	if !stop() {
		return wire.Document{}, fmt.Errorf("it did not describe itself in time: %w", ctx.Err())
	}
	if out.over {
		return wire.Document{}, &sdk.Error{Kind: sdk.Invalid, Text: "its description is longer than is allowed"}
	}
	if err != nil {
		line, _, _ := bytes.Cut(errs.Bytes(), []byte("\n"))
		return wire.Document{}, &sdk.Error{Kind: sdk.Invalid, Text: "it does not describe itself: is it a plugin? It said: " + printable(string(line), 200)}
	}
	return wire.ParseDocument(out.Bytes())
}

// bounded keeps the first bytes of what is written. (It has no ReadFrom, which would
// go round the bound.)
type bounded struct {
	buf  bytes.Buffer
	most int
	over bool
}

func (b *bounded) Write(p []byte) (int, error) {
	if room := b.most - b.buf.Len(); len(p) > room {
		b.over = true
		_, _ = b.buf.Write(p[:room])
		return len(p), nil
	}
	return b.buf.Write(p)
}

// Bytes is what was kept.
func (b *bounded) Bytes() []byte { return b.buf.Bytes() }
