// Package tiles keeps a transparency log in a folder in the form of C2SP tlog-tiles
// (c2sp.org/tlog-tiles), so that any tool or static web server that knows the form
// can read, mirror and verify it:
//
//	FOLDER/checkpoint              the signed tree head, a C2SP note
//	FOLDER/tile/0/x001/234         256 record hashes; tile/1/… their roots, and so on
//	FOLDER/tile/0/x001/235.p/17    a tile of which 17 hashes exist so far
//	FOLDER/tile/entries/x001/234   the 256 records of tile 0/x001/234
//	FOLDER/lock                    held by the process that writes
//
// Hashes are those of RFC 6962 section 2.1, computed by golang.org/x/mod/sumdb/tlog;
// notes are golang.org/x/mod/sumdb/note. A record is any text of at most [MaxEntry]
// bytes.
//
// [Open] gives the writing side, [OpenReader] the reading one: it verifies every
// byte and proves inclusion and consistency. A [Proof] is C2SP tlog-proof text,
// which needs neither the log nor this package to be verified.
package tiles
