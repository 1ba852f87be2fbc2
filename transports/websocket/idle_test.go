package websocket_test

import (
	"net"
	"testing"

	"github.com/commucat/commucat/transports/internal/webtest"
	"github.com/commucat/commucat/transports/websocket"
)

// An idle session costs the relay at most 60 KiB with TLS and HTTP included.
func TestIdleMemory(t *testing.T) {
	webtest.IdleClients(t, websocket.NewDialer())
	each := webtest.Idle(t, "TestIdleMemory", "GET", 300, func(accept func(net.Conn)) *webtest.Site { return both.Start(t, accept) })
	t.Logf("%.1f KiB a session", float64(each)/1024)
	if each > 60<<10 {
		t.Errorf("%d bytes a session, more than 60 KiB", each)
	}
}
