package session

import (
	"io"
	"testing"
	"time"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/transport"
)

// FuzzHandshake feeds whole connections. Whatever comes, nothing may be stored or
// attached, and no answer may be anything but Auth and the generic error.
func FuzzHandshake(f *testing.F) {
	h := newHouse(f, func(o *Options, a *account.Options) {
		o.Limits.Handshake = 20 * time.Millisecond
		a.Registration = account.Open
	})
	d := newDevice(f, "dev-a", "alice")
	for _, caps := range []ccp.Capabilities{ccp.AllCapabilities, ccp.ProofBinding | ccp.Records | ccp.Ack} {
		conn, _ := h.serve(transport.Facts{})
		rec := &recorder{Conn: conn}
		c := h.client(f, d, rec)
		c.caps = caps
		if err := c.first(); err != nil {
			f.Fatal(err)
		}
		if err := c.third(); err != nil {
			f.Fatal(err)
		}
		conn.Close()
		b := rec.out.Bytes()
		f.Add(b, false)
		f.Add(b[:len(b)/2], true)
		f.Add(append(append([]byte(nil), b...), 16, 1, 2, 3), true)
	}
	var v struct {
		Transcript []struct {
			Frame string `json:"frame_hex"`
		} `json:"session_transcript_xk"`
	}
	readVectors(f, &v)
	f.Add(unhex(f, v.Transcript[0].Frame), true)
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, in []byte, compat bool) {
		conn, ended := h.serve(transport.Facts{Transport: "fuzz", Compat: compat})
		go func() {
			_, _ = conn.Write(in)
			time.Sleep(5 * time.Millisecond)
			conn.Close()
		}()
		out, _ := io.ReadAll(conn)
		<-ended
		h.mu.Lock()
		h.conns = nil
		h.mu.Unlock()
		for len(out) > 0 {
			fr, n, err := ccp.Decode(out)
			if err != nil || (fr.Type != ccp.TypeAuth && fr.Type != ccp.TypeError) {
				t.Fatalf("answered %x", out)
			}
			out = out[n:]
		}
		if h.relay.attached() != 0 || h.dir.Count("device") != 0 {
			t.Fatal("something came of it")
		}
	})
}
