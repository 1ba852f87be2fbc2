package wire

import (
	"testing"

	"github.com/commucat/commucat/sdk/internal/wire/wirepb"
)

func TestSize(t *testing.T) {
	if n := Size(&wirepb.OpenRequest{State: make([]byte, 1000)}); n < 1000 || n > 1010 {
		t.Errorf("%d bytes", n)
	}
	if n := Size("text"); n != 0 {
		t.Errorf("%d bytes", n)
	}
}
