//go:build race

package plugintest

// With the race detector everything takes several times longer: there are fewer
// clients at once and fewer random histories.
const (
	raceOn       = true
	fewerClients = 5
	modelChecks  = "20"
)
