package tiles

import (
	"encoding/binary"
	"path"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/commucat/commucat/sdk"
)

// height is fixed by C2SP: a tile holds 2^8 hashes.
const (
	height = 8
	width  = 1 << height
)

// MaxEntry is the largest record: bundles give lengths as 16 bits.
const MaxEntry = 1<<16 - 1

// maxBundle bounds an entry bundle before it is read.
const maxBundle = width * (2 + MaxEntry)

// tilePath is the name of a hash tile. x/mod's form names the height as well,
// which C2SP leaves out.
func tilePath(t tlog.Tile) string {
	return "tile/" + strings.TrimPrefix(t.Path(), "tile/8/")
}

// bundlePath is the name of the bundle with the records n*256 and following, w of
// them.
func bundlePath(n int64, w int) string {
	p := tlog.Tile{H: height, L: 0, N: n, W: w}.Path()
	return path.Join("tile/entries", strings.TrimPrefix(p, "tile/8/0/"))
}

// appendEntry adds one record to a bundle.
func appendEntry(bundle, entry []byte) []byte {
	bundle = binary.BigEndian.AppendUint16(bundle, uint16(len(entry)))
	return append(bundle, entry...)
}

// parseBundle cuts a bundle into its records, which alias it.
func parseBundle(b []byte) ([][]byte, error) {
	var out [][]byte
	for len(b) > 0 {
		if len(b) < 2 || len(b)-2 < int(binary.BigEndian.Uint16(b)) {
			return out, corrupt("it ends inside record %d of the bundle", len(out)+1)
		}
		n := int(binary.BigEndian.Uint16(b))
		out = append(out, b[2:2+n:2+n])
		b = b[2+n:]
	}
	if len(out) > width {
		return out, corrupt("it holds %d records; at most %d fit", len(out), width)
	}
	return out, nil
}

// tileSize is the number of hashes of tile n of a level in a tree of size records.
func tileSize(level int, n, size int64) int {
	there := size >> (level * height)
	return int(max(min(there-n*width, width), 0))
}

func failure(kind sdk.ErrorKind, text string, err error) error {
	return &sdk.Error{Kind: kind, Op: "transparency log", Text: text, Err: err}
}
