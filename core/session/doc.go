// Package session runs one device's connection from its first byte to its end.
//
//	Hello -> <- Auth -> (Auth) Confirm* -> <- Ack* ; then frames in records
//
// Server.Serve reads the handshake within the limits before authentication
// (64 KiB, 10 s), checks cheap things before expensive ones, and asks package
// account for the one transaction. Until the client's Confirm has been verified
// nothing is stored, no live connection is disturbed and no token exists.
//
// Afterwards a session costs one parked goroutine, its reader. The reader waits
// with a buffer of 64 bytes inside the session and takes a pooled one only while
// bytes are there; a writer goroutine lives only while something is queued; one
// lazy timer does keep-alive, dead peers, stalls, token and certificate.
//
// Frames go to a relay.Link in the order of arrival; the Session is the relay's
// relay.Outbox. What it queues is bounded:
//
//	deliveries  by the relay's in-flight window; a body of 8 KiB or more is
//	            queued by reference and sealed straight into the write buffer
//	control     256 KiB; overflow ends the session, and the client resumes
//	media       dropped where more than 64 KiB of memory would wait with it; as
//	            much again may be being written. Large ones are shared by reference
//
// Cipher states live in the Session alone and are never stored.
//
// Source: protocol-extensions sections 1 to 6 and 10, CCP-1 sections 3, 4, 8.
package session
