package onion

import (
	"log/slog"
	"time"

	"github.com/cretz/bine/control"

	"github.com/commucat/commucat/plugins/transport/internal/agent"
)

// A descriptor has a revision, which counts seconds: of two that are sent in the same
// second directories refuse the later one, and tor leaves it at that for an hour or two.
// So what changes a descriptor is kept apart from the one before, and a refused one is
// followed by another.
//
// The operator's tor needs a new service for each change: until its descriptor is with the
// directories nobody comes in. So many changes in a row are few there.
var (
	paceOwn     = agent.Pauses{Least: 1500 * time.Millisecond, Most: 6 * time.Second, Well: 20 * time.Second}
	paceForeign = agent.Pauses{Least: 2 * time.Second, Most: 30 * time.Second, Well: time.Minute}
	paceRefused = agent.Pauses{Least: 2 * time.Second, Most: 10 * time.Minute, Well: 30 * time.Minute}
)

// change says that there is something to tell.
func (d *daemon) change() {
	select {
	case d.changed <- struct{}{}:
	default: // it is going to look in any case
	}
}

// republish tells tor of guests that have changed.
func (s *service) republish(d *daemon) {
	between := paceOwn
	if d.foreign {
		between = paceForeign
	}
	var pause, again time.Duration
	var last, refused time.Time
	for {
		select {
		case <-d.changed:
		case <-d.done:
			return
		case <-s.ctx.Done():
			return
		}
		s.mu.Lock()
		if s.sent.After(last) {
			last = s.sent
		}
		rejected := s.rejected
		s.mu.Unlock()
		pause = between.Next(pause, time.Since(last))
		wait := time.Until(last.Add(pause))
		if rejected {
			again, refused = paceRefused.Next(again, time.Since(refused)), time.Now()
			wait = max(wait, again)
		}
		select {
		case <-time.After(wait):
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
		last = time.Now()
	}
}

// tell tells tor of the guests of now.
func (s *service) tell(d *daemon) error {
	s.applying.Lock()
	defer s.applying.Unlock()
	s.mu.Lock()
	rejected := s.rejected
	s.rejected = false
	s.mu.Unlock()
	news := s.guests.changes()
	if news == s.told && !rejected {
		return nil
	}
	var err error
	if d.foreign {
		err = s.anew(d)
	} else {
		err = s.reload(d, rejected)
	}
	if err == nil {
		s.told = news
	}
	return err
}

// reload makes tor of ours read the guests. It makes a new descriptor where it finds
// another key than before, so there is one where that is wanted.
func (s *service) reload(d *daemon, rejected bool) error {
	if rejected {
		s.env.Log().Info("directories have refused a descriptor, another one is made")
		if !s.cfg.Authorise {
			return nil // there is none to make: tor itself does it, in time
		}
		if err := s.guests.write(s.folder(), true); err != nil {
			return err
		}
	}
	if _, err := d.ask("SIGNAL RELOAD"); err != nil {
		return err
	}
	s.publication(told)
	return nil
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
func (s *service) descriptor(e *control.HSDescEvent, progress *watch) {
	s.mu.Lock()
	if e.Address != s.address && s.address != "" {
		s.mu.Unlock()
		return
	}
	ready := false
	switch {
	case e.Action == "UPLOAD":
		s.sent = time.Now()
		if s.news == told {
			s.news = uploading
		}
	case e.Action == "FAILED" && e.Reason == "UPLOAD_REJECTED":
		s.rejected = true
		if s.daemon != nil {
			s.daemon.change()
		}
	case e.Action == "UPLOADED":
		progress.stop()
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
