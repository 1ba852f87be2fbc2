// Package transfer copies the durable half of one storage into another and proves
// that both hold the same.
//
// It needs nothing of either but sdk/storage, so it works between any two backends,
// built in or in processes of their own. What is copied are records, marks and
// messages; versions and positions are the target's own. That is what the contract
// allows: versions matter between a reading and a writing of one relay, and a store
// that takes another's place gives positions above all that the other ever gave.
//
// A copy that was interrupted is taken up again: rows are appended under their ids, in
// order, and a record in the target ("storage-copy") says how far it came. While that
// record is there no relay serves the target (see Unfinished).
//
// # Digest
//
// A digest is SHA-256 over everything that has not expired at the copy's time, each
// text and number with its length before it: records in the order of kind and id (kind,
// id, expiry in µs, value), marks in the order of their keys (key, value), queues in the
// order of their names (name, number of rows, SHA-256 over the rows' id, expiry in whole
// seconds, rounded up, and payload, in the order of delivery).
package transfer
