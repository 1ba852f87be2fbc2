package client

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/commucat/commucat/sdk/ccp"
)

// storeFile is the name of the message store inside a profile's folder.
const storeFile = "messages.db"

// storeVersion is the layout below; a newer one is refused.
const storeVersion = 1

// Layout: four buckets.
//
//	state    version, log, next, cursor, session (JSON)
//	outbox   counter u64 big endian -> Outgoing as JSON
//	inbox    arrival u64 big endian -> Message as JSON
//	windows  log 8 | device          -> ccp.Window (520 bytes)
//	shown    position u64            -> arrival u64
var (
	bucketState   = []byte("state")
	bucketOutbox  = []byte("outbox")
	bucketInbox   = []byte("inbox")
	bucketWindows = []byte("windows")
	bucketShown   = []byte("positions")

	keyVersion = []byte("version")
	keyLog     = []byte("log")
	keyNext    = []byte("next")
	keyCursor  = []byte("cursor")
	keySession = []byte("session")
)

// FileStore is a Store in one file, each call one fsynced transaction.
type FileStore struct{ db *bolt.DB }

// OpenStore opens or makes the store of a profile's folder. It fails with kind
// InUse when another process holds it.
func OpenStore(dir string) (*FileStore, error) {
	name := filepath.Join(dir, storeFile)
	db, err := bolt.Open(name, 0o600, &bolt.Options{Timeout: 200 * time.Millisecond, FreelistType: bolt.FreelistMapType})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, &Error{Kind: InUse, Text: "another program uses this profile: " + dir}
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil, &Error{Kind: Invalid, Text: "no such profile folder", Err: err}
	}
	if err != nil {
		return nil, &Error{Kind: Invalid, Text: name + " cannot be opened", Err: err}
	}
	s := &FileStore{db: db}
	if err := s.prepare(rand.Reader); err != nil {
		db.Close()
		return nil, err
	}
	return s, nil
}

func (s *FileStore) prepare(random io.Reader) error {
	return s.db.Update(func(tx *bolt.Tx) error {
		for _, b := range [][]byte{bucketState, bucketOutbox, bucketInbox, bucketWindows, bucketShown} {
			if _, err := tx.CreateBucketIfNotExists(b); err != nil {
				return err
			}
		}
		st := tx.Bucket(bucketState)
		if v := st.Get(keyVersion); v != nil {
			if got := binary.BigEndian.Uint64(v); got > storeVersion {
				return invalid("%s was made by a newer version (layout %d, this one knows %d)", s.db.Path(), got, storeVersion)
			}
			return nil
		}
		var log [8]byte
		if _, err := io.ReadFull(random, log[:]); err != nil {
			return err
		}
		return errors.Join(st.Put(keyVersion, u64(storeVersion)), st.Put(keyLog, log[:]), st.Put(keyNext, u64(1)), st.Put(keyCursor, u64(0)))
	})
}

func u64(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }

// State implements Store.
func (s *FileStore) State() (st State, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketState)
		copy(st.Log[:], b.Get(keyLog))
		st.Next = binary.BigEndian.Uint64(b.Get(keyNext))
		st.Cursor = binary.BigEndian.Uint64(b.Get(keyCursor))
		if v := b.Get(keySession); v != nil {
			var ses resumption
			if err := json.Unmarshal(v, &ses); err != nil {
				return fmt.Errorf("store: session: %w", err)
			}
			st.Resume, st.ResumeUntil, st.ResumeKey = ses.Token, ses.Until, ses.Key
		}
		return nil
	})
	return st, err
}

type resumption struct {
	Token []byte    `json:"token"`
	Until time.Time `json:"until"`
	Key   Hex32     `json:"key"`
}

// SaveSession implements Store.
func (s *FileStore) SaveSession(st State) error {
	v, err := json.Marshal(resumption{st.Resume, st.ResumeUntil, st.ResumeKey})
	if err != nil {
		return err
	}
	return s.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(bucketState).Put(keySession, v) })
}

