//go:build race

package pluginhost

// memoryLimit is none: the race detector needs address space without end.
const memoryLimit = 0

const raceDetector = true
