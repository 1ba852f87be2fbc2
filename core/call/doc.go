// Package call keeps the state of running calls (ccp1.md section 7): who takes
// part, who has accepted, which media was agreed. It checks signalling and the
// heads of media packets; payloads are never changed, nothing is transcoded.
//
// A call belongs to the channel of its offer. Media is matched by channel and
// participant, after the relay has checked membership (W18); calls are limited
// per device and in all, and end by age.
package call
