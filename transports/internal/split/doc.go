// Package split joins discrete HTTP requests to one byte stream: requests that
// fetch downstream bytes from an offset (as an event stream, or by long-poll)
// and requests that bring upstream bytes at an offset. A request that is cut
// is repeated and loses nothing.
//
// The wire is protocol-extensions, section 7. Where that text leaves room:
//
//   - An open by long-poll is answered at once, so that the client knows the
//     stream exists before it sends.
//   - The end of the relay's direction is an empty 200 (long-poll) or an event
//     named "end" (event stream).
//   - A close carries the offset at which upstream ends: 409 if it is not the
//     next expected. [entry.Abandon] there ends the stream at once.
//   - A down offset outside the ring is 409 with the ring's lowest offset.
//   - A stream whose session has ended goes when the client has all of it and has not
//     asked for three seconds. How many there are is bounded, and for each source.
//   - An event stream ends itself after half a ring as well, so that the next
//     request frees what was sent.
package split
