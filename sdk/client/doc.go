// Package client is the Go client of a CommuCat relay.
//
// A [Profile] is one device: its keys, and what it knows of one relay. A
// [Client] keeps that device connected: it dials the relay's endpoints (several
// at once when the first is slow), makes the Noise handshake, resumes the
// session above it, sends what the outbox holds and stores what arrives.
//
// What the package promises:
//
//   - Send returns when the message is in the local outbox; the outbox survives a
//     restart of the program if the [Store] does ([OpenStore]). Wait returns when
//     the relay has acknowledged the message: then it is on stable storage for
//     every recipient device, or named as refused.
//   - A message that arrives is stored with its duplicate table in one
//     transaction, then acknowledged to the relay, then shown: once, and in the
//     order of its sender and channel. Only when the program itself dies while
//     its handler runs is that one message shown again.
//   - Reconnects are the package's business: backoff with jitter, another endpoint
//     when one is silent, resumption of the session above the transport.
//   - Everything is bounded. While the handler is behind by more than the store
//     may hold ([MaxInbox], [MaxInboxBytes]), further messages stay at the relay.
//
// Which transports a program links is its own choice: [Options].Dialers takes
// them. The package itself imports none.
//
// # Goroutines
//
// A connected client has four: the reader (Run's own), the writer, the watch
// over silence, and the one that calls the handler; a fifth calls OnEvent while
// there are events. The reader alone collects and stores what arrives; the writer
// alone gives out sequence numbers. Locks are taken in the order session.mu,
// outbox.numbering, outbox.deleting, outbox.mu; Client.mu, the inbox's and the
// events' are leaves.
package client
