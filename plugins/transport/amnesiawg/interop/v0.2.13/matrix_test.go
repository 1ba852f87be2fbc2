package amneziawg

import (
	"testing"

	"github.com/commucat/commucat/plugins/transport/amnesiawg/interop"
)

func TestMatrix(t *testing.T) { interop.Matrix(t, newDevice, "1.5", "<b 0xc0ffee><r 20>") }
