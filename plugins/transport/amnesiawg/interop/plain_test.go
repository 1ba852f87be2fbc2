package interop

import (
	"testing"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"github.com/commucat/commucat/plugins/transport/amnesiawg/internal/obfs"
)

func plain(link tun.Device) Device {
	return device.NewDevice(link, conn.NewDefaultBind(), device.NewLogger(device.LogLevelSilent, ""))
}

// Without parameters the transport is WireGuard. A relay refuses to listen so; what
// it would say as the other side is tested in package bind.
func TestPlainWireGuard(t *testing.T) {
	_, to, key := Serve(t, plain, obfs.Plain())
	Echo(t, Dial(t, to, key))
}
