//go:build !race

package plugintest

const (
	raceOn       = false
	fewerClients = 1
	modelChecks  = "" // as the flag -rapid.checks says
)
