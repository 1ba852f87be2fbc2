// Package file is the ledger that keeps the audit chain in a folder of the data
// folder: one JSON line a record, a new file whenever one is full. It needs nothing
// installed and is the relay's default.
//
// A chain that is broken is not opened: the error names the file, the line and the
// record, and the operator decides. What a crash left unfinished at the very end is
// repaired and logged.
package file
