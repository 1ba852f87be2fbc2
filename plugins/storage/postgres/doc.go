// Package postgres keeps accounts and queued messages in PostgreSQL (14 or later), so
// that several relays can share them and the database's own tools do backups and
// replication. It offers the durable half; routes, presence and the bus between
// nodes come from another plugin (redis).
//
// A batch of messages is one transaction with three round trips:
//
//	queue      one row a queue: its number, last position and size. The batch's rows are
//	           locked in order of the names, which makes positions of one queue
//	           commit in their order whatever nodes write to it
//	message    what is not there yet goes in by COPY
//	mark       with the batch
//
// Nothing is reported stored before COMMIT has returned, and the server must be set so
// that this means the disk: the plugin refuses to start unless fsync, full_page_writes
// and synchronous_commit are on. A COMMIT whose answer is lost is answered with kind
// Unavailable; the core repeats the batch, and what is there already is recognised.
//
// A standby that takes over, and a database that was restored, may lack what was
// committed; positions and versions go on above what can have been given out (timeline.go).
//
// Records of the directory are guarded by advisory locks on their keys, taken in
// order, so that conditions on absent records hold as well.
package postgres
