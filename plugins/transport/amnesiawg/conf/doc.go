// Package conf reads and writes what a client of the amnesiawg transport must know:
// the parameters of its endpoints, the addresses inside the tunnel, and the
// configuration file that AmneziaWG's own programs take.
//
// It needs neither WireGuard nor a network stack, so that a program can write the
// file without carrying them.
package conf
