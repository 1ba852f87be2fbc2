// Package backup keeps a data folder in one encrypted file.
//
// # Format
//
// The file is age (age-encryption.org/v1), encrypted to public keys alone; inside is a
// gzip stream of a tar archive, in this order:
//
//	commucat-backup.json   Info
//	files/NAME             folders and regular files, NAME relative to the data folder
//	commucat-digests.json  Manifest: name, size and SHA-256 of each file before it
//
// age authenticates every 64 KiB and the end, so a byte changed anywhere and a file cut
// short are seen while it is read; the digests at the end show besides that the archive
// is the one that was written, complete. Restore gives the folder its name only after
// all of that has been seen.
package backup
