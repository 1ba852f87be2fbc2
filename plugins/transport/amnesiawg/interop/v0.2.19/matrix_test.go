package amneziawg

import (
	"testing"

	"github.com/commucat/commucat/plugins/transport/amnesiawg/interop"
)

func TestMatrix(t *testing.T) { interop.Matrix(t, newDevice, "2.0", "<b 0xc0ffee><r 20><t>") }

func TestCookies(t *testing.T) { interop.Cookies(t, newDevice, "2.0") }

// Without parameters it is plain WireGuard.
func TestEmpty(t *testing.T) { interop.Plain(t, newDevice) }
