// Package transport says what a way between client and relay is: the accepted
// stream is a [net.Conn] that can tell its [Facts], the client half is a
// [Dialer], and the server half that shares the public HTTP port is a [Web].
//
// The interfaces that a conn may implement beside net.Conn ([PathFacts],
// [CloseWriter], [FrameWriter], [Withheld]) are found by type assertion;
// [FactsOf] and [CloseWrite] also look through wrappers that have a
// NetConn method, as [crypto/tls.Conn] does.
package transport
