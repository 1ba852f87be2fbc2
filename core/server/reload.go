package server

import (
	"context"
	"slices"
	"strings"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/core/audit"
	"github.com/commucat/commucat/core/config"
)

// Reload reads the configuration again and takes over what a running relay can:
// certificates, registration, what devices are told, the log level, and the transports of plugin processes.
// A broken file changes nothing; after a *PartError all the rest holds.
func (s *Server) Reload() error {
	if s.opt.Load == nil {
		return s.files.Reload()
	}
	next, err := s.opt.Load()
	if err != nil {
		return err
	}
	s.reloading.Lock()
	defer s.reloading.Unlock()
	var keys []string
	for _, c := range config.Diff(s.current, next) {
		if !c.Live && !s.liveKey(c.Key, next) {
			s.log.Warn("a change waits for a restart", "key", c.Key)
			continue
		}
		keys = append(keys, c.Key)
	}
	// The files are read even when their names are the same: a certificate may have
	// been renewed in place.
	if err := s.files.Reload(); err != nil {
		return err
	}
	s.accounts.SetRegistration(account.Registration(next.Relay.Registration))
	if s.opt.Level != nil {
		if err := s.opt.Level.UnmarshalText([]byte(next.Log.Level)); err != nil {
			return err
		}
	}
	s.ways.announce(next.Relay.Announce)
	failed := s.reloadTransports(context.Background(), next)
	// What waits for a restart goes on to differ, so that each reload says so.
	now := *s.current
	now.Relay.Registration, now.Relay.Announce, now.Log.Level = next.Relay.Registration, next.Relay.Announce, next.Log.Level
	now.TakeTransports(next, s.opt.BuiltIn)
	s.current = &now
	if len(keys) > 0 {
		s.record(audit.Configured(keys, "reload"))
	}
	s.log.Info("configuration reloaded", "changed", keys)
	if failed != nil {
		return &PartError{failed}
	}
	return nil
}

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
