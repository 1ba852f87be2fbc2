package main

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk/client"
	"github.com/commucat/commucat/sdk/link"
)

// absent is a device that is away until back is called.
type absent struct {
	*party
	dir string
}

// leave registers a device with files of its own, which then goes away.
func (f *flow) leave(t *testing.T, ctx context.Context, index int, invite string) *absent {
	t.Helper()
	l, err := link.Parse(invite)
	if err != nil {
		t.Fatal(err)
	}
	profile, err := client.NewProfile(l, fmt.Sprint("device-", index), crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &absent{&party{flow: f, index: index, next: map[int]uint64{}}, filepath.Join(t.TempDir(), "profile")}
	if err := profile.Save(a.dir); err != nil {
		t.Fatal(err)
	}
	a.here(t, ctx, func() error { return nil })
	return a
}

// here lets the device be connected while work lasts.
func (a *absent) here(t *testing.T, ctx context.Context, work func() error) {
	t.Helper()
	profile, err := client.LoadProfile(a.dir)
	if err != nil {
		t.Fatal(err)
	}
	store, err := client.OpenStore(a.dir)
	if err != nil {
		t.Fatal(err)
	}
	if a.client, err = client.New(client.Options{Profile: profile, Store: store, Dialers: dialers(), Handle: a.handle}); err != nil {
		t.Fatal(err)
	}
	run, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- a.client.Run(run) }()
	_, err = a.client.Connected(ctx)
	if err == nil {
		err = work()
	}
	stop()
	if err = errors.Join(err, <-ended, a.client.Close(), store.Close(), a.client.Profile().Save(a.dir)); err != nil {
		t.Fatal(err)
	}
}

func (a *absent) had(sender int) uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.next[sender]
}

