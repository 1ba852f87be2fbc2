package sqlite

import (
	"fmt"
	"log/slog"
)

// pebbleLog passes on what Pebble has to say. Fatalf must not return: it unwinds
// a goroutine of ours with a panic that use turns into an error, and ends one of
// Pebble's own.
type pebbleLog struct {
	log   *slog.Logger
	guard *guard
}

func (l *pebbleLog) Infof(string, ...any) {}

func (l *pebbleLog) Errorf(format string, args ...any) {
	l.log.Warn("queues_error", "error", fmt.Sprintf(format, args...))
}

func (l *pebbleLog) Fatalf(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	l.guard.fail(err)
	l.log.Error("queues_fatal", "error", err)
	unwind(err)
}
