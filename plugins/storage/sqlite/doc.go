// Package sqlite is the relay's embedded store: the durable half of sdk/storage in
// one folder, with nothing to install.
//
// Layout of the folder:
//
//	lock               held while a process uses the folder
//	relay.db           SQLite: directory records (and, with queues = "sqlite", messages)
//	relay.db-wal       its write-ahead log
//	queues/            Pebble: messages and marks, with queues = "pebble"
//	queues.manifests   sums of Pebble's lists of tables, see witness
//
// SQLite runs in WAL mode with synchronous=FULL; one goroutine writes and commits
// what has gathered as one transaction, a few connections read. Records stay
// readable with the sqlite3 tool: table record (kind, id, version, expires, value).
//
// Messages have an index in memory over a row engine. The index holds, for queues
// in use, each row's id, position, size and expiry, so that duplicates, quotas and
// depths cost no look-up and a deletion names exact rows; it is bounded, and a
// queue is read in again when it is next used. There are two engines. Pebble is the
// default: appending and deleting a row of 256 bytes costs about 5 microseconds of
// CPU, a quarter of what it costs in SQLite. The SQLite engine keeps everything in
// one file, for relays with little traffic.
//
// Failures: a write or sync error is never followed by an acknowledgement. The
// engine that saw it is closed and opened again from what is on the disk before the
// next batch is accepted. What a failed deletion took out of the index is read anew from
// the store, so the same deletion again finds it; after a reopening all of it is. Below a reserve of free space appends are refused with
// kind Unavailable while deletions go on, so that a full disk empties again.
//
// A snapshot of a running store is of one moment: while Pebble makes its checkpoint (hard
// links, and a copy of its log) the database's writer waits, and a reading transaction
// from before it is what is copied of the database afterwards.
//
// Damage: each row has a sum, checked whenever it is read. At the start the database's
// rows and trees are checked for 250 ms at most; a damaged one is not opened.
package sqlite