// TestBackupOfARunningRelay: while messages are being acknowledged a relay is archived, and
// what is restored from that elsewhere delivers each message that had been acknowledged
// before, once and in order; its ledger is whole. The relay itself goes on.
func TestBackupOfARunningRelay(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	before, end := int64(1_500), uint64(0)
	if os.Getenv("COMMUCAT_SOAK") != "" {
		before = 10_000
	}
	dir := dataFolder(t, strings.Replace(wide, "[limits]\n", "[limits]\nqueue_messages = 1000000\nqueue_bytes = \"1GiB\"\n", 1)+"[ledger]\nbackends = [\"file\", \"debug\"]\n")
	srv := relay(t, dir)
	address := srv.address()
	f := &flow{changed: make(chan struct{}, 1), wrong: make(chan error, 1)}
	bob := f.leave(t, ctx, 1, srv.Invite)
	out := t.TempDir()
	at := func(name string) string { return filepath.Join(out, name) }
	ok := func(args ...string) string { t.Helper(); return archive(t, args...) }
	write(t, at("public"), ok("key", at("private")))

	alice := f.leave(t, ctx, 0, srv.Invite)
	var acknowledged int64
	alice.here(t, ctx, func() error {
		enough, done := make(chan struct{}), make(chan error, 1)
		go func() {
			for {
				// Everything sent is acknowledged before she goes: what is still to be
				// sent would come behind messages that the archive has not.
				if err := alice.sendFrom(ctx, bob.party, end, 50); err != nil {
					done <- err
					return
				}
				end += 50
				select {
				case <-enough:
					done <- nil
					return
				default:
				}
			}
		}()
		if err := f.reach(ctx, &f.acked, before); err != nil {
			return err
		}
		acknowledged = f.acked.Load()
		ok("create", at("all.age"), "--recipients", at("public"), "--data", dir, "--keys", "with")
		if err := f.reach(ctx, &f.acked, f.acked.Load()+200); err != nil {
			return fmt.Errorf("after the backup: %w", err)
		}
		close(enough)
		return <-done
	})
	// What was made for it is gone.
	for _, pattern := range []string{"snapshot-*", "plugins/*/snapshot-*"} {
		if left, err := filepath.Glob(filepath.Join(dir, pattern)); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v %v", left, err)
		}
	}
	if code, stdout, _ := commucat(t, "backup", "create", at("keys.age"), "--recipients", at("public"), "--data", dir, "--keys", "only", "--json"); code != exitOK || !strings.Contains(stdout, `"keys":"only"`) {
		t.Errorf("keys only: %d %s", code, stdout)
	}
	srv.kill()

	if out := ok("verify", at("all.age"), "--identity", at("private")); !strings.Contains(out, "whole") {
		t.Error(out)
	}
	ok("restore", at("all.age"), "--identity", at("private"), "--data", at("new"))
	srv = spawn(t, at("new"), "--listen", address)
	if err := srv.ready(); err != nil {
		t.Fatal(err)
	}
	const last = 9 // the sender of what comes behind everything else
	alice.here(t, ctx, func() error {
		x, err := alice.client.Send(client.Draft{To: []string{bob.client.Profile().DeviceID}, Body: body(last, 0)})
		if err == nil {
			_, err = x.Wait(ctx)
		}
		return err
	})
	bob.here(t, ctx, func() error {
		for bob.had(last) == 0 {
			select {
			case <-f.changed:
			case err := <-f.wrong:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	if n := bob.had(0); int64(n) < acknowledged {
		t.Errorf("%d messages came of %d that were acknowledged before the backup began", n, acknowledged)
	} else {
		t.Logf("%d acknowledged before, %d in the archive", acknowledged, n)
	}
	select {
	case err := <-f.wrong:
		t.Error(err)
	default:
	}
	if code := srv.terminate(t); code != exitOK {
		t.Errorf("ended with %d: %s", code, srv.said())
	}
	if said := srv.said(); strings.Contains(said, "repaired") {
		t.Errorf("the ledger was cut within a record: %s", said)
	}
	if code, _, notes := commucat(t, "audit", "verify", "--data", at("new")); code != exitOK {
		t.Errorf("verify: %d %s", code, notes)
	}
}

// TestBackupOnAFullDisk: an archive, or a snapshot of a running relay, that finds no room is
// one line, and nothing of it is left.
func TestBackupOnAFullDisk(t *testing.T) {
	keys := t.TempDir()
	code, public, notes := commucat(t, "backup", "key", filepath.Join(keys, "private"))
	if code != exitOK {
		t.Fatal(notes)
	}
	write(t, filepath.Join(keys, "public"), public)
	t.Setenv("PUBLIC", filepath.Join(keys, "public"))
	stdout, notes := mounted(t, "size=160m", `
		mkdir "$DIR/data" "$DIR/out"
		create() { commucat backup create "$DIR/out/$1" --recipients "$PUBLIC" --data "$DIR/data"; }
		mkfifo "$DIR/ready"
		commucat serve --json --data "$DIR/data" --listen 127.0.0.1:0 >"$DIR/ready" &
		pid=$!
		trap 'kill -KILL $pid 2>/dev/null' EXIT
		read -r line <"$DIR/ready" || exit 7
		create first || exit 6
		mount -t tmpfs -o size=8k none "$DIR/out" || exit 6
		echo SMALL >&2; create small && exit 5
		dd if=/dev/zero of="$DIR/data/fill" bs=1k 2>/dev/null
		echo FULL >&2; create full && exit 4
		rm "$DIR/data/fill"
		umount "$DIR/out"
		ls -A "$DIR/out" "$DIR/data" "$DIR/data/plugins/storage-sqlite"
		create second || exit 3
		kill -TERM $pid && wait $pid || exit 2`)
	if strings.Contains(stdout, "snapshot") || strings.Contains(stdout, "small") || strings.Contains(stdout, "full") || strings.Count(stdout, "kept: ") != 2 {
		t.Errorf("stdout %q, stderr %q", stdout, notes)
	}
	_, rest, _ := strings.Cut(notes, "SMALL\n")
	small, full, _ := strings.Cut(rest, "FULL\n")
	full, _, _ = strings.Cut(full, "\n")
	if strings.Count(small, "\n") != 1 || !strings.Contains(small, "is too full for small: ") || !strings.Contains(full, "too full: ") && !strings.Contains(full, "no space left") {
		t.Errorf("small %q, full %q", small, full)
	}
}
