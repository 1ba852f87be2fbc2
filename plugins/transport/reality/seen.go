package reality

import (
	"cmp"
	"errors"
	"sync"
	"time"
)

// freshness is what seen says of a hello.
type freshness uint8

const (
	fresh    freshness = iota
	repeated           // it was accepted before
	full               // too many in this span: nobody new is let in
	unsure             // from before a crash that may have lost what was seen
	broken             // it could not be recorded
)

// seen remembers the session ids that were accepted for longer than their hellos are
// valid, across restarts and for all processes that share the folder. Only hellos of
// holders of the key enter it, so strangers cannot fill it.
//
// A hello made at t is valid from t-window to t+window, so an id must be remembered
// for two windows. Ids are kept in generations of that length: an entry lives
// through its own generation and the next one. It is safe for concurrent use.
type seen struct {
	window time.Duration
	limit  int // entries in a generation
	now    func() time.Time
	files  *seenFiles // nil where nothing is kept

	mu          sync.Mutex
	generations map[int64]*generation
	notBefore   time.Time
	closed      bool
}

type generation struct {
	ids map[[sessionSize]byte]struct{}
	// last is when something was added or read, for clocks that jump.
	last time.Time
	file seenFile
}

// openSeen reads what was remembered in folder; an empty folder name keeps everything
// in memory alone. doubt says why a crash may have lost entries, "" if none has: with a
// doubt, hellos made before the start are refused.
func openSeen(folder string, window time.Duration, limit int, now func() time.Time) (s *seen, doubt string, err error) {
	s = &seen{window: window, limit: limit, now: now, generations: map[int64]*generation{}}
	if folder == "" {
		return s, "", nil
	}
	if s.files, err = openSeenFiles(folder); err != nil {
		return nil, "", err
	}
	start := now()
	current := s.number(start)
	err = s.files.locked(func() error {
		numbers, err := s.files.list()
		if err != nil {
			return err
		}
		for _, n := range numbers {
			if n < current-1 {
				s.files.remove(n)
				continue
			}
			g, why, err := s.load(n, start)
			if err != nil {
				return err
			}
			s.generations[n] = g
			doubt = cmp.Or(doubt, why)
		}
		return s.files.unseal()
	})
	if err != nil {
		s.files.close()
		return nil, "", err
	}
	if doubt != "" {
		// A hello captured before the crash was made at most one window ahead.
		s.notBefore = start.Add(window)
	}
	return s, doubt, nil
}

func (s *seen) number(t time.Time) int64 { return t.Unix() / int64(2*s.window/time.Second) }

func (s *seen) load(n int64, now time.Time) (g *generation, doubt string, err error) {
	g = &generation{ids: map[[sessionSize]byte]struct{}{}, last: now}
	if s.files == nil {
		return g, "", nil
	}
	if doubt, err = s.files.open(n, &g.file); err != nil {
		return nil, "", err
	}
	return g, doubt, g.refresh(now)
}

// refresh reads what other processes have added.
func (g *generation) refresh(now time.Time) error {
	return g.file.news(func(id [sessionSize]byte) {
		g.ids[id] = struct{}{}
		g.last = now
	})
}

// add records a session id whose hello was made at made, unless it is known.
func (s *seen) add(id [sessionSize]byte, made time.Time) freshness {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return broken
	}
	if !s.notBefore.IsZero() && !made.After(s.notBefore) {
		return unsure
	}
	if s.files == nil {
		f, err := s.addLocked(id)
		if err != nil {
			return broken
		}
		return f
	}
	var f freshness
	err := s.files.locked(func() (err error) {
		f, err = s.addLocked(id)
		return err
	})
	if err != nil {
		return broken
	}
	return f
}

func (s *seen) addLocked(id [sessionSize]byte) (freshness, error) {
	now := s.now()
	current := s.number(now)
	for _, n := range []int64{current, current - 1} {
		if s.generations[n] != nil || (n != current && !s.files.has(n)) {
			continue
		}
		g, _, err := s.load(n, now)
		if err != nil {
			return broken, err
		}
		s.generations[n] = g
	}
	for n, g := range s.generations {
		// Both clocks must agree that it is over: the wall clock may have been
		// wrong, and may be put back.
		if n < current-1 && now.Sub(g.last) > 4*s.window {
			s.drop(n, g)
			continue
		}
		if s.files != nil {
			if err := g.refresh(now); err != nil {
				return broken, err
			}
		}
		if _, ok := g.ids[id]; ok {
			return repeated, nil
		}
	}
	g := s.generations[current]
	if len(g.ids) >= s.limit {
		return full, nil
	}
	if s.files != nil {
		if err := g.file.append(id); err != nil {
			return broken, err
		}
	}
	g.ids[id] = struct{}{}
	g.last = now
	return fresh, nil
}

func (s *seen) drop(n int64, g *generation) {
	delete(s.generations, n)
	if s.files != nil {
		_ = g.file.close()
		s.files.remove(n)
	}
}

// len counts what is remembered.
func (s *seen) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, g := range s.generations {
		n += len(g.ids)
	}
	return n
}

// close puts everything on the disk and says so there, so that the next start
// trusts it whatever happened to the machine meanwhile.
func (s *seen) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	if s.files == nil {
		return nil
	}
	err := s.files.locked(func() error {
		sizes := map[int64]int64{}
		for n, g := range s.generations {
			size, err := g.file.sync()
			if err != nil {
				return err
			}
			sizes[n] = size
		}
		return s.files.seal(sizes)
	})
	for _, g := range s.generations {
		err = errors.Join(err, g.file.close())
	}
	s.files.close()
	return err
}
