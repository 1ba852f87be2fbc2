// Package keyring holds every secret of a relay, as files of mode 0600 in one
// folder of mode 0700. Losing a file is losing what it protects; nothing here is
// kept anywhere else.
//
//	root         Ed25519: signs links and the key catalogue, nothing else
//	ca           seed of the device CA
//	storage      seals message bodies at rest
//	audit        keys the digests of audit records and signs their checkpoints
//	noise.json   Noise static keys: a new one each Rotate, accepted Grace longer
//	entry.json   masters of entry credentials
//	catalogue    serial and content of the signed catalogue in force
//	tls.crt/key  self-signed certificate, when the operator gives none
//
// Every file is written to a temporary name, synced and renamed. Errors name the
// file and what to do, never its content.
package keyring
