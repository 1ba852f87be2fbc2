// Package crew runs short work that needs a large stack on goroutines that keep theirs.
// A new goroutine's stack has to grow to that size, in copies, each time.
package crew
