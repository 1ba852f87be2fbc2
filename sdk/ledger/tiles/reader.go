package tiles

import (
	"bytes"
	"context"
	"errors"
	"io/fs"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/commucat/commucat/sdk"
)

// Reader is the reading side of a log. It needs no lock: what the writer adds
// meanwhile does not change what the checkpoint covers.
type Reader struct {
	dir    fs.FS
	head   Checkpoint
	signed []byte
	by     []string
}

// OpenReader reads the checkpoint of the log in dir and verifies its signature by
// key, and those of witnesses.
func OpenReader(dir fs.FS, key string, witnesses ...string) (*Reader, error) {
	signed, err := readBounded(dir, "checkpoint", maxCheckpoint)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = failure(sdk.NotFound, "there is no checkpoint: the folder holds no log", nil)
		}
		return nil, err
	}
	head, by, err := ParseCheckpoint(signed, key, witnesses...)
	if err != nil {
		return nil, err
	}
	return &Reader{dir: dir, head: head, signed: signed, by: by}, nil
}

// Head is the tree head that the checkpoint signs.
func (r *Reader) Head() Checkpoint { return r.head }

// Signed is the checkpoint as it lies in the folder.
func (r *Reader) Signed() []byte { return r.signed }

// Witnesses are the names of those whose cosignatures the checkpoint carries.
func (r *Reader) Witnesses() []string { return r.by }

// Read returns at most limit records from number after (counted from 0) on.
func (r *Reader) Read(after int64, limit int) ([][]byte, error) {
	return readRecords(r.dir, r.head.Size, after, limit)
}

// Verify reads the whole log and compares every record with its hash, every hash
// with the one above it, and the root with the checkpoint. progress is told the
// number of records seen and may be nil. The error is a *DamageError that names
// the first file and record that cannot be believed.
func (r *Reader) Verify(ctx context.Context, progress func(records int64)) error {
	if r.head.Size == 0 {
		return nil
	}
	truth := hashes{tiles: map[tileID][]byte{}}
	for n := int64(0); n*width < r.head.Size; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		w := tileSize(0, n, r.head.Size)
		entries, damage := readBundle(r.dir, n, w)
		name := tlog.Tile{H: height, L: 0, N: n, W: w}
		stored, err := loader(r.dir)(name)
		if err != nil {
			return errors.Join(damage, err)
		}
		for i, e := range entries {
			hash := tlog.RecordHash(e)
			if !bytes.Equal(hash[:], stored[i*tlog.HashSize:(i+1)*tlog.HashSize]) {
				return r.blame(name, i)
			}
			if err := truth.add(hash); err != nil {
				return err
			}
		}
		if damage != nil {
			return damage
		}
		truth.prune()
		if progress != nil {
			progress(truth.size)
		}
	}
	return r.verifyHashes(&truth)
}

// blame decides whether a record or the tile with its hash was changed: the tile is
// believed where the signed head vouches for it.
func (r *Reader) blame(t tlog.Tile, i int) error {
	record := t.N*width + int64(i)
	if _, err := r.verified().ReadHashes([]int64{tlog.StoredHashIndex(0, record)}); err == nil {
		return &DamageError{File: bundlePath(t.N, t.W), Record: record, Text: "was changed or removed"}
	}
	return &DamageError{File: tilePath(t), Record: record, Text: "has another hash there: the tile was changed"}
}

// tileReader gives tiles to tlog's own check.
type tileReader struct {
	h *hashes
	// read are the files of the last tiles, err is why one could not be read.
	read []string
	err  error
}

func (t *tileReader) Height() int                     { return height }
func (t *tileReader) SaveTiles([]tlog.Tile, [][]byte) {}
func (t *tileReader) ReadTiles(ts []tlog.Tile) ([][]byte, error) {
	out := make([][]byte, len(ts))
	t.read, t.err = nil, nil
	for i, tile := range ts {
		data, err := t.h.load(tile)
		if err != nil {
			t.err = err
			return nil, err
		}
		t.read = append(t.read, tilePath(tile))
		out[i] = data
	}
	return out, nil
}

// verifyHashes compares the upper tiles and the root with what the records say.
func (r *Reader) verifyHashes(truth *hashes) error {
	stored := &hashes{size: r.head.Size, tiles: map[tileID][]byte{}, load: loader(r.dir)}
	for level := 1; r.head.Size>>(level*height) > 0; level++ {
		for n := int64(0); tileSize(level, n, r.head.Size) > 0; n++ {
			t := tlog.Tile{H: height, L: level, N: n, W: tileSize(level, n, r.head.Size)}
			have, err := stored.tile(level, n)
			if err != nil {
				return err
			}
			for i := range t.W {
				want, err := rootOf(stored, level, n*width+int64(i))
				if err != nil {
					return err
				}
				if !bytes.Equal(want[:], have[i*tlog.HashSize:(i+1)*tlog.HashSize]) {
					return &DamageError{File: tilePath(t), Record: -1, Text: "a hash is not that of the tile below it: the tile was changed"}
				}
			}
		}
	}
	root, err := tlog.TreeHash(r.head.Size, truth)
	if err != nil {
		return err
	}
	if root != tlog.Hash(r.head.Root) {
		return &DamageError{File: "checkpoint", Record: -1, Text: "records and hashes agree, but not with the signed tree head: the log was written anew"}
	}
	return nil
}

// rootOf computes the hash of the full tile n of the level below.
func rootOf(h *hashes, level int, n int64) (tlog.Hash, error) {
	data, err := h.tile(level-1, n)
	if err != nil {
		return tlog.Hash{}, err
	}
	if len(data) != width*tlog.HashSize {
		return tlog.Hash{}, corrupt("a tile below level %d is not full", level)
	}
	row := make([]tlog.Hash, width)
	for i := range row {
		row[i] = tlog.Hash(data[i*tlog.HashSize:])
	}
	for ; len(row) > 1; row = row[:len(row)/2] {
		for i := range len(row) / 2 {
			row[i] = tlog.NodeHash(row[2*i], row[2*i+1])
		}
	}
	return row[0], nil
}
