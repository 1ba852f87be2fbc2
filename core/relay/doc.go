// Package relay routes frames between devices and keeps what cannot be
// delivered at once: channels, groups, contact policy, fan-out, durable queues
// with a group committer, acknowledgements, delivery windows, presence and
// routes. It knows a live session only as its own small [Outbox].
//
// # A message's way
//
//	reader goroutine of the sender            lane goroutine              recipient
//	Handle: parse, window, route  ── rows ──▶ seal, Append, settle ──▶  Outbox.Push
//	                                          │
//	                              Ack of the sender: once every row of the
//	                              message is stored or refused for good
//
// A lane is the hash of a queue; each lane commits what is waiting in one batch,
// without a timer, so batches grow with load. A batch that fails is repeated
// unchanged; only after Limits.GiveUp its messages and everything behind them of
// the same log fail with "unavailable" and the sender repeats in order.
//
// # Delivery
//
// A link is live while everything stored so far has been handed to its session;
// then a commit wakes the session's writer from memory. When the in-flight window
// (256 messages or 256 KiB not acknowledged) closes, a small backlog fills, and
// when that is full the link lags: it reads pages from storage, and returns to
// live under the lock that commits take, so nothing is lost or reordered.
//
// # Locks
//
// Order: shard of the link table, then Link.in (what the device sends), then
// Link.out (what it receives), then a lane. None is held around I/O. Outbox
// methods are called with Link.out held: they must not call back into the relay.
package relay
