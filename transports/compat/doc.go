// Package compat serves the connect path of the reference implementation: its
// four modes (binary, event stream, "long-poll" as an endless NDJSON answer,
// WebSocket) as its existing client speaks them, CCP-1 section 5.
//
// No token is asked. Status and headers are withheld until the session writes
// its first frame, which it does when the Hello is verified; a request that
// ends before gets the cover's answer. A probe that stalls its body can tell
// such a path from the cover's, and a WebSocket is answered at once: that is
// the price of the switch.
package compat
