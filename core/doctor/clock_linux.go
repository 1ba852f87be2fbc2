package doctor

import "golang.org/x/sys/unix"

// Of adjtimex(2).
const (
	timeError      = 5
	unsynchronised = 0x40
)

// synchronised asks the kernel whether a time service keeps the clock.
func synchronised() (bool, error) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return false, err
	}
	return state != timeError && t.Status&unsynchronised == 0, nil
}
