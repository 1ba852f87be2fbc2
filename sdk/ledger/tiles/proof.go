package tiles

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/commucat/commucat/sdk"
)

const proofHeader = "c2sp.org/tlog-proof@v1"

// maxProof bounds a proof: 63 hashes and a checkpoint.
const maxProof = maxCheckpoint + 8<<10

// Proof shows that a log contains a record (c2sp.org/tlog-proof).
type Proof struct {
	// Index is the record's number, from 0.
	Index  int64
	Hashes [][32]byte
	// Signed is the checkpoint that the hashes lead to.
	Signed []byte
}

// Prove makes the proof of a record, under the checkpoint as it stands.
func (r *Reader) Prove(index int64) (Proof, error) {
	if index < 0 || index >= r.head.Size {
		return Proof{}, failure(sdk.NotFound, fmt.Sprintf("there is no record %d; the log has %d", index+1, r.head.Size), nil)
	}
	p, err := tlog.ProveRecord(r.head.Size, index, r.verified())
	if err != nil {
		return Proof{}, err
	}
	out := Proof{Index: index, Signed: r.signed}
	for _, h := range p {
		out.Hashes = append(out.Hashes, h)
	}
	return out, nil
}

// verified reads hashes that the signed head vouches for.
func (r *Reader) verified() tlog.HashReader {
	h := &hashes{size: r.head.Size, tiles: map[tileID][]byte{}, load: loader(r.dir)}
	t := &tileReader{h: h}
	return vouched{tlog.TileHashReader(tlog.Tree{N: r.head.Size, Hash: r.head.Root}, t), t}
}

// vouched names the tiles where hashes that could be read are not the head's.
type vouched struct {
	tlog.HashReader
	tiles *tileReader
}

// ReadHashes answers a *DamageError for hashes that were changed.
func (v vouched) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out, err := v.HashReader.ReadHashes(indexes)
	if err != nil && v.tiles.err == nil {
		err = &DamageError{File: strings.Join(v.tiles.read, " or "), Record: -1,
			Text: "a hash was changed: it does not lead to the signed tree head; 'audit verify' finds the record"}
	}
	return out, err
}

// Consistent checks that the log still contains the tree of an earlier checkpoint,
// and returns the proof (RFC 6962 section 2.1.2). A *DamageError says that it does
// not: records were removed or replaced.
func (r *Reader) Consistent(earlier Checkpoint) ([][32]byte, error) {
	switch {
	case earlier.Origin != r.head.Origin:
		return nil, failure(sdk.Invalid, fmt.Sprintf("the checkpoint is of %s, this log is %s", earlier.Origin, r.head.Origin), nil)
	case earlier.Size > r.head.Size:
		return nil, &DamageError{File: "checkpoint", Record: r.head.Size, Text: fmt.Sprintf("is missing: an earlier checkpoint knows %d records, the log was cut off", earlier.Size)}
	case earlier.Size == 0:
		return nil, nil
	}
	p, err := tlog.ProveTree(r.head.Size, earlier.Size, r.verified())
	if err != nil {
		return nil, err
	}
	if tlog.CheckTree(p, r.head.Size, r.head.Root, earlier.Size, earlier.Root) != nil {
		return nil, &DamageError{File: "checkpoint", Record: -1, Text: fmt.Sprintf("the first %d records are not those that an earlier checkpoint signed: the log was replaced", earlier.Size)}
	}
	out := make([][32]byte, len(p))
	for i, h := range p {
		out[i] = h
	}
	return out, nil
}

// Marshal writes the proof as text.
func (p Proof) Marshal() []byte {
	b := []byte(proofHeader + "\nindex " + strconv.FormatInt(p.Index, 10) + "\n")
	for _, h := range p.Hashes {
		b = append(base64.StdEncoding.AppendEncode(b, h[:]), '\n')
	}
	return append(append(b, '\n'), p.Signed...)
}

// ParseProof reads what Marshal wrote. Extra data is not accepted: this log's
// proofs have none. The error has kind Invalid.
func ParseProof(b []byte) (Proof, error) {
	bad := func(what string) (Proof, error) {
		return Proof{}, failure(sdk.Invalid, "not a proof: "+what, nil)
	}
	if len(b) > maxProof {
		return bad("it is too long")
	}
	head, signed, ok := bytes.Cut(b, []byte("\n\n"))
	if !ok {
		return bad("there is no checkpoint in it")
	}
	lines := strings.Split(string(head), "\n")
	if len(lines) < 2 || len(lines) > 2+63 || lines[0] != proofHeader {
		return bad("expected " + proofHeader)
	}
	p := Proof{Signed: bytes.Clone(signed)}
	text, ok := strings.CutPrefix(lines[1], "index ")
	var err error
	if p.Index, err = strconv.ParseInt(text, 10, 64); !ok || err != nil || p.Index < 0 || strconv.FormatInt(p.Index, 10) != text {
		return bad("the index is no number")
	}
	for _, line := range lines[2:] {
		h, err := base64.StdEncoding.Strict().DecodeString(line)
		if err != nil || len(h) != tlog.HashSize || base64.StdEncoding.EncodeToString(h) != line {
			return bad("a hash is malformed")
		}
		p.Hashes = append(p.Hashes, [32]byte(h))
	}
	return p, nil
}

// Verify checks that the proof's checkpoint is signed by key and covers record. It
// needs nothing but the proof.
func (p Proof) Verify(record []byte, key string, witnesses ...string) (Checkpoint, error) {
	c, _, err := ParseCheckpoint(p.Signed, key, witnesses...)
	if err != nil {
		return Checkpoint{}, err
	}
	proof := make(tlog.RecordProof, len(p.Hashes))
	for i, h := range p.Hashes {
		proof[i] = h
	}
	if tlog.CheckRecord(proof, c.Size, c.Root, p.Index, tlog.RecordHash(record)) != nil {
		return Checkpoint{}, failure(sdk.Denied, "the proof does not lead from this record to the checkpoint", nil)
	}
	return c, nil
}
