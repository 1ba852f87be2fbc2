package client

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	bolt "go.etcd.io/bbolt"

	"github.com/commucat/commucat/sdk/ccp"
)

const (
	// maxWindows bounds the duplicate tables of a store: when there are more, the
	// quarter that was not needed for the longest is forgotten.
	maxWindows = 16384
	// inboxBytes is how much Inbox reads at once, at least one message.
	inboxBytes = 4 << 20
)

// Restart implements Store.
func (s *FileStore) Restart(log [8]byte) error {
	return s.db.Update(func(tx *bolt.Tx) error {
		all, err := outgoing(tx)
		if err != nil {
			return err
		}
		if err := tx.DeleteBucket(bucketOutbox); err != nil {
			return err
		}
		b, err := tx.CreateBucket(bucketOutbox)
		if err != nil {
			return err
		}
		for i := range all {
			all[i].Counter = uint64(i + 1)
			if err := putJSON(b, all[i].Counter, &all[i]); err != nil {
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
	if len(o) == 0 {
		return nil
	}
	return s.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketOutbox)
		for i := range o {
			if err := putJSON(b, o[i].Counter, &o[i]); err != nil {
				return err
			}
		}
		return tx.Bucket(bucketState).Put(keyNext, u64(o[len(o)-1].Counter+1))
	})
}

// Outbox implements Store.
func (s *FileStore) Outbox() (out []Outgoing, err error) {
	err = s.db.View(func(tx *bolt.Tx) (err error) {
		out, err = outgoing(tx)
		return err
	})
	return out, err
}

func outgoing(tx *bolt.Tx) (out []Outgoing, err error) {
	err = tx.Bucket(bucketOutbox).ForEach(func(k, v []byte) error {
		var o Outgoing
		if err := json.Unmarshal(v, &o); err != nil {
			return fmt.Errorf("store: outbox %x: %w", k, err)
		}
		out = append(out, o)
		return nil
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
func (s *FileStore) Window(k WindowKey) (w *ccp.Window, err error) {
	err = s.db.View(func(tx *bolt.Tx) (err error) {
		if v := tx.Bucket(bucketWindows).Get(windowKey(k)); v != nil {
			w, _, err = parseWindow(v)
			return err
		}
		w = new(ccp.Window)
		return nil
	})
	return w, err
}

// Arrive implements Store.
func (s *FileStore) Arrive(a Arrival) error {
	windows := 0
	err := s.db.Update(func(tx *bolt.Tx) error {
		in, pos := tx.Bucket(bucketInbox), tx.Bucket(bucketPositions)
		for i := range a.Messages {
			m := &a.Messages[i]
			seq, err := in.NextSequence()
			if err != nil {
				return err
			}
			at := u64(m.Position)
			err = errors.Join(putJSON(in, seq, m), pos.Put(at, append(slices.Clone(pos.Get(at)), u64(seq)...)))
			if err != nil {
				return err
			}
		}
		var err error
		if windows, err = s.putWindows(tx.Bucket(bucketWindows), a.Windows, in.Sequence()); err != nil {
			return err
		}
		st := tx.Bucket(bucketState)
		if a.Cursor <= binary.BigEndian.Uint64(st.Get(keyCursor)) {
			return nil
		}
		return st.Put(keyCursor, u64(a.Cursor))
	})
	if err == nil {
		s.windows = windows // Arrive is called from one goroutine
	}
	return err
}

// putWindows stores duplicate tables and returns how many there are then.
func (s *FileStore) putWindows(win *bolt.Bucket, windows map[WindowKey]*ccp.Window, arrival uint64) (int, error) {
	n := s.windows
	for k, w := range windows {
		v, err := w.AppendBinary(make([]byte, 0, ccp.WindowBytes+8))
		if err != nil {
			return n, err
		}
		key := windowKey(k)
		if win.Get(key) == nil {
			n++
		}
		if err := win.Put(key, binary.BigEndian.AppendUint64(v, arrival)); err != nil {
			return n, err
		}
	}
	if n <= maxWindows {
		return n, nil
	}
	type use struct {
		key  []byte
		last uint64
	}
	var all []use
	err := win.ForEach(func(k, v []byte) error {
		_, last, err := parseWindow(v)
		all = append(all, use{slices.Clone(k), last})
		return err
	})
	if err != nil {
		return n, err
	}
	slices.SortFunc(all, func(a, b use) int { return cmp.Compare(a.last, b.last) })
	for _, u := range all[:len(all)/4] {
		if err := win.Delete(u.key); err != nil {
			return n, err
		}
	}
	return len(all) - len(all)/4, nil
}

// Inbox implements Store.
func (s *FileStore) Inbox(limit int) (out []Message, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketInbox).Cursor()
		bytes := 0
		for k, v := c.First(); k != nil && len(out) < limit; k, v = c.Next() {
			if bytes += len(v); bytes > inboxBytes && len(out) > 0 {
				break
			}
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

// Unshown implements Sizer.
func (s *FileStore) Unshown() (messages int, bytes int64, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketInbox).ForEach(func(_, v []byte) error {
			messages++
			bytes += int64(len(v))*3/4 + messageCost
			return nil
		})
	})
	return messages, bytes, err
}

// Shown implements Store.
func (s *FileStore) Shown(positions []uint64) error {
	return s.db.Update(func(tx *bolt.Tx) error {
		in, pos := tx.Bucket(bucketInbox), tx.Bucket(bucketPositions)
		for _, p := range positions {
			at := u64(p)
			seqs := slices.Clone(pos.Get(at))
			if len(seqs) < 8 {
				continue
			}
			if err := in.Delete(seqs[:8]); err != nil {
				return err
			}
			var err error
			if len(seqs) > 8 {
				err = pos.Put(at, seqs[8:])
			} else {
				err = pos.Delete(at)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}
