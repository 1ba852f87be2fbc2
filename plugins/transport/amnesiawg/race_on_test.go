//go:build race

package amnesiawg

// raceDetector: memory and times then mean nothing.
const raceDetector = true
