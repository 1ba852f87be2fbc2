package interop

import (
	"context"
	"crypto/rand"
	"fmt"
	"testing"

	"github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api"
	"github.com/transparency-dev/tessera/client"
	"github.com/transparency-dev/tessera/fsck"
	"golang.org/x/mod/sumdb/note"

	"github.com/commucat/commucat/sdk/ledger/tiles"
)

const origin = "relay.example/audit"

func record(i int) []byte { return fmt.Appendf(nil, "record %d", i) }

// Tessera's own checker and proofs accept the log at every kind of size.
func TestTesseraReadsTheLog(t *testing.T) {
	private, public, err := note.GenerateKey(rand.Reader, origin)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := note.NewVerifier(public)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	l, err := tiles.Open(tiles.Options{Dir: dir, Signer: signer, Key: public})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	files := client.FileFetcher{Root: dir}
	var earlier *log.Checkpoint
	for _, size := range []int{1, 5, 255, 256, 257, 511, 512, 1000, 65_536, 65_537, 70_001} {
		var batch [][]byte
		for i := int(l.Head().Size); i < size; i++ {
			batch = append(batch, record(i))
		}
		if err := l.Append(batch); err != nil {
			t.Fatal(err)
		}
		if err := fsck.New(origin, verifier, files, bundle, fsck.Opts{N: 1}).Check(t.Context()); err != nil {
			t.Fatalf("%d: %v", size, err)
		}
		head, _, _, err := client.FetchCheckpoint(t.Context(), files.ReadCheckpoint, verifier, origin)
		if err != nil || head.Size != uint64(size) {
			t.Fatalf("%d: %+v %v", size, head, err)
		}
		check(t, files, head, earlier)
		earlier = head
	}
}

// bundle gives the leaf hashes of an entry bundle.
func bundle(b []byte) ([][]byte, error) {
	e := new(api.EntryBundle)
	if err := e.UnmarshalText(b); err != nil {
		return nil, err
	}
	var out [][]byte
	for _, r := range e.Entries {
		out = append(out, rfc6962.DefaultHasher.HashLeaf(r))
	}
	return out, nil
}

func check(t *testing.T, files client.FileFetcher, head, earlier *log.Checkpoint) {
	t.Helper()
	ctx := context.Background()
	pb, err := client.NewProofBuilder(ctx, head.Size, files.ReadTile)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []uint64{0, head.Size / 2, head.Size - 1} {
		p, err := pb.InclusionProof(ctx, i)
		if err != nil {
			t.Fatal(err)
		}
		if err := proof.VerifyInclusion(rfc6962.DefaultHasher, i, head.Size, rfc6962.DefaultHasher.HashLeaf(record(int(i))), p, head.Hash); err != nil {
			t.Errorf("record %d of %d: %v", i, head.Size, err)
		}
	}
	if earlier == nil {
		return
	}
	p, err := pb.ConsistencyProof(ctx, earlier.Size, head.Size)
	if err != nil {
		t.Fatal(err)
	}
	if err := proof.VerifyConsistency(rfc6962.DefaultHasher, earlier.Size, head.Size, p, earlier.Hash, head.Hash); err != nil {
		t.Errorf("%d to %d: %v", earlier.Size, head.Size, err)
	}
}