// Restart implements Store.
func (s *FileStore) Restart(log [8]byte) error {
	all, err := s.Outbox()
	if err != nil {
		return err
	}
	return s.db.Update(func(tx *bolt.Tx) error {
		if err := tx.DeleteBucket(bucketOutbox); err != nil {
			return err
		}
		b, err := tx.CreateBucket(bucketOutbox)
		if err != nil {
			return err
		}
		for i := range all {
			all[i].Counter = uint64(i + 1)
			if err := putJSON(b, all[i].Counter, all[i]); err != nil {
				return err
			}
		}
		st := tx.Bucket(bucketState)
		return errors.Join(st.Put(keyLog, log[:]), st.Put(keyNext, u64(uint64(len(all)+1))))
	})
}

func putJSON(b *bolt.Bucket, key uint64, v any) error {
	j, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return b.Put(u64(key), j)
}

// PutOutbox implements Store.
func (s *FileStore) PutOutbox(o []Outgoing) error {
	return s.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketOutbox)
		for _, m := range o {
			if err := putJSON(b, m.Counter, m); err != nil {
				return err
			}
		}
		return tx.Bucket(bucketState).Put(keyNext, u64(o[len(o)-1].Counter+1))
	})
}

// Outbox implements Store.
func (s *FileStore) Outbox() (out []Outgoing, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketOutbox).ForEach(func(k, v []byte) error {
			var o Outgoing
			if err := json.Unmarshal(v, &o); err != nil {
				return fmt.Errorf("store: outbox %x: %w", k, err)
			}
			out = append(out, o)
			return nil
		})
	})
	return out, err
}

// DeleteOutbox implements Store. A crash may bring acknowledged messages back:
// the relay knows their ids and adds nothing.
func (s *FileStore) DeleteOutbox(counters []uint64) error {
	return s.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketOutbox)
		for _, c := range counters {
			if err := b.Delete(u64(c)); err != nil {
				return err
			}
		}
		return nil
	})
}

func windowKey(k WindowKey) []byte { return append(append([]byte(nil), k.Log[:]...), k.Device...) }

// Window implements Store.
func (s *FileStore) Window(k WindowKey) (*ccp.Window, error) {
	w := new(ccp.Window)
	err := s.db.View(func(tx *bolt.Tx) error {
		if v := tx.Bucket(bucketWindows).Get(windowKey(k)); v != nil {
			return w.UnmarshalBinary(v)
		}
		return nil
	})
	return w, err
}

// Arrive implements Store.
func (s *FileStore) Arrive(a Arrival) error {
	return s.db.Update(func(tx *bolt.Tx) error {
		in, pos, win := tx.Bucket(bucketInbox), tx.Bucket(bucketShown), tx.Bucket(bucketWindows)
		for _, m := range a.Messages {
			seq, err := in.NextSequence()
			if err != nil {
				return err
			}
			if err := errors.Join(putJSON(in, seq, m), pos.Put(u64(m.Position), u64(seq))); err != nil {
				return err
			}
		}
		for k, w := range a.Windows {
			v, err := w.MarshalBinary()
			if err != nil {
				return err
			}
			if err := win.Put(windowKey(k), v); err != nil {
				return err
			}
		}
		st := tx.Bucket(bucketState)
		if a.Cursor <= binary.BigEndian.Uint64(st.Get(keyCursor)) {
			return nil
		}
		return st.Put(keyCursor, u64(a.Cursor))
	})
}

// Inbox implements Store.
func (s *FileStore) Inbox(limit int) (out []Message, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketInbox).Cursor()
		for k, v := c.First(); k != nil && len(out) < limit; k, v = c.Next() {
			var m Message
			if err := json.Unmarshal(v, &m); err != nil {
				return fmt.Errorf("store: inbox %x: %w", k, err)
			}
			out = append(out, m)
		}
		return nil
	})
	return out, err
}

// Shown implements Store.
func (s *FileStore) Shown(positions []uint64) error {
	return s.db.Update(func(tx *bolt.Tx) error {
		in, pos := tx.Bucket(bucketInbox), tx.Bucket(bucketShown)
		for _, p := range positions {
			seq := pos.Get(u64(p))
			if seq == nil {
				continue
			}
			if err := errors.Join(in.Delete(seq), pos.Delete(u64(p))); err != nil {
				return err
			}
		}
		return nil
	})
}

// Close implements Store.
func (s *FileStore) Close() error { return s.db.Close() }
