package client

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/commucat/commucat/sdk/ccp"
)

// storeFile is the name of the message store inside a profile's folder.
const storeFile = "messages.db"

// storeVersion is the layout below; a newer one is refused.
const storeVersion = 1

// Layout: five buckets.
//
//	state      version, log, next, cursor: 8 bytes each; session: JSON
//	outbox     counter u64 big endian -> Outgoing as JSON
//	inbox      arrival u64 big endian -> Message as JSON
//	windows    log 8 | device          -> ccp.Window (520 bytes) | last arrival u64
//	positions  position u64            -> arrival u64, one or more, oldest first
var (
	bucketState     = []byte("state")
	bucketOutbox    = []byte("outbox")
	bucketInbox     = []byte("inbox")
	bucketWindows   = []byte("windows")
	bucketPositions = []byte("positions")

	keyVersion = []byte("version")
	keyLog     = []byte("log")
	keyNext    = []byte("next")
	keyCursor  = []byte("cursor")
	keySession = []byte("session")
)

// FileStore is a Store in one file of mode 0600, each call that writes one
// fsynced transaction. A file that another process holds cannot be opened.
type FileStore struct {
	db      *bolt.DB
	windows int // how many there are; Arrive's
}

// OpenStore opens or makes the store of a profile's folder. It fails with kind
// InUse when another process holds it, and with kind Invalid when the folder is
// missing, the file is readable by others, damaged or made by a newer version.
func OpenStore(dir string) (*FileStore, error) {
	name := filepath.Join(dir, storeFile)
	st, err := os.Stat(name)
	fresh := errors.Is(err, fs.ErrNotExist)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Stat(dir); err != nil {
			return nil, &Error{Kind: Invalid, Text: "no such profile folder; make one with 'commucat client register'", Err: err}
		}
	case err != nil:
		return nil, &Error{Kind: Invalid, Text: name + " cannot be opened", Err: err}
	case !st.Mode().IsRegular():
		return nil, invalid("%s is not a regular file", name)
	case runtime.GOOS != "windows" && st.Mode().Perm()&0o077 != 0:
		return nil, invalid("%s is readable by others: it holds messages and a secret token; run 'chmod 600 %s'", name, name)
	}
	s := new(FileStore)
	err = guard(func() (err error) {
		s.db, err = bolt.Open(name, 0o600, &bolt.Options{Timeout: 200 * time.Millisecond, FreelistType: bolt.FreelistMapType})
		if err != nil {
			return err
		}
		if fresh { // the library syncs the file, not its name
			if err := syncFolder(dir); err != nil {
				return err
			}
		}
		return errors.Join(s.prepare(rand.Reader), s.check())
	})
	if err == nil {
		return s, nil
	}
	if s.db != nil {
		_ = guard(s.db.Close)
	}
	var (
		e      *Error
		system syscall.Errno
	)
	switch {
	case errors.As(err, &e):
		return nil, e
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, &Error{Kind: InUse, Text: "another program uses this profile; end it first: " + dir}
	case errors.Is(err, fs.ErrPermission):
		return nil, &Error{Kind: Invalid, Text: name + " cannot be opened", Err: err}
	case errors.As(err, &system): // full, read-only, failing: the file itself may be sound
		return nil, &Error{Kind: Invalid, Text: name + " cannot be used; check the disk", Err: err}
	}
	return nil, &Error{
		Kind: Invalid, Err: err,
		Text: name + " is damaged: move it away and start again; messages that were not yet sent or shown are lost with it, the others are not",
	}
}

// guard turns the panics that a damaged or cut file causes in the store's
// library, also as faults of mapped memory, into an error.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			if _, program := r.(runtime.Error); program {
				r = "its pages contradict each other"
			}
			err = fmt.Errorf("store: %v", r)
		}
	}()
	return f()
}

