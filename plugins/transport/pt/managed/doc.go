// Package managed is the managed-proxy protocol of Tor's pluggable transports (pt-spec,
// versions 1 and 2.x of Tor's own): what a parent says to a child by environment and
// pipes, and what both say to each other for each connection.
//
//	parent                                  child
//	  TOR_PT_… (environment)          ────►
//	                                  ◄────  VERSION, CMETHOD, SMETHOD, … DONE (stdout)
//	  end of stdin: stop              ────►
//	  SOCKS5, arguments as user name  ────►  client side, for each connection
//	                                  ◄────  ExtORPort, the client's address, server side
//
// A child is another's program: every line, length and count from it is bounded here.
package managed
