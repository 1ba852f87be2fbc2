package reality

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// describeHello writes a hello without what is drawn for each: random, session id, keys,
// GREASE values and the order of extensions.
func describeHello(record []byte) string {
	r := reader{b: record[recordHeader+4:]}
	version := r.number(2)
	r.take(32)
	session := r.vector(1)
	suites := r.vector(2)
	methods := r.vector(1)
	out := []string{fmt.Sprintf("version %04x, session id %d, methods %x, suites %s", version, len(session.b), methods.b, greased(suites.b, 2))}
	var list []string
	for all := r.vector(2); all.more(); {
		kind := all.number(2)
		body := all.vector(2)
		name, text := fmt.Sprintf("%5d", kind), ""
		switch kind {
		case extensionServerName, 65037: // the name, and GREASE for ECH in one of four lengths
			text = "any"
			if kind == 65037 {
				text = fmt.Sprintf("%x", body.b[:5])
				if !slices.Contains([]int{186, 218, 250, 282}, len(body.b)) { // Chrome's
					text += fmt.Sprintf(" %d", len(body.b))
				}
			}
		case extensionKeyShare:
			var keys [][]byte
			for shares := body.vector(2); shares.more(); {
				group := greased(shares.take(2), 2)
				data := shares.vector(2)
				text += fmt.Sprintf("%s %d ", group, len(data.b))
				if len(data.b) >= x25519Size {
					keys = append(keys, data.b[len(data.b)-x25519Size:])
				}
			}
			if len(keys) > 1 && bytes.Equal(keys[0], keys[1]) {
				text += "of one key"
			}
		case 10, 13: // lists of 16-bit values with a length before them
			text = greased(body.b[2:], 2)
		case extensionVersions:
			text = greased(body.b[1:], 2)
		default:
			text = fmt.Sprintf("%x", body.b)
			if kind&0x0f0f == 0x0a0a && kind>>8 == kind&0xff {
				name = "GREASE"
			}
		}
		list = append(list, strings.TrimSpace(name+" "+text))
	}
	slices.Sort(list)
	return strings.Join(append(out, list...), "\n") + "\n"
}

// greased are values of a size, with GREASE ones (RFC 8701) named so.
func greased(b []byte, size int) string {
	var out []string
	for v := range slices.Chunk(b, size) {
		text := fmt.Sprintf("%x", v)
		if len(v) == 2 && v[0] == v[1] && v[0]&0x0f == 0x0a {
			text = "GREASE"
		}
		out = append(out, text)
	}
	return strings.Join(out, " ")
}

// TestChromeHello: what "chrome" sends is what that browser sent. With COMMUCAT_SOAK the
// installed Chromium is asked again, and where it differs by now that is reported.
func TestChromeHello(t *testing.T) {
	golden := filepath.Join("testdata", "chrome-156.txt")
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	p, _ := testParams(t)
	orders := map[string]bool{}
	for range 16 {
		b := shape{params: p, profile: "chrome", now: time.Now()}.record(t)
		if got := describeHello(b); got != string(want) {
			t.Fatalf("sent:\n%s\nChrome's:\n%s", got, want)
		}
		orders[fmt.Sprint(extensionOrder(b))] = true
	}
	if len(orders) < 8 {
		t.Errorf("%d orders of extensions in 16 hellos", len(orders))
	}
	if !soak() {
		return
	}
	if now := describeHello(chromiumsHello(t)); now != string(want) {
		t.Logf("the installed Chromium sends by now:\n%s", now)
	} else {
		t.Log("the installed Chromium sends the same")
	}
}

func extensionOrder(record []byte) (kinds []int) {
	r := reader{b: record[recordHeader+4:]}
	r.take(34)
	r.vector(1)
	r.vector(2)
	r.vector(1)
	for all := r.vector(2); all.more(); all.vector(2) {
		kinds = append(kinds, all.number(2))
	}
	return kinds
}

// chromiumsHello is what the installed browser sends first.
func chromiumsHello(t *testing.T) []byte {
	t.Helper()
	dir := t.TempDir()
	return firstHello(t, dir, func(port string) (string, []string) {
		return "chromium", []string{
			"--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--user-data-dir=" + dir, "--disable-background-networking",
			"--host-resolver-rules=MAP " + siteName + " 127.0.0.1", "--timeout=20000", "--dump-dom", "https://" + siteName + ":" + port + "/",
		}
	})
}

// firstHello starts a browser that is to visit a port and gives the first record it sends.
func firstHello(t *testing.T, dir string, browser func(port string) (program string, args []string)) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer context.AfterFunc(ctx, func() { _ = ln.Close() })()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	program, args := browser(port)
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "HOME="+dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = ln.Close()
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}()
	c, err := ln.Accept()
	if err != nil {
		t.Skipf("%s did not come: %v", program, err)
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	var got bytes.Buffer
	for buf := make([]byte, 4096); inspect(got.Bytes()) == recordPart; {
		n, err := c.Read(buf)
		if got.Write(buf[:n]); err != nil {
			t.Skipf("%s said no more than %d bytes: %v", program, got.Len(), err)
		}
	}
	return got.Bytes()
}
