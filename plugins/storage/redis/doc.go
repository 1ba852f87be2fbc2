// Package redis keeps the volatile half in Redis (7.0 or later) or one of its kin, so
// that several relays see the same routes, presence, resume tokens and rate limits, and
// wake each other's devices. One server, a Sentinel group and a cluster are driven by
// the same code: every command and script touches one key.
//
//	presence:ID          JSON with entity, state, expires_at and user: the reference's
//	                     key and form, so that its readers go on working
//	commucat:route:ID    hash of session, node, fence and end
//	commucat:cache:KEY   8 bytes of end in unix µs, then the value
//	commucat:rate:KEY    theoretical arrival time in µs (GCRA)
//	commucat:bus:NODE    sharded channel
//
// Times come from the relay, and are brought to the server's where the clocks differ. What
// is stored carries its end; the server's own expiry only clears away.
//
// The bus is sharded publish/subscribe, not a stream: messages are wake-ups that a
// node can miss without losing anything, and a stream would write, trim and
// acknowledge each of them.
package redis
