package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/core/audit"
	"github.com/commucat/commucat/core/config"
)

// Reload reads the certificates and the configuration again and takes over what a running
// relay can: certificates, registration, what devices are told, the log level. They hold
// when it returns, whatever a plugin does. The transports of plugin processes follow: the
// Following tells when. A broken file changes nothing, but for certificates that were
// renewed in place.
func (s *Server) Reload() (*Following, error) {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	if s.working.Err() != nil {
		return nil, errStopping
	}
	// The files are read even when their names are the same, and before anything that
	// waits for a plugin: it is asked which keys it has.
	if err := s.files.Reload(); err != nil {
		return nil, err
	}
	if s.opt.Load == nil {
		return followed(nil), nil
	}
	next, err := s.opt.Load()
	if err != nil {
		return nil, err
	}
	var keys []string
	for _, c := range config.Diff(s.current, next) {
		if !c.Live && !s.liveKey(c.Key, next) {
			s.log.Warn("a change waits for a restart", "key", c.Key)
			continue
		}
		keys = append(keys, c.Key)
	}
	// One that is the same is not touched: --verbose goes before the file.
	if s.opt.Level != nil && next.Log.Level != s.current.Log.Level {
		if err := s.opt.Level.UnmarshalText([]byte(next.Log.Level)); err != nil {
			return nil, err
		}
	}
	s.accounts.SetRegistration(account.Registration(next.Relay.Registration))
	s.ways.announce(next.Relay.Announce)
	// What waits for a restart goes on to differ, so that each reload says so.
	now := *s.current
	now.Relay.Registration, now.Relay.Announce, now.Log.Level = next.Relay.Registration, next.Relay.Announce, next.Log.Level
	now.TakeTransports(next, s.opt.BuiltIn)
	s.current = &now
	s.log.Info("configuration reloaded", "changed", keys)
	return s.follow(next, keys), nil
}

// reload is Reload for who wants to know what came of all of it.
func (s *Server) reload(ctx context.Context) error {
	f, err := s.Reload()
	if err != nil {
		return err
	}
	return f.Wait(ctx)
}

// Following is what of a reload waits for plugins.
type Following struct {
	next *config.Config
	keys []string
	done chan struct{}
	err  error // once done is closed
}

// followed is one that has come already.
func followed(err error) *Following {
	f := &Following{done: make(chan struct{}), err: err}
	close(f.done)
	return f
}

// Wait returns when the transports are as the newest configuration says, or why some are
// not, a *PartError. They follow also where ctx ends before.
func (f *Following) Wait(ctx context.Context) error {
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return &PartError{fmt.Errorf("the transports of plugins follow when the plugin that is being started or drained answers: %w", context.Cause(ctx))}
	}
}

// follow has the transports follow. While one reload waits for its turn the next one joins
// it: the newest configuration is what is wanted. s.reloading is held.
func (s *Server) follow(next *config.Config, keys []string) *Following {
	if f := s.follows; f != nil {
		f.next, f.keys = next, append(f.keys, keys...)
		return f
	}
	f := &Following{next: next, keys: keys, done: make(chan struct{})}
	s.follows = f
	s.following.Go(func() {
		defer close(f.done)
		err := s.turn(s.working)
		s.reloading.Lock()
		s.follows = nil // from here on f is this goroutine's
		s.reloading.Unlock()
		if len(f.keys) > 0 { // what holds at once and what follows
			slices.Sort(f.keys)
			s.record(audit.Configured(slices.Compact(f.keys), "reload"))
		}
		if err != nil {
			f.err = &PartError{err}
			return
		}
		defer s.pass()
		if err := s.reloadTransports(s.working, f.next); err != nil {
			s.log.Error("a transport does not work as configured", "error", err)
			f.err = &PartError{err}
		}
	})
	return f
}

// turn waits until nobody else starts, upgrades or ends plugin processes; pass ends it.
func (s *Server) turn(ctx context.Context) error {
	select {
	case s.plugging <- struct{}{}:
		if ctx.Err() == nil {
			return nil
		}
		s.pass()
	case <-ctx.Done():
	}
	return fmt.Errorf("another plugin is being started or drained: %w", context.Cause(ctx))
}

func (s *Server) pass() { <-s.plugging }

// endFollowing ends what reloads have begun, and lets no other one begin.
func (s *Server) endFollowing() {
	s.reloading.Lock()
	s.endWork(errStopping)
	s.reloading.Unlock()
	s.following.Wait()
}

var errStopping = errors.New("the relay is stopping")

// PartError: the new configuration holds, but for the transports that Err names.
type PartError struct{ Err error }

func (e *PartError) Error() string { return e.Err.Error() }

func (e *PartError) Unwrap() error { return e.Err }

// liveKey says that a key belongs to a transport that a plugin process serves, or to
// such a plugin.
func (s *Server) liveKey(key string, next *config.Config) bool {
	section, rest, _ := strings.Cut(key, ".")
	name, _, _ := strings.Cut(rest, ".")
	switch section {
	case "transport":
		return !slices.Contains(s.opt.BuiltIn, name)
	case "plugin":
		for t := range s.wanted(next) {
			if next.PluginOf(t) == name {
				return true
			}
		}
	}
	return false
}
