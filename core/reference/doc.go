// Package reference takes over accounts, groups and waiting messages from the database of
// the reference server.
//
// The database is read through a storage of the trait Source (the plugin "reference"),
// so this package knows its rows and no driver. Everything is read twice: the first time
// nothing is written, and records of this relay that stand in the way are found. Where
// there is one, nothing is changed.
//
// What is taken over is checked as if a stranger had sent it: names, keys, times, frames.
// A row that breaks a rule is left out and named in the Report; the others go on.
//
// An import may be repeated: after an interruption, or once more shortly before the
// reference is switched off. What is there is not stored again, also not a message that
// its device has had meanwhile: that each was taken over is remembered, in records of the
// kind "reference-import", for as long as the reference keeps it:
//
//	row/HEX        a message, by its row's id
//	queue/DEVICE   how many messages the device got: they are numbered
//	batch          the numbers of the messages that are being stored
//
// Never taken over are bearer tokens and pairing codes, which can be guessed, and the
// server's secrets, which lie in the database in clear.
package reference
