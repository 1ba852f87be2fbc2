//go:build !race

package sandbox_test

// raceFactor is 1 under the race detector, which needs address space without end.
const raceFactor = 0

const raceDetector = false
