package plugintest

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"
)

// T is a test with cases: what the suites need. Wrap makes one of a *testing.T, Run
// one outside of "go test".
type T interface {
	testing.TB
	// Run runs a case and says whether it passed.
	Run(name string, f func(T)) bool
}

// Wrap is t as a T.
func Wrap(t *testing.T) T { return wrapped{t} }

type wrapped struct{ *testing.T }

func (w wrapped) Run(name string, f func(T)) bool {
	return w.T.Run(name, func(t *testing.T) { f(wrapped{t}) })
}

// Result is how a case ended.
type Result struct {
	// Name holds the names of the case and of those around it, joined by "/".
	Name string
	// Failed and Skipped are both false for a case that passed.
	Failed, Skipped bool
	Took            time.Duration
	// Log is what the case said, line by line.
	Log string
}

// Run runs f and its cases outside of "go test", tells report of each case when it
// has ended, inner ones first, and says whether all passed. When ctx ends, so does the
// context of the cases.
func Run(ctx context.Context, name string, report func(Result), f func(T)) bool {
	// Cases ask package testing for its flags, which a program does not have.
	testing.Init()
	if !flag.Parsed() {
		_ = flag.CommandLine.Parse(nil) // no arguments, no mistakes
	}
	var lock sync.Mutex
	r := &runner{name: name, parent: ctx, report: func(r Result) {
		lock.Lock()
		defer lock.Unlock()
		report(r)
	}}
	return r.run(f)
}

// runner is a T of its own. It embeds a nil testing.TB for the interface's private
// method alone; everything else is here.
type runner struct {
	testing.TB
	name   string
	parent context.Context
	report func(Result)

	ctx    context.Context
	cancel context.CancelFunc

	mu       sync.Mutex
	log      bytes.Buffer
	failed   bool
	skipped  bool
	cleanups []func()
}

var _ T = (*runner)(nil)

func (r *runner) run(f func(T)) bool {
	r.ctx, r.cancel = context.WithCancel(r.parent)
	began := time.Now()
	r.guard(func() { f(r) })
	r.cancel()
	for {
		r.mu.Lock()
		n := len(r.cleanups)
		if n == 0 {
			r.mu.Unlock()
			break
		}
		last := r.cleanups[n-1]
		r.cleanups = r.cleanups[:n-1]
		r.mu.Unlock()
		r.guard(last)
	}
	r.mu.Lock()
	result := Result{Name: r.name, Failed: r.failed, Skipped: r.skipped && !r.failed, Took: time.Since(began), Log: r.log.String()}
	r.mu.Unlock()
	r.report(result)
	return !result.Failed
}

// guard runs f on a goroutine that FailNow may end.
func (r *runner) guard(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if v := recover(); v != nil {
				r.Errorf("panic: %v\n%s", v, debug.Stack())
			}
		}()
		f()
	}()
	<-done
}

// Run implements T.
func (r *runner) Run(name string, f func(T)) bool {
	inner := &runner{name: r.name + "/" + strings.ReplaceAll(name, " ", "_"), parent: r.ctx, report: r.report}
	ok := inner.run(f)
	if !ok {
		r.Fail()
	}
	return ok
}

// The methods of testing.TB.

func (r *runner) Cleanup(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cleanups = append(r.cleanups, f)
}

func (r *runner) Log(args ...any) { r.write(fmt.Sprintln(args...)) }

func (r *runner) Logf(format string, args ...any) { r.write(fmt.Sprintf(format, args...)) }

func (r *runner) write(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log.WriteString(strings.TrimSuffix(s, "\n") + "\n")
}

func (r *runner) Fail() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = true
}

func (r *runner) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

func (r *runner) FailNow() {
	r.Fail()
	runtime.Goexit()
}

func (r *runner) Error(args ...any) {
	r.Log(args...)
	r.Fail()
}

func (r *runner) Errorf(format string, args ...any) {
	r.Logf(format, args...)
	r.Fail()
}

func (r *runner) Fatal(args ...any) {
	r.Log(args...)
	r.FailNow()
}

func (r *runner) Fatalf(format string, args ...any) {
	r.Logf(format, args...)
	r.FailNow()
}

func (r *runner) SkipNow() {
	r.mu.Lock()
	r.skipped = true
	r.mu.Unlock()
	runtime.Goexit()
}

func (r *runner) Skip(args ...any) {
	r.Log(args...)
	r.SkipNow()
}

func (r *runner) Skipf(format string, args ...any) {
	r.Logf(format, args...)
	r.SkipNow()
}

func (r *runner) Skipped() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.skipped
}

func (r *runner) TempDir() string {
	dir, err := os.MkdirTemp("", "check-")
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (r *runner) Helper()                  {}
func (r *runner) Name() string             { return r.name }
func (r *runner) Context() context.Context { return r.ctx }
func (r *runner) ArtifactDir() string      { return r.TempDir() }
func (r *runner) Attr(key, value string)   { r.Logf("%s: %s", key, value) }
func (r *runner) Output() io.Writer        { return output{r} }
func (r *runner) Chdir(string)             { r.Fatal("a case cannot change the process's folder") }
func (r *runner) Setenv(string, string)    { r.Fatal("a case cannot change the process's environment") }

type output struct{ *runner }

func (o output) Write(b []byte) (int, error) {
	o.write(string(b))
	return len(b), nil
}
