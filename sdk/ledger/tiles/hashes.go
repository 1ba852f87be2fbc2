package tiles

import (
	"errors"
	"io"
	"io/fs"

	"golang.org/x/mod/sumdb/tlog"
)

// hashes keeps the tiles at a tree's right edge, level by level, and answers
// whatever appending, tree heads and proofs ask.
type hashes struct {
	size int64
	// tiles hold what has been read or appended, by level and number.
	tiles map[tileID][]byte
	// load reads a tile that is not held.
	load func(tlog.Tile) ([]byte, error)
}

type tileID struct {
	level int
	n     int64
}

var _ tlog.HashReader = (*hashes)(nil)

// ReadHashes implements tlog.HashReader.
func (h *hashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		t := tlog.TileForIndex(height, index)
		data, err := h.tile(t.L, t.N)
		if err != nil {
			return nil, err
		}
		t.W = len(data) / tlog.HashSize
		if t.W == 0 {
			return nil, errors.New("no such hash")
		}
		if out[i], err = tlog.HashFromTile(t, data, index); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (h *hashes) tile(level int, n int64) ([]byte, error) {
	id := tileID{level, n}
	if data, ok := h.tiles[id]; ok {
		return data, nil
	}
	w := tileSize(level, n, h.size)
	if w == 0 {
		return nil, nil
	}
	data, err := h.load(tlog.Tile{H: height, L: level, N: n, W: w})
	if err != nil {
		return nil, err
	}
	h.tiles[id] = data
	return data, nil
}

// add appends one record's hash and those that it completes.
func (h *hashes) add(record tlog.Hash) error {
	done, err := tlog.StoredHashesForRecordHash(h.size, record, h)
	if err != nil {
		return err
	}
	// The tiles touched must be held before the size grows: they are on disk with
	// their present width.
	for level := range done {
		if level%height == 0 {
			if _, err := h.tile(level/height, h.size>>level/width); err != nil {
				return err
			}
		}
	}
	for level, hash := range done {
		if level%height == 0 {
			id := tileID{level / height, h.size >> level / width}
			h.tiles[id] = append(h.tiles[id], hash[:]...)
		}
	}
	h.size++
	return nil
}

// prune forgets everything but the right edge.
func (h *hashes) prune() {
	for id := range h.tiles {
		if last := h.size >> (id.level * height) / width; id.n < last {
			delete(h.tiles, id)
		}
	}
}

// loader reads hash tiles of a log from a folder.
func loader(dir fs.FS) func(tlog.Tile) ([]byte, error) {
	return func(t tlog.Tile) ([]byte, error) {
		data, err := readPartial(dir, tilePath(t), tilePath(tlog.Tile{H: height, L: t.L, N: t.N, W: width}), width*tlog.HashSize)
		if err != nil {
			return nil, err
		}
		if len(data) < t.W*tlog.HashSize {
			return nil, &DamageError{File: tilePath(t), Record: -1, Text: "it is too short"}
		}
		return data[: t.W*tlog.HashSize : t.W*tlog.HashSize], nil
	}
}

// readPartial reads a partial tile, or the full one that has replaced it.
func readPartial(dir fs.FS, name, full string, limit int) ([]byte, error) {
	data, err := readBounded(dir, name, limit)
	if errors.Is(err, fs.ErrNotExist) && full != name {
		if data, errFull := readBounded(dir, full, limit); !errors.Is(errFull, fs.ErrNotExist) {
			return data, errFull
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &DamageError{File: name, Record: -1, Text: "it is missing"}
	}
	return data, err
}

func readBounded(dir fs.FS, name string, limit int) ([]byte, error) {
	f, err := dir.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err == nil && len(b) > limit {
		err = &DamageError{File: name, Record: -1, Text: "it is longer than it can be"}
	}
	return b, err
}
