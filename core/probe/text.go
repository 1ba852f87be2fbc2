package probe

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/net/http2/hpack"
)

var (
	dateLine = regexp.MustCompile(`(?mi)^(date|x-request-id): [^\r\n]*`)
	// boundary is that of multipart answers as net/http draws it.
	boundary = regexp.MustCompile(`(boundary=|--)[0-9a-f]{60}`)
)

// http1Text masks what differs from one answer to the next.
func http1Text(s string) string {
	return shorten(boundary.ReplaceAllString(dateLine.ReplaceAllString(s, "$1: …"), "$1…"))
}

// shorten replaces a long text by its start and hash.
func shorten(s string) string {
	if len(s) <= 4096 {
		return s
	}
	return fmt.Sprintf("%s… %d bytes, sha256 %x", s[:512], len(s), sha256.Sum256([]byte(s)))
}

var frameNames = []string{"data", "headers", "priority", "rst_stream", "settings", "push_promise", "ping", "goaway", "window_update", "continuation"}

// http2Text reads frames and writes them grouped by stream. Within a stream
// the order stands; data is joined, window updates are summed, because how
// they are cut depends on scheduling.
func http2Text(b []byte) string {
	texts := map[uint32][]string{}
	data := map[uint32][]byte{}
	windows := map[uint32]uint64{}
	decode := hpack.NewDecoder(64<<10, nil)
	var ids []uint32
	note := func(id uint32, format string, args ...any) {
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
		if format != "" {
			texts[id] = append(texts[id], fmt.Sprintf(format, args...))
		}
	}
	rest := ""
	for len(b) > 0 {
		if len(b) < 9 {
			rest = fmt.Sprintf("rest %x\n", b)
			break
		}
		n := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
		kind, flags, id := b[3], b[4], binary.BigEndian.Uint32(b[5:])&(1<<31-1)
		if len(b) < 9+n {
			rest = http1Text(string(b))
			break
		}
		payload := b[9 : 9+n]
		b = b[9+n:]
		switch {
		case kind == 0:
			note(id, "")
			data[id] = append(data[id], payload...)
			if flags&1 != 0 {
				note(id, "data end")
			}
		case kind == 1:
			note(id, "headers %x%s", flags, fields(decode, payload))
		case kind == 8 && n == 4:
			note(id, "")
			windows[id] += uint64(binary.BigEndian.Uint32(payload))
		case int(kind) < len(frameNames):
			note(id, "%s %x %x", frameNames[kind], flags, payload)
		default:
			note(id, "frame %x %x %x", kind, flags, payload)
		}
	}
	slices.Sort(ids)
	var out strings.Builder
	for _, id := range ids {
		fmt.Fprintf(&out, "stream %d\n", id)
		for _, line := range texts[id] {
			fmt.Fprintf(&out, "  %s\n", line)
		}
		if windows[id] > 0 {
			fmt.Fprintf(&out, "  windows %d\n", windows[id])
		}
		if d := data[id]; len(d) > 0 {
			fmt.Fprintf(&out, "  %s\n", http1Text(string(d)))
		}
	}
	return out.String() + rest
}

func fields(d *hpack.Decoder, block []byte) string {
	list, err := d.DecodeFull(block)
	if err != nil {
		return " undecodable"
	}
	var b strings.Builder
	for _, f := range list {
		value := f.Value
		if f.Name == "date" || f.Name == "x-request-id" {
			value = "…"
		}
		fmt.Fprintf(&b, "\n    %s: %s", f.Name, boundary.ReplaceAllString(value, "$1…"))
	}
	return b.String()
}

// tlsText writes TLS records: alerts whole, a ServerHello without randomness,
// of encrypted records only that they came. Anything else is text.
func tlsText(b []byte) string {
	var out strings.Builder
	last := ""
	for len(b) > 0 {
		if len(b) < 5 || b[0] < 20 || b[0] > 24 || b[1] != 3 || len(b) < 5+int(b[3])<<8+int(b[4]) {
			out.WriteString(http1Text(string(b)))
			break
		}
		body := b[5 : 5+int(b[3])<<8+int(b[4])]
		var line string
		switch b[0] {
		case 21:
			line = fmt.Sprintf("alert %x", body)
			if len(body) > 2 {
				line = "encrypted alert"
			}
		case 22:
			line = helloText(body)
		case 23:
			line = "encrypted"
		default:
			line = fmt.Sprintf("record %d %x", b[0], body)
		}
		b = b[5+len(body):]
		if line != last || line != "encrypted" {
			fmt.Fprintf(&out, "%s\n", line)
		}
		last = line
	}
	return out.String()
}

// helloText writes version, cipher, compression and the list of extensions with
// their values, except key shares.
func helloText(b []byte) string {
	if len(b) < 4 || b[0] != 2 {
		return fmt.Sprintf("handshake %x", b[:min(len(b), 4)])
	}
	if len(b) < 39 || len(b) < 39+int(b[38])+3 {
		return fmt.Sprintf("hello %x", b)
	}
	rest := b[39+int(b[38]):]
	out := fmt.Sprintf("hello version %x session %d cipher %x compression %d", b[4:6], b[38], rest[:2], rest[2])
	if len(rest) < 5 {
		return out
	}
	for ext := rest[5:]; len(ext) >= 4; {
		kind, n := binary.BigEndian.Uint16(ext), int(binary.BigEndian.Uint16(ext[2:]))
		if len(ext) < 4+n {
			break
		}
		value := ext[4 : 4+n]
		if kind == 51 && n > 4 {
			value = value[:4] // group and length
		}
		out += fmt.Sprintf(" %d:%x", kind, value)
		ext = ext[4+n:]
	}
	return out
}
