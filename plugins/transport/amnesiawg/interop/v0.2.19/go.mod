module github.com/commucat/commucat/plugins/transport/amnesiawg/interop/v0.2.19

go 1.26.0

replace (
	github.com/commucat/commucat => ../../../../..
	github.com/commucat/commucat/plugins/transport/amnesiawg/interop => ..
)

require (
	github.com/amnezia-vpn/amneziawg-go v0.2.19
	github.com/commucat/commucat v0.0.0-00010101000000-000000000000
	github.com/commucat/commucat/plugins/transport/amnesiawg/interop v0.0.0-00010101000000-000000000000
	golang.zx2c4.com/wireguard v0.0.0-20260522210424-ecfc5a8d5446
)

require (
	github.com/google/btree v1.1.3 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/net v0.62.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/time v0.9.0 // indirect
	golang.zx2c4.com/wintun v0.0.0-20230126152724-0fa3db229ce2 // indirect
	gvisor.dev/gvisor v0.0.0-20250503011706-39ed1f5ac29c // indirect
)
