// Command carrier is what an app does on a phone: it builds the tunnel of a configuration
// file with amneziawg-go, and gives programs a way to the one address inside. It prints a
// TCP address of this machine that stands for that.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"

	"github.com/amnezia-vpn/amneziawg-go/conn"
	"github.com/amnezia-vpn/amneziawg-go/device"
	awg "github.com/amnezia-vpn/amneziawg-go/tun"
	"golang.zx2c4.com/wireguard/tun"
	"golang.zx2c4.com/wireguard/tun/netstack"

	"github.com/commucat/commucat/plugins/transport/amnesiawg/conf"
	"github.com/commucat/commucat/plugins/transport/amnesiawg/interop"
)

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// link gives amneziawg-go no events: it has a type of its own for them.
type link struct {
	tun.Device
	events chan awg.Event
}

func (l link) Events() <-chan awg.Event { return l.events }

func run(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	f, err := interop.ParseFile(string(text))
	if err != nil {
		return err
	}
	in, stack, err := netstack.CreateNetTUN([]netip.Addr{f.Address.Addr()}, nil, f.MTU)
	if err != nil {
		return err
	}
	d := device.NewDevice(link{in, make(chan awg.Event)}, conn.NewDefaultBind(), device.NewLogger(device.LogLevelSilent, ""))
	if err := d.IpcSet(f.Client()); err != nil {
		return err
	}
	if err := d.Up(); err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(ln.Addr())
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go carry(c, stack, netip.AddrPortFrom(f.Allowed.Addr(), conf.Port))
		}
	}()
	_, err = io.Copy(io.Discard, os.Stdin) // until whoever started it ends
	return err
}

func carry(c net.Conn, stack *netstack.Net, to netip.AddrPort) {
	defer c.Close()
	s, err := stack.DialContextTCPAddrPort(context.Background(), to)
	if err != nil {
		return
	}
	defer s.Close()
	go func() {
		_, _ = io.Copy(s, c)
		_ = s.CloseWrite()
	}()
	_, _ = io.Copy(c, s)
}
