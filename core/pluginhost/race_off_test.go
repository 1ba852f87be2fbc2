//go:build !race

package pluginhost

const memoryLimit = 1 << 30

const raceDetector = false
