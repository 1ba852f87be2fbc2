package http2_test

import (
	"net"
	"testing"

	"github.com/commucat/commucat/transports/http2"
	"github.com/commucat/commucat/transports/internal/webtest"
)

// An idle session costs the relay at most 80 KiB with TLS and HTTP included.
func TestIdleMemory(t *testing.T) {
	webtest.IdleClients(t, http2.NewDialer())
	each := webtest.Idle(t, "TestIdleMemory", "POST", 300, func(accept func(net.Conn)) *webtest.Site { return both.Start(t, accept) })
	t.Logf("%.1f KiB a session", float64(each)/1024)
	if each > 80<<10 {
		t.Errorf("%d bytes a session, more than 80 KiB", each)
	}
}
