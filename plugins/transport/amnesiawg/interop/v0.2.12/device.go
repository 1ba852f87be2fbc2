// Package amneziawg has amneziawg-go v0.2.12 talk to the transport.
package amneziawg

import (
	"github.com/amnezia-vpn/amneziawg-go/conn"
	"github.com/amnezia-vpn/amneziawg-go/device"
	awg "github.com/amnezia-vpn/amneziawg-go/tun"
	"golang.zx2c4.com/wireguard/tun"

	"github.com/commucat/commucat/plugins/transport/amnesiawg/interop"
)

// link is a network inside; of its events amneziawg-go has a type of its own, and
// needs none.
type link struct {
	tun.Device
	events chan awg.Event
}

func (l link) Events() <-chan awg.Event { return l.events }

func (l link) Close() error {
	close(l.events)
	return l.Device.Close()
}

func newDevice(in tun.Device) interop.Device {
	return device.NewDevice(link{in, make(chan awg.Event)}, conn.NewDefaultBind(), device.NewLogger(device.LogLevelSilent, ""))
}
