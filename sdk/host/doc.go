// Package host starts plugin binaries and gives their plugins back as values of the
// kinds: the other end of sdk/plugin, for the relay and for any other program.
//
//	file, _ := os.Open("commucat-transport-tls")
//	p, err := host.Start(ctx, host.Options{File: file, Log: log})
//	…
//	defer p.Close()
//	opened, err := transport.Open(ctx, p.Plugins()[0], env, raw)
//
// The binary is executed through the open descriptor, so that the file that was
// checked is the file that runs. It gets an empty environment but for what the
// handshake needs, the null device as standard input, a private folder for its
// control socket, and a hand-off socket over which every stream travels as an open
// descriptor. It ends with this process.
//
// A plugin is not trusted: what it sends is bounded and checked, its log lines are
// limited, and it cannot hold up a goroutine of this process for longer than a
// context or deadline allows. What it may do to the machine is the business of
// Options.Command, which can put a sandbox around it.
package host
