//go:build race

package reality

const raceDetector = true
