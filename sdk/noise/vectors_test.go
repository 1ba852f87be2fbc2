package noise

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func key32(t testing.TB, s string) [32]byte {
	t.Helper()
	return [32]byte(unhex(t, s))
}

func readJSON(t testing.TB, name string, into any) {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatal(err)
	}
}

func same(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if diff := cmp.Diff(hex.EncodeToString(want), hex.EncodeToString(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

type ccpNoise struct {
	Protocol    string `json:"protocol"`
	Prologue    string `json:"prologue_hex"`
	Hash        string `json:"handshake_hash"`
	InitEph     string `json:"initiator_ephemeral_private"`
	InitEphPub  string `json:"initiator_ephemeral_public"`
	InitStatic  string `json:"initiator_static_private"`
	InitPublic  string `json:"initiator_static_public"`
	RespEph     string `json:"responder_ephemeral_private"`
	RespEphPub  string `json:"responder_ephemeral_public"`
	RespStatic  string `json:"responder_static_private"`
	RespPublic  string `json:"responder_static_public"`
	RespLearned string `json:"responder_learned_static"`
	KeyUp       string `json:"key_client_to_server"`
	KeyDown     string `json:"key_server_to_client"`
	Messages    []struct {
		Message string `json:"message_hex"`
		Payload string `json:"payload_utf8"`
		Length  int    `json:"length"`
	} `json:"messages"`
	Up   []ccpRecord `json:"transport_client_to_server"`
	Down []ccpRecord `json:"transport_server_to_client"`
}

type ccpRecord struct {
	Nonce      uint64 `json:"nonce"`
	Plaintext  string `json:"plaintext_hex"`
	Ciphertext string `json:"ciphertext_hex"`
	Record     string `json:"record_hex"`
}

type ccpTranscript struct {
	Dir   string `json:"dir"`
	What  string `json:"what"`
	Frame string `json:"frame_hex"`
	Plain string `json:"plain_frame_hex"`
	Rec   string `json:"record_hex"`
}

type ccpVectors struct {
	Noise      map[string]ccpNoise `json:"noise"`
	Transcript []ccpTranscript     `json:"session_transcript_xk"`
	Sample     struct {
		Private string `json:"private_hex"`
		Public  string `json:"public_hex"`
	} `json:"x25519_doc_sample"`
}

// pair builds both sides of v with its fixed ephemeral keys.
func (v ccpNoise) pair(t testing.TB) (client, server *Handshake) {
	t.Helper()
	pattern, ok := ParsePattern(strings.Split(v.Protocol, "_")[1])
	if !ok {
		t.Fatalf("protocol %q", v.Protocol)
	}
	is, rs := KeyPairFrom(key32(t, v.InitStatic)), KeyPairFrom(key32(t, v.RespStatic))
	same(t, "initiator static", is.Public[:], unhex(t, v.InitPublic))
	same(t, "responder static", rs.Public[:], unhex(t, v.RespPublic))
	config := Config{Pattern: pattern, Prologue: unhex(t, v.Prologue)}
	config.Static, config.Random = rs, bytes.NewReader(unhex(t, v.RespEph))
	server = mustHandshake(t, config)
	config.Static, config.Random = is, bytes.NewReader(unhex(t, v.InitEph))
	config.Initiator, config.Peer = true, rs.Public
	return mustHandshake(t, config), server
}

func mustHandshake(t testing.TB, c Config) *Handshake {
	t.Helper()
	h, err := NewHandshake(c)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestCCPNoise(t *testing.T) {
	var all ccpVectors
	readJSON(t, "ccp1.json", &all)
	if len(all.Noise) != 3 {
		t.Fatalf("%d noise vectors", len(all.Noise))
	}
	for name, v := range all.Noise {
		t.Run(name, func(t *testing.T) {
			client, server := v.pair(t)
			from, to := client, server
			for i, m := range v.Messages {
				message, err := from.WriteMessage([]byte("head"), []byte(m.Payload))
				if err != nil {
					t.Fatal(err)
				}
				same(t, "message", message[4:], unhex(t, m.Message))
				if want := m.Length - len(m.Payload); client.pattern.MessageSize(i) != want {
					t.Errorf("MessageSize(%d) = %d, want %d", i, client.pattern.MessageSize(i), want)
				}
				payload, err := to.ReadMessage([]byte("x"), message[4:])
				if err != nil {
					t.Fatal(err)
				}
				same(t, "payload", payload, []byte("x"+m.Payload))
				from, to = to, from
			}
			same(t, "client hash", client.Hash(), unhex(t, v.Hash))
			same(t, "server hash", server.Hash(), unhex(t, v.Hash))
			same(t, "key up", server.toServer[:], unhex(t, v.KeyUp))
			same(t, "key down", server.toClient[:], unhex(t, v.KeyDown))
			peer := server.PeerStatic()
			same(t, "learned static", peer[:], unhex(t, v.RespLearned))
			checkRecords(t, client, server, v.Up, v.Down)
		})
	}
}

func checkRecords(t *testing.T, client, server *Handshake, up, down []ccpRecord) {
	t.Helper()
	cs, cr, err := client.Split()
	if err != nil {
		t.Fatal(err)
	}
	ss, sr, err := server.Split()
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []struct {
		records []ccpRecord
		seal    *Sealer
		open    *Opener
	}{
		{up, NewSealer(cs), NewOpener(sr)},
		{down, NewSealer(ss), NewOpener(cr)},
	} {
		for _, r := range dir.records {
			plain := unhex(t, r.Plaintext)
			if dir.seal.Counter() != r.Nonce {
				t.Errorf("counter %d, want %d", dir.seal.Counter(), r.Nonce)
			}
			record, err := dir.seal.AppendRecord(nil, plain)
			if err != nil {
				t.Fatal(err)
			}
			same(t, "record", record, unhex(t, r.Record))
			if !bytes.HasSuffix(record, unhex(t, r.Ciphertext)) {
				t.Error("ciphertext is not the record's end")
			}
			got, n, err := dir.open.Next(record)
			if err != nil || n != len(record) {
				t.Fatalf("Next = %d, %v", n, err)
			}
			same(t, "plaintext", got, plain)
		}
	}
}

// The records of the session transcript continue the handshake xk_session.
func TestCCPTranscript(t *testing.T) {
	var all ccpVectors
	readJSON(t, "ccp1.json", &all)
	client, server := all.Noise["xk_session"].pair(t)
	run(t, client, server, []byte(all.Noise["xk_session"].Messages[1].Payload))
	cs, cr, _ := client.Split()
	ss, sr, _ := server.Split()
	seal := map[string]*Sealer{"client->server": NewSealer(cs), "server->client": NewSealer(ss)}
	open := map[string]*Opener{"client->server": NewOpener(sr), "server->client": NewOpener(cr)}
	records := 0
	for _, step := range all.Transcript {
		if step.Rec == "" {
			continue
		}
		records++
		record, err := seal[step.Dir].AppendRecord(nil, unhex(t, step.Plain))
		if err != nil {
			t.Fatal(err)
		}
		same(t, step.What, record, unhex(t, step.Rec))
		plain, _, err := open[step.Dir].Next(record)
		if err != nil {
			t.Fatal(err)
		}
		same(t, step.What, plain, unhex(t, step.Plain))
	}
	if records != 4 {
		t.Errorf("%d records in the transcript", records)
	}
}

// run finishes a handshake with payload in message 2 and nothing in the others.
func run(t testing.TB, client, server *Handshake, payload []byte) {
	t.Helper()
	from, to := client, server
	for i := range client.pattern.Messages() {
		var p []byte
		if i == 1 {
			p = payload
		}
		message, err := from.WriteMessage(nil, p)
		if err != nil {
			t.Fatalf("write %d: %v", i, err)
		}
		if _, err := to.ReadMessage(nil, message); err != nil {
			t.Fatalf("read %d: %v", i, err)
		}
		from, to = to, from
	}
}

type noiseVector struct {
	Source       string   `json:"source"`
	Name         string   `json:"protocol_name"`
	InitPrologue string   `json:"init_prologue"`
	InitPSKs     []string `json:"init_psks"`
	InitStatic   string   `json:"init_static"`
	InitEph      string   `json:"init_ephemeral"`
	InitRemote   string   `json:"init_remote_static"`
	RespPrologue string   `json:"resp_prologue"`
	RespPSKs     []string `json:"resp_psks"`
	RespStatic   string   `json:"resp_static"`
	RespEph      string   `json:"resp_ephemeral"`
	Hash         string   `json:"handshake_hash"`
	Messages     []struct {
		Payload    string `json:"payload"`
		Ciphertext string `json:"ciphertext"`
	} `json:"messages"`
}

// The vectors of cacophony and snow, both of them independent of flynn/noise.
func TestNoiseVectors(t *testing.T) {
	var all struct {
		Vectors []noiseVector `json:"vectors"`
	}
	readJSON(t, "noise.json", &all)
	if len(all.Vectors) != 6 {
		t.Fatalf("%d vectors", len(all.Vectors))
	}
	for _, v := range all.Vectors {
		t.Run(v.Source+"/"+v.Name, func(t *testing.T) {
			name := strings.Split(v.Name, "_")[1]
			pattern, _ := ParsePattern(name[:2])
			pq := len(name) > 2
			client := mustHandshake(t, Config{
				Pattern: pattern, Initiator: true, PQ: pq, Prologue: unhex(t, v.InitPrologue),
				Static: KeyPairFrom(key32(t, v.InitStatic)), Peer: key32(t, v.InitRemote),
				Random: bytes.NewReader(unhex(t, v.InitEph)),
			})
			server := mustHandshake(t, Config{
				Pattern: pattern, PQ: pq, Prologue: unhex(t, v.RespPrologue),
				Static: KeyPairFrom(key32(t, v.RespStatic)),
				Random: bytes.NewReader(unhex(t, v.RespEph)),
			})
			if pq {
				if err := errors.Join(client.SetPSK(key32(t, v.InitPSKs[0])), server.SetPSK(key32(t, v.RespPSKs[0]))); err != nil {
					t.Fatal(err)
				}
			}
			handshake := v.Messages[:pattern.Messages()]
			from, to := client, server
			for _, m := range handshake {
				message, err := from.WriteMessage(nil, unhex(t, m.Payload))
				if err != nil {
					t.Fatal(err)
				}
				same(t, "message", message, unhex(t, m.Ciphertext))
				payload, err := to.ReadMessage(nil, message)
				if err != nil {
					t.Fatal(err)
				}
				same(t, "payload", payload, unhex(t, m.Payload))
				from, to = to, from
			}
			if v.Hash != "" {
				same(t, "hash", client.Hash(), unhex(t, v.Hash))
				same(t, "hash", server.Hash(), unhex(t, v.Hash))
			}
			transportVectors(t, client, server, v, len(handshake))
		})
	}
}

func transportVectors(t *testing.T, client, server *Handshake, v noiseVector, first int) {
	t.Helper()
	cs, cr, err := client.Split()
	if err != nil {
		t.Fatal(err)
	}
	ss, sr, err := server.Split()
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range v.Messages[first:] {
		seal, open := cs, sr
		if (first+i)%2 == 1 {
			seal, open = ss, cr
		}
		ciphertext, err := seal.AppendSeal(nil, unhex(t, m.Payload))
		if err != nil {
			t.Fatal(err)
		}
		same(t, "transport", ciphertext, unhex(t, m.Ciphertext))
		plain, err := open.Open(ciphertext[:0], ciphertext)
		if err != nil {
			t.Fatal(err)
		}
		same(t, "transport payload", plain, unhex(t, m.Payload))
	}
}

// TestWycheproofX25519 runs the whole group: a result of zero is an error, all
// else, twists and non-canonical keys included, is RFC 7748's result.
func TestWycheproofX25519(t *testing.T) {
	f, err := os.Open("testdata/x25519.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	count, zero := 0, 0
	for lines := bufio.NewScanner(f); lines.Scan(); count++ {
		var v struct {
			ID                      int
			Flags                   []string
			Public, Private, Shared string
		}
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			t.Fatal(err)
		}
		shared, err := DH(key32(t, v.Private), key32(t, v.Public))
		if slices.Contains(v.Flags, "ZeroSharedSecret") {
			zero++
			if !errors.Is(err, ErrKey) || shared != [32]byte{} {
				t.Errorf("%d: a zero result is no error", v.ID)
			}
			continue
		}
		if err != nil || hex.EncodeToString(shared[:]) != v.Shared {
			t.Errorf("%d: %x, %v; want %s", v.ID, shared, err, v.Shared)
		}
	}
	if count != 518 || zero == 0 {
		t.Errorf("%d vectors, %d of them zero", count, zero)
	}
}

func TestX25519DocSample(t *testing.T) {
	var all ccpVectors
	readJSON(t, "ccp1.json", &all)
	k := KeyPairFrom(key32(t, all.Sample.Private))
	same(t, "public", k.Public[:], unhex(t, all.Sample.Public))
}
