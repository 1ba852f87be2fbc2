//go:build !race

package plugintest

const raceOn = false