func (s *FileStore) prepare(random io.Reader) error {
	return s.db.Update(func(tx *bolt.Tx) error {
		if b := tx.Bucket(bucketState); b != nil {
			v := b.Get(keyVersion)
			if len(v) != 8 {
				return errors.New("store: version is missing")
			}
			if got := binary.BigEndian.Uint64(v); got > storeVersion {
				return invalid("%s was made by a newer version (layout %d, this one knows %d); use that one", s.db.Path(), got, storeVersion)
			}
			return nil
		}
		for _, b := range [][]byte{bucketState, bucketOutbox, bucketInbox, bucketWindows, bucketPositions} {
			if _, err := tx.CreateBucketIfNotExists(b); err != nil {
				return err
			}
		}
		var log [8]byte
		if _, err := io.ReadFull(random, log[:]); err != nil {
			return err
		}
		st := tx.Bucket(bucketState)
		return errors.Join(st.Put(keyVersion, u64(storeVersion)), st.Put(keyLog, log[:]), st.Put(keyNext, u64(1)), st.Put(keyCursor, u64(0)))
	})
}

// check walks through everything, so that damage shows at once and not in the
// middle of a session.
func (s *FileStore) check() error {
	return s.db.View(func(tx *bolt.Tx) error {
		st := tx.Bucket(bucketState)
		for _, k := range [][]byte{keyLog, keyNext, keyCursor} {
			if len(st.Get(k)) != 8 {
				return fmt.Errorf("store: %s is missing", k)
			}
		}
		if binary.BigEndian.Uint64(st.Get(keyNext)) == 0 {
			return errors.New("store: next is zero")
		}
		for _, name := range [][]byte{bucketOutbox, bucketInbox, bucketWindows, bucketPositions} {
			b := tx.Bucket(name)
			if b == nil {
				return fmt.Errorf("store: %s is missing", name)
			}
			err := b.ForEach(func(k, v []byte) error {
				switch {
				case bytes.Equal(name, bucketInbox), bytes.Equal(name, bucketOutbox):

					if len(k) != 8 || !json.Valid(v) {
						return fmt.Errorf("store: %s: entry %x", name, k)
					}
				case bytes.Equal(name, bucketWindows):
					s.windows++
					if _, _, err := parseWindow(v); err != nil || len(k) < 8 {
						return fmt.Errorf("store: %s: entry %x", name, k)
					}
				case len(k) != 8 || len(v) == 0 || len(v)%8 != 0:
					return fmt.Errorf("store: %s: entry %x", name, k)
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func u64(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }

func parseWindow(v []byte) (w *ccp.Window, used uint64, err error) {
	if len(v) != ccp.WindowBytes+8 {
		return nil, 0, errors.New("store: window has a wrong length")
	}
	w = new(ccp.Window)
	return w, binary.BigEndian.Uint64(v[ccp.WindowBytes:]), w.UnmarshalBinary(v[:ccp.WindowBytes])
}

// State implements Store.
func (s *FileStore) State() (st State, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketState)
		copy(st.Log[:], b.Get(keyLog))
		st.Next = binary.BigEndian.Uint64(b.Get(keyNext))
		st.Cursor = binary.BigEndian.Uint64(b.Get(keyCursor))
		if v := b.Get(keySession); v != nil {
			var ses resumption
			if json.Unmarshal(v, &ses) == nil { // a lost token costs one round trip
				st.Resume, st.ResumeUntil, st.ResumeKey, st.Confirmed = ses.Token, ses.Until, ses.Key, ses.Confirmed
			}
		}
		return nil
	})
	return st, err
}

type resumption struct {
	Token     []byte    `json:"token"`
	Until     time.Time `json:"until"`
	Key       Hex32     `json:"key"`
	Confirmed time.Time `json:"confirmed"`
}

// SaveSession implements Store.
func (s *FileStore) SaveSession(st State) error {
	v, err := json.Marshal(resumption{st.Resume, st.ResumeUntil, st.ResumeKey, st.Confirmed})
	if err != nil {
		return err
	}
	return s.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(bucketState).Put(keySession, v) })
}

// Close implements Store.
func (s *FileStore) Close() error { return s.db.Close() }
