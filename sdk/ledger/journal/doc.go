// Package journal keeps a ledger's records in a folder: one JSON line a record,
// chained by hash across files, appended with fsync. The file ledger is made of it,
// and so is the core's spool.
//
//	FOLDER/00000000000000000001.jsonl    named by the number of the first record
//	FOLDER/00000000000000041202.jsonl    the newest file is the one that grows
//	FOLDER/lock                          held while the journal is open
//
// Open reads every file and checks the whole chain. What a crash can leave at the
// end of the newest file (a line without its end, zeros that the file system put
// where data was to come) is repaired; a chain that is broken anywhere else is
// refused, and the error names file, line and record.
package journal
