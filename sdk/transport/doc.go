// Package transport says what a way between client and relay is: the accepted
// stream is a [net.Conn] that can tell its [Facts], the client half is a
// [Dialer], and the server half that shares the public HTTP port is a [Web].
//
// A plugin is made with [Define] from a function that listens (a [net.Listener],
// which may be a [Server] as well) and one that dials, and opened with [Open]: the
// same value runs compiled in or as a process of its own.
//
// The interfaces that a conn may implement beside net.Conn ([PathFacts],
// [CloseWriter], [FrameWriter], [Withheld]) are found by type assertion;
// [FactsOf] and [CloseWrite] also look through wrappers that have a
// NetConn method, as [crypto/tls.Conn] does.
package transport
