//go:build !race

package amnesiawg

const raceDetector = false
