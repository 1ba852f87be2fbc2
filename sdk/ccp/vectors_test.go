package ccp

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type vectors struct {
	Varint struct {
		Encode []struct {
			Hex   string
			Value uint64
		}
		DecodeOnly []struct {
			Hex, Error string
			Value      json.RawMessage
		} `json:"decode_only"`
	}
	Frames []struct {
		Name       string
		Type       uint8
		ChannelID  uint32 `json:"channel_id"`
		Sequence   uint32
		FrameHex   string `json:"frame_hex"`
		PayloadHex string `json:"payload_hex"`
	}
	FrameErrors []struct {
		Hex         string
		Consumed    int
		PayloadHex  string `json:"payload_hex"`
		Reference   string `json:"reference_result"`
		Recommended string
	} `json:"frame_errors"`
	Transcript []struct {
		FrameHex      string `json:"frame_hex"`
		PlainFrameHex string `json:"plain_frame_hex"`
		RecordHex     string `json:"record_hex"`
		JSON          string `json:"json"`
		What          string
	} `json:"session_transcript_xk"`
	Modes struct {
		NDJSON string `json:"ndjson_encrypted"`
	} `json:"connect_modes"`
}

func loadVectors(t *testing.T) vectors {
	t.Helper()
	b, err := os.ReadFile("testdata/ccp1.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Frames) == 0 || len(v.FrameErrors) == 0 || len(v.Transcript) == 0 || len(v.Varint.Encode) == 0 {
		t.Fatal("vectors are missing")
	}
	return v
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestVectorsVarint(t *testing.T) {
	v := loadVectors(t)
	for _, c := range v.Varint.Encode {
		b := unhex(t, c.Hex)
		if got := AppendVarint(nil, c.Value); !bytes.Equal(got, b) || VarintLen(c.Value) != len(b) {
			t.Errorf("AppendVarint(%d) = %x, want %s; VarintLen %d", c.Value, got, c.Hex, VarintLen(c.Value))
		}
		if got, n, err := Varint(b); got != c.Value || n != len(b) || err != nil {
			t.Errorf("Varint(%s) = %d, %d, %v", c.Hex, got, n, err)
		}
	}
	for _, c := range v.Varint.DecodeOnly {
		got, _, err := Varint(unhex(t, c.Hex))
		switch c.Error {
		case "":
			if want, _ := strconv.ParseUint(strings.Trim(string(c.Value), `"`), 10, 64); got != want || err != nil {
				t.Errorf("Varint(%s) = %d, %v", c.Hex, got, err)
			}
		case "varint overflow":
			if KindOf(err) != VarintOverflow || err.Error() != c.Error {
				t.Errorf("Varint(%s): %v", c.Hex, err)
			}
		default:
			if !errors.Is(err, ErrIncomplete) {
				t.Errorf("Varint(%s): %v", c.Hex, err)
			}
		}
	}
}

func TestVectorsFrames(t *testing.T) {
	for _, c := range loadVectors(t).Frames {
		t.Run(c.Name, func(t *testing.T) {
			b := unhex(t, c.FrameHex)
			f, n, err := Decode(b)
			if err != nil || n != len(b) {
				t.Fatalf("Decode: %d, %v", n, err)
			}
			want := Frame{Type(c.Type), c.ChannelID, c.Sequence, unhex(t, c.PayloadHex)}
			if diff := cmp.Diff(want, f); diff != "" {
				t.Error(diff)
			}
			got, err := Append([]byte("x"), f)
			if err != nil || !bytes.Equal(got[1:], b) {
				t.Errorf("Append = %x, %v", got, err)
			}
			if n, err := EncodedLen(f.Type, f.Channel, f.Sequence, len(f.Payload)); n != len(b) || err != nil {
				t.Errorf("EncodedLen = %d, %v", n, err)
			}
			for cut := range b {
				if _, _, err := Decode(b[:cut]); !errors.Is(err, ErrIncomplete) {
					t.Errorf("cut at %d: %v", cut, err)
				}
			}
		})
	}
}

func TestVectorsFrameErrors(t *testing.T) {
	kinds := map[string]ErrorKind{
		"00":                 EmptyBody,
		"08050102ff01aabbcc": Truncated,
		"05060102027b7d":     Truncated,
	}
	for _, c := range loadVectors(t).FrameErrors {
		t.Run(c.Hex, func(t *testing.T) {
			f, n, err := Decode(unhex(t, c.Hex))
			switch {
			case strings.HasPrefix(c.Reference, "ok"):
				want := len(c.Hex) / 2
				if c.Consumed != 0 {
					want = c.Consumed
				}
				if err != nil || n != want || hex.EncodeToString(f.Payload) != c.PayloadHex {
					t.Errorf("Decode = %x, %d, %v", f.Payload, n, err)
				}
			case c.Recommended != "":
				if KindOf(err) != kinds[c.Hex] || KindOf(err) == 0 {
					t.Errorf("Decode: %v, want a final error", err)
				}
			default:
				if KindOf(err) == 0 || err.Error() != c.Reference {
					t.Errorf("Decode: %v, want %s", err, c.Reference)
				}
			}
		})
	}
}

// The transcript's clear frames survive typed parsing: what is written again is
// the same JSON.
func TestVectorsTranscript(t *testing.T) {
	v := loadVectors(t)
	again := []func([]byte) ([]byte, error){
		func(b []byte) ([]byte, error) { h, err := ParseHello(b); return h.Marshal(), err },
		func(b []byte) ([]byte, error) { a, err := ParseServerAuth(b); return a.Marshal(), err },
		func(b []byte) ([]byte, error) { a, err := ParseClientAuth(b); return a.Marshal(), err },
		func(b []byte) ([]byte, error) { a, err := ParseEstablished(b); return a.Marshal(), err },
	}
	for i, f := range again {
		frame, _, err := Decode(unhex(t, v.Transcript[i].FrameHex))
		if err != nil {
			t.Fatal(err)
		}
		got, err := f(frame.Payload)
		if err != nil {
			t.Fatalf("%s: %v", v.Transcript[i].What, err)
		}
		if diff := cmp.Diff(string(frame.Payload), string(got)); diff != "" {
			t.Errorf("%s: %s", v.Transcript[i].What, diff)
		}
		if canonical, err := CanonicalJSON(frame.Payload); err != nil || !bytes.Equal(canonical, frame.Payload) {
			t.Errorf("%s: CanonicalJSON = %s, %v", v.Transcript[i].What, canonical, err)
		}
	}
	for _, s := range v.Transcript[len(again):] {
		b := unhex(t, s.PlainFrameHex)
		f, n, err := Decode(b)
		if err != nil || n != len(b) {
			t.Fatalf("%s: %d, %v", s.What, n, err)
		}
		if size, _, _ := Varint(unhex(t, s.RecordHex)); size != uint64(len(b)+16) {
			t.Errorf("%s: record of %d bytes", s.What, size)
		}
		if f.Type == TypeAck {
			seq, err := ParseReply(f.Payload)
			if err != nil || !bytes.Equal(AppendReply(nil, seq), f.Payload) {
				t.Errorf("%s: reply %d, %v", s.What, seq, err)
			}
		}
	}
	join, _, _ := Decode(unhex(t, v.Transcript[4].PlainFrameHex))
	if j, err := ParseJoin(join.Payload); err != nil || !bytes.Equal(j.Marshal(), join.Payload) {
		t.Errorf("join %+v, %v", j, err)
	}
}

func TestVectorsHelloContent(t *testing.T) {
	h, err := ParseHello([]byte(loadVectors(t).Transcript[0].JSON))
	if err != nil {
		t.Fatal(err)
	}
	if h.Sealed() || h.Pattern != PatternXK || len(h.Handshake) != 48 || h.Identity.DeviceID != "device-1" || h.Proof == nil {
		t.Errorf("hello %+v", h)
	}
	if diff := cmp.Diff(&UserHints{ID: "user-1", Handle: "alice"}, h.Identity.User); diff != "" {
		t.Error(diff)
	}
	if got := ParseCapabilities(h.Capabilities); got != 0 {
		t.Errorf("the reference client has no capability of ours, got %v", got.Names())
	}
	if v, err := NegotiateVersion(h); v != 1 || err != nil {
		t.Errorf("NegotiateVersion = %d, %v", v, err)
	}
}

func TestVectorsNDJSON(t *testing.T) {
	v := loadVectors(t)
	f, _, err := Decode(unhex(t, v.Transcript[5].PlainFrameHex))
	if err != nil {
		t.Fatal(err)
	}
	line := AppendObject(nil, Uint("channel", uint64(f.Channel)), Text("type", f.Type.String()), Uint("sequence", uint64(f.Sequence)),
		Text("data", base64.StdEncoding.EncodeToString(unhex(t, v.Transcript[5].RecordHex))))
	if got := string(line) + "\n"; got != v.Modes.NDJSON {
		t.Errorf("line %s, want %s", got, v.Modes.NDJSON)
	}
}

func TestTypeTable(t *testing.T) {
	var b strings.Builder
	for i := range 256 {
		y := Type(i)
		if !y.Valid() {
			if y.Control() || y.Media() || y.Sendable() || y.Deliverable() || y.Extension() {
				t.Errorf("type %#x is not valid but has traits", i)
			}
			continue
		}
		fmt.Fprintf(&b, "%02x %s control=%t extension=%t send=%t deliver=%t\n", i, y, y.Control(), y.Extension(), y.Sendable(), y.Deliverable())
	}
	golden(t, "types.golden", []byte(b.String()))
	if got := Type(0x15).String(); got != "type(0x15)" {
		t.Error(got)
	}
}
