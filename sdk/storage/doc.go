// Package storage is the contract between the relay and what keeps its data.
//
// A backend has two halves. The durable half ([Queues] and [Directory]) holds
// messages until their recipient acknowledged them, and everything else that must
// survive a crash. The volatile half ([Routes], [Presence], [Cache], [Limiter] and
// [Bus]) may forget everything at any time. A backend offers any part of either;
// the operator may take the halves from different plugins.
//
// The durable half is driven in batches. A batch is the unit of durability, its
// results are per row, and a batch without an answer is repeated: appending is
// idempotent by (queue, id). Bodies arrive sealed; a backend sees ids, sizes and
// times, nothing else.
//
// The directory knows one operation that writes: [Directory.Commit], a set of
// conditional writes that happens as a whole or not at all. Every use case of the
// relay is written on it: claiming a code once (expect the version that was read,
// delete), rotating a key (expect the version), reserving an idempotency key
// (expect absence, with an expiry), spending a quota (expect the version, write the
// smaller number), extending a session without shortening it (read, expect, write).
// A unique index is a record of its own kind whose id is the indexed value.
//
// [Inventory] names everything that the durable half holds, so that a relay can be
// moved from one backend to another.
//
// Time comes from the caller. A plugin is made with [Define] and opened with
// [Open]; sdk/plugintest holds the conformance suite.
package storage
