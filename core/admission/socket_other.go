//go:build !linux

package admission

// Unsent is known on Linux only.
func (t *Ticket) Unsent() (int, bool) { return 0, false }
