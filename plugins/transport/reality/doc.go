// Package reality is the transport whose port is, for everybody without a key, a
// well-known web site: every connection is joined byte for byte with a cover, and
// only a TLS ClientHello whose session id was sealed for the server's key becomes a
// stream to the relay. The wire is REALITY's (session id, throw-away certificate,
// record sizes), so that other clients and servers of it can be the other end.
//
// The work is shared like this. exchange mirrors a client to the cover from the first
// byte, so that even half a hello meets the cover's own behaviour. A hello that is
// ours, in time and not seen before is answered by the xtls/reality module, which
// sees neither the socket nor the cover but two stand-ins: until the client's Finished
// has been verified, whatever the client sends beyond it goes to the cover, and the
// cover's words and closes win. Whoever holds a captured or withheld hello, but not
// its ephemeral key, is therefore answered by the cover alone.
//
// seen remembers the hellos that were accepted, across restarts. examine and Judge
// look at a cover as a browser does. The client half imitates a browser's hello with
// utls and believes only a server that proves the shared key.
package reality
