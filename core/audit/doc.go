// Package audit records security and operator events as a chain of records and brings
// them to the ledgers.
//
// Recorded are registrations, changes of devices and keys, revocations, invitations,
// purges, peers, configuration, start and stop. Messages and sessions are not: a
// chain that cannot forget must not hold who talks to whom. Ids of users and devices
// appear as keyed digests only; with the key (Subject) an operator finds the records
// of one device, and destroying the key makes them anonymous.
//
// # How a record travels
//
// Record puts an event into a bounded queue and returns; one goroutine chains what is
// queued and writes it to a spool in the data folder with one fsync. Another goroutine
// for each ledger reads the spool and submits what that ledger lacks, with growing
// pauses while it fails. A slow or absent ledger therefore delays nobody and loses
// nothing: the spool keeps every record until all ledgers have it, over restarts too.
// Only a full queue makes Record wait, and only while the local disk is slow: where it
// refuses (no room), or the spool has reached its limit because a ledger takes nothing,
// Record answers so at once.
//
// # What cannot be kept
//
// An event has happened when it is recorded, so it is not undone: it waits in memory, in the
// queue, until there is room. What finds the queue full is refused and counted, and the first
// record after it (audit.lost) says how many events of which kind are missing in between.
// What waits at the end of the process on a full disk goes to the log as it would have been
// recorded. States names the spool while it cannot be written, and a ledger that fills it.
//
// # What is known beside the ledgers
//
// A signed checkpoint beside the spool says how long the chain is; Open refuses a
// chain that is shorter or another one. Beside it stands which record each ledger took
// last: one that has fewer was rolled back, which the log and a record
// (ledger.rolled_back) say, and is given again what the spool or another ledger has. Past
// verifies a ledger against all of that.
package audit
