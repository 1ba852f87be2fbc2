package wire

import (
	"fmt"
	"slices"
	"strings"

	"github.com/commucat/commucat/sdk"
)

// Handshake of go-plugin. The cookie only keeps people from starting a plugin by
// hand; it protects nothing.
const (
	CookieKey   = "COMMUCAT_PLUGIN"
	CookieValue = "commucat plugin host"
	// Base is the protocol of the services Control and of the hand-off socket.
	Base = 1
	// Handoff is the descriptor of the hand-off socket in a plugin process.
	Handoff = 3
	// Binary is the descriptor through which a plugin was executed.
	Binary = 4
	// Service is the name under which go-plugin knows all of this.
	Service = "commucat"
)

// Limits of control messages in bytes.
const (
	MaxControl  = 4 << 20
	MaxMessage  = 20 << 20
	MaxDocument = 1 << 20
)

// Protocols are the protocol numbers that this module speaks by kind, newest first:
// the current one and, once there is one, the one before. A message that only gains
// optional fields keeps its number.
func Protocols(k sdk.Kind) []uint32 {
	switch k {
	case sdk.Transport, sdk.Storage, sdk.Ledger:
		return []uint32{1}
	}
	return nil
}

// Choose finds the highest number that both speak. The error has kind
// sdk.Unsupported and says which side is too old.
func Choose(name string, ours, theirs []uint32) (uint32, error) {
	best := uint32(0)
	for _, n := range theirs {
		if slices.Contains(ours, n) {
			best = max(best, n)
		}
	}
	if best > 0 {
		return best, nil
	}
	advice := "the plugin is too old for this program; install a newer version of the plugin"
	if len(theirs) > 0 && len(ours) > 0 && slices.Min(theirs) > slices.Max(ours) {
		advice = "this program is too old for the plugin; install a newer version of this program"
	}
	return 0, &sdk.Error{
		Kind: sdk.Unsupported, Op: "plugin " + name,
		Text: fmt.Sprintf("it speaks protocol %s, this program %s: %s", list(theirs), list(ours), advice),
	}
}

func list(n []uint32) string {
	if len(n) == 0 {
		return "none"
	}
	n = slices.Clone(n)
	slices.Sort(n)
	text := make([]string, len(n))
	for i := range n {
		text[i] = fmt.Sprint(n[i])
	}
	return strings.Join(text, " and ")
}
