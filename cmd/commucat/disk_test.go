package main

import (
	"os/exec"
	"strings"
	"testing"
)

// mounted runs a shell script in a mount namespace of its own, where $DIR is a
// fresh file system in memory with the given options.
func mounted(t *testing.T, options, script string) (stdout, stderr string) {
	t.Helper()
	if out, err := exec.Command("unshare", "-rm", "mount", "-t", "tmpfs", "none", t.TempDir()).CombinedOutput(); err != nil {
		t.Skipf("no mount namespaces here: %v %s", err, out)
	}
	cmd := exec.Command("unshare", "-rm", "sh", "-c", `mount -t tmpfs -o "$OPTIONS" none "$DIR" || exit 9; `+script)
	cmd.Env = append(cmd.Environ(), "DIR="+t.TempDir(), "OPTIONS="+options)
	var out, notes strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &notes
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, notes.String())
	}
	return out.String(), notes.String()
}

// last is the last line of a text: what a user reads first.
func last(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// TestDisk: a file system that is read-only or full is one clear line, and what
// was there works again once there is room.
func TestDisk(t *testing.T) {
	const fails = `commucat serve --data "$DIR" --listen 127.0.0.1:0; test $? = 1 || exit 8; `
	for _, c := range []struct{ name, options, script, want string }{
		{"read-only", "ro", fails, "cannot be written: read-only file system"},
		{"no room for keys", "size=16k", fails, "no space left on device"},
		{"no room for the database", "size=64k", fails, "the disk is full or failing"},
		{"no room for queues", "size=1m", fails, "the disk is full: "},
		{"no room for messages", "size=40m", fails, "the disk is full: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			stdout, notes := mounted(t, c.options, c.script)
			line := last(notes)
			if stdout != "" || !strings.HasPrefix(line, "commucat: ") || !strings.Contains(line, c.want) || strings.Contains(notes, "goroutine ") {
				t.Errorf("stdout %q, stderr %q; want %q in the last line", stdout, notes, c.want)
			}
		})
	}
	t.Run("filled and freed", func(t *testing.T) {
		const before, after = "FREED", "VERIFIED"
		stdout, notes := mounted(t, "size=128m", `
			serve() {
				mkfifo "$DIR/../ready"
				commucat serve --json --data "$DIR" --listen 127.0.0.1:0 >"$DIR/../ready" &
				pid=$!
				read -r line <"$DIR/../ready" || exit 7
				rm "$DIR/../ready"
				kill -TERM $pid && wait $pid || exit 6
			}
			serve
			dd if=/dev/zero of="$DIR/fill" bs=1k 2>/dev/null
			`+fails+`
			rm "$DIR/fill"; echo `+before+`
			serve
			commucat audit verify --data "$DIR" >&2 || exit 5
			echo `+after)
		if stdout != before+"\n"+after+"\n" {
			t.Errorf("stdout %q, stderr %q", stdout, notes)
		}
	})
}

// TestDiskOfAClient: a device on a disk that is full or read-only is told so. Nobody is
// told to throw its messages away, and it works again afterwards.
func TestDiskOfAClient(t *testing.T) {
	p := relay(t, dataFolder(t, wide))
	profile := t.TempDir() + "/alice"
	if code, _, notes := commucat(t, "client", "register", "--server", p.Invite, "--handle", "alice", "--profile", profile); code != exitOK {
		t.Fatal(code, notes)
	}
	t.Setenv("PROFILE", profile)
	const send = `commucat client send --profile "$DIR/p" --to alice hello; `
	stdout, notes := mounted(t, "size=200k", `
		cp -r "$PROFILE" "$DIR/p" && rm "$DIR/p/messages.db"
		dd if=/dev/zero of="$DIR/fill" bs=1k 2>/dev/null
		`+send+`test $? = 1 || exit 8
		rm "$DIR/fill"; `+send+`test $? = 0 || exit 7
		mount -o remount,ro "$DIR"
		`+send+`test $? = 1 || exit 6
		mount -o remount,rw "$DIR"
		`+send+`test $? = 0 || exit 5`)
	if strings.Count(stdout, "stored ") != 2 || strings.Contains(notes, "damaged") ||
		!strings.Contains(notes, "check the disk: ") || !strings.Contains(notes, "read-only file system") || !strings.Contains(notes, "no space left on device") {
		t.Errorf("stdout %q, stderr %q", stdout, notes)
	}
}
