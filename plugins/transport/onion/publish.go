package onion

import (
	"log/slog"
	"time"

	"github.com/cretz/bine/control"
)

// change says that there is something to tell.
func (d *daemon) change() {
	select {
	case d.changed <- struct{}{}:
	default: // it is going to look in any case
	}
}

// republish tells tor of guests that have changed, and has it make another descriptor after
// a refused one.
func (s *service) republish(d *daemon) {
	p := schedule{between: paceOwn, behind: paceRefused}
	if d.foreign {
		p = schedule{between: paceForeign, behind: paceRefusedForeign}
	}
	for {
		s.applying.Lock()
		news := s.noted() != s.told
		s.applying.Unlock()
		s.mu.Lock()
		sent, rejected := s.sent, s.rejected
		s.mu.Unlock()
		var due <-chan time.Time
		if wait, ok := p.next(time.Now(), sent, news, rejected); ok {
			due = time.After(wait)
		}
		select {
		case <-due:
		case <-d.changed:
			continue
		case <-d.done:
			return
		case <-s.ctx.Done():
			return
		}
		if err := s.tell(d); err != nil {
			s.env.Log().Warn("tor does not take the new guests, it is started or joined anew", slog.Any("error", err))
			d.kill()
			return
		}
		p.told(time.Now())
	}
}

// noted is the count of changes of which tor can be told; s.applying is held. A tor of ours
// reads files: what is not written yet it would not find.
func (s *service) noted() uint64 {
	switch {
	case !s.cfg.Authorise:
		return s.told
	case s.cfg.Control == "":
		return s.written
	}
	return s.guests.changes()
}

// tell tells tor of the guests of now.
func (s *service) tell(d *daemon) error {
	s.applying.Lock()
	defer s.applying.Unlock()
	s.mu.Lock()
	rejected := s.rejected
	s.rejected = false
	s.mu.Unlock()
	another := rejected && s.another(d)
	news := s.noted()
	if news == s.told && !another {
		return nil
	}
	var err error
	if d.foreign {
		err = s.anew(d)
	} else if _, err = d.ask("SIGNAL RELOAD"); err == nil {
		s.publication(told)
	}
	if err == nil {
		s.told = news
	}
	return err
}

// another prepares a descriptor that follows a refused one; false: there is none now. A tor
// of ours that reads the guests makes one where it finds another key than before.
func (s *service) another(d *daemon) bool {
	if !d.foreign {
		if !s.cfg.Authorise {
			return false // there is none to make: tor itself does it, in time
		}
		if err := s.guests.write(s.folder(), true); err != nil { // streams that stand are worth more
			s.env.Log().Warn("the files for another descriptor cannot be written, it is tried again later", slog.Any("error", err))
			s.mu.Lock()
			s.rejected = true
			s.mu.Unlock()
			return false
		}
	}
	s.env.Log().Info("directories have refused a descriptor, another one is made")
	return true
}

// publication is how far the service's descriptor is.
type publication int

const (
	outdated  publication = iota // tor has yet to be told of some guest
	told                         // it knows them all
	uploading                    // and sends their descriptor to directories
	uploaded                     // one has it
)

// descriptor follows what becomes of the service's descriptors. One with the guests of
// before does not make the service ready: whoever fetched it would be refused, and a
// directory is asked once in a while only.
//
// Directories answer one by one, over many seconds. With the operator's tor another
// descriptor costs a while in which nobody comes in: one that some directory has taken
// is good enough there.
func (s *service) descriptor(e *control.HSDescEvent, progress *watch) {
	s.mu.Lock()
	if e.Address != s.address && s.address != "" {
		s.mu.Unlock()
		return
	}
	ready, foreign := false, s.cfg.Control != ""
	switch {
	case e.Action == "UPLOAD":
		s.sent = time.Now()
		if s.answered { // so far by directories about the one before
			s.answered, s.taken = false, false
		}
		if s.news == told {
			s.news = uploading
		}
	case e.Action == "FAILED":
		s.answered = true
		if e.Reason != "UPLOAD_REJECTED" || s.taken && foreign {
			break
		}
		s.rejected = true
		if s.daemon != nil {
			s.daemon.change()
		}
	case e.Action == "UPLOADED":
		progress.stop()
		s.answered, s.taken = true, true
		if foreign {
			s.rejected = false
		}
		if s.news == uploading {
			s.news, ready = uploaded, true
		} else if s.patient == nil {
			s.patient = time.AfterFunc(enough, func() {
				s.mu.Lock()
				lives := s.daemon != nil
				s.mu.Unlock()
				if lives {
					s.ready()
				}
			})
		}
	}
	s.mu.Unlock()
	if ready {
		s.ready()
	}
}

// enough is how long a service that has a descriptor waits for a better one: tor makes
// none where it sees no difference.
const enough = 10 * time.Second

func (s *service) ready() {
	s.mu.Lock()
	news := s.reason != nil
	s.mu.Unlock()
	if news {
		s.setHealth(nil)
		s.env.Log().Info("onion service is published")
	}
}

func (s *service) publication(p publication) {
	s.mu.Lock()
	s.news = p
	s.mu.Unlock()
}
