package amneziawg

import (
	"testing"

	wgconn "golang.zx2c4.com/wireguard/conn"
	wgdevice "golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"github.com/commucat/commucat/plugins/transport/amnesiawg/interop"
)

// All in one run on one machine: compare figures of one run alone.
func BenchmarkTunnel(b *testing.B) {
	wire := interop.Draw("2.0")
	b.Run("wireguard-go", func(b *testing.B) {
		interop.BenchDevices(b, func(link tun.Device) interop.Device {
			return wgdevice.NewDevice(link, wgconn.NewDefaultBind(), wgdevice.NewLogger(wgdevice.LogLevelSilent, ""))
		}, interop.Draw(""))
	})
	b.Run("amneziawg-go", func(b *testing.B) { interop.BenchDevices(b, newDevice, wire) })
	b.Run("commucat", func(b *testing.B) { interop.BenchOurs(b, "2.0") })
}
