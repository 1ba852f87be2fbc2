package masque

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"sync"

	"github.com/commucat/commucat/sdk"
)

// maxRevoked bounds the revocations that are kept: 8 MiB of memory at most.
const maxRevoked = 1 << 18

// revokedRecord is one revocation in the file: the first 16 bytes of SHA-256 of the
// guest's id, and the first generation that is good again (u16). Records are
// appended; of two for one guest the later counts.
const revokedRecord = 18

// revocations knows which generation of a guest's keys is good. A revocation makes
// all keys made so far worthless, and an invitation after it makes new ones.
type revocations struct {
	mu   sync.RWMutex
	file *os.File
	size int64 // of the whole records in file
	good map[[16]byte]uint16
}

// openRevocations reads the file, making it where it is not there yet. The part of
// a record that a crash left at the end is cut off: its revocation was never
// acknowledged.
func openRevocations(name string) (*revocations, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	r := &revocations{file: f, good: make(map[[16]byte]uint16)}
	if err := r.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", name, err), f.Close())
	}
	return r, nil
}

func (r *revocations) load() error {
	content, err := io.ReadAll(io.LimitReader(r.file, 64*maxRevoked*revokedRecord))
	if err != nil {
		return err
	}
	whole := len(content) - len(content)%revokedRecord
	for b := content[:whole]; len(b) > 0; b = b[revokedRecord:] {
		r.good[[16]byte(b)] = binary.BigEndian.Uint16(b[16:])
	}
	if len(r.good) > maxRevoked {
		return &sdk.Error{Kind: sdk.Full, Text: fmt.Sprintf("it holds more than %d revocations", maxRevoked)}
	}
	if err := r.file.Truncate(int64(whole)); err != nil {
		return err
	}
	r.size = int64(whole)
	return nil
}

func guestHash(guest string) [16]byte {
	sum := sha256.Sum256([]byte(guest))
	return [16]byte(sum[:16])
}

// generation is the first good generation of a guest.
func (r *revocations) generation(guest string) uint16 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.good[guestHash(guest)]
}

// revoke ends the present generation; when it returns nil, that survives a crash.
func (r *revocations) revoke(guest string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := guestHash(guest)
	next, known := r.good[h]
	switch {
	case !known && len(r.good) >= maxRevoked:
		return &sdk.Error{Kind: sdk.Full, Text: "too many revocations are kept; remove the files secret and revoked in the state folder, which makes all links of this transport useless, and give out new ones"}
	case next == math.MaxUint16:
		return &sdk.Error{Kind: sdk.Full, Text: "this guest was revoked 65,535 times"}
	}
	next++
	r.good[h] = next // in force even if the disk fails
	record := binary.BigEndian.AppendUint16(h[:], next)
	// What a full disk took of a record is written over by the next.
	if _, err := r.file.WriteAt(record, r.size); err != nil {
		return err
	}
	r.size += revokedRecord
	return r.file.Sync()
}

func (r *revocations) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.file.Close()
}
