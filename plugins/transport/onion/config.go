package onion

import (
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/commucat/commucat/sdk"
)

// Config is the configuration of both halves.
type Config struct {
	Program string     `cfg:"program" doc:"path of tor; when empty, tor is looked up"`
	Torrc   []string   `cfg:"torrc" max:"64" doc:"further lines for tor's own configuration, for example \"UseBridges 1\""`
	Control string     `cfg:"control" doc:"control socket of a tor that runs already (unix:/run/tor/control or 127.0.0.1:9051), to be used instead of an own one; then streams have no circuit"`
	Pass    sdk.Secret `cfg:"control_password" doc:"password of that socket, where it wants one"`
	Stall   duration   `cfg:"stall" default:"3m" min:"5s" max:"1h" doc:"a tor whose start makes no progress for so long is started again, with twice the time"`

	// Server half.
	Port      int      `cfg:"port" default:"80" min:"1" max:"65535" doc:"port of the onion address"`
	Authorise bool     `cfg:"authorise" default:"true" doc:"only guests with a link or a device of this relay can find the service; false lets everybody who has the address"`
	Guests    int      `cfg:"guests" default:"200" min:"1" max:"300" doc:"guests with authorisation at once; a descriptor holds no more than some 300"`
	Defence   string   `cfg:"proof_of_work" default:"auto" enum:"auto,on,off" doc:"clients pay with work when the service is flooded; auto is on where tor can"`
	Streams   int      `cfg:"circuit_streams" default:"16" min:"1" max:"65535" doc:"streams of one circuit at once; one more ends the circuit"`
	SingleHop bool     `cfg:"single_hop" doc:"shorter way that hides clients but NOT the relay: anybody can find out where it is"`
	Header    duration `cfg:"header" default:"30s" min:"1s" max:"5m" doc:"how long a guest may take to show its token"`

	// Client half.
	Limit duration `cfg:"dial_limit" default:"60s" min:"5s" max:"10m" doc:"client: how long a dial may take"`
}

type duration = time.Duration

// Check implements sdk.Checker.
func (c *Config) Check() error {
	var errs sdk.ConfigErrors
	if c.Control != "" && !strings.HasPrefix(c.Control, "unix:/") {
		if _, _, err := net.SplitHostPort(c.Control); err != nil {
			errs = append(errs, &sdk.ConfigError{Key: "control", Text: "must be unix:/path or address:port"})
		}
	}
	if c.Control != "" && len(c.Torrc) > 0 {
		errs = append(errs, &sdk.ConfigError{Key: "torrc", Text: "is for an own tor; the one of control has its own configuration"})
	}
	for i, line := range c.Torrc {
		word, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case strings.ContainsAny(line, "\r\n\x00") || word == "":
			errs = append(errs, &sdk.ConfigError{Key: fmt.Sprintf("torrc[%d]", i), Text: "must be one line of the form \"Option value\""})
		case strings.HasSuffix(line, `\`):
			errs = append(errs, &sdk.ConfigError{Key: fmt.Sprintf("torrc[%d]", i), Text: "must not go on in the next line, which is the plugin's"})
		case ours(word):
			errs = append(errs, &sdk.ConfigError{Key: fmt.Sprintf("torrc[%d]", i), Text: word + " is set by the plugin"})
		}
	}
	if len(errs) > 0 {
		return errs
	}
	return nil
}

// ours says that an option of tor's is the plugin's.
func ours(option string) bool {
	o := strings.ToLower(strings.TrimLeft(option, "+/"))
	for _, p := range []string{"hiddenservice", "control", "cookieauth", "hashedcontrol", "socks", "datadirectory", "__owning", "runasdaemon", "user", "orport", "%include"} {
		if strings.HasPrefix(o, p) {
			return true
		}
	}
	return false
}
