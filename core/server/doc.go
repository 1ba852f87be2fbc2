// Package server is the composition root of the relay: it opens what a
// configuration names, in an order in which nothing is half there, runs it, and
// takes it down in reverse.
//
//	data folder and lock
//	  keyring ─ storage ─ ledger ─ metrics
//	    accounts ─ pairing ─ relay hub ─ sessions
//	      admission ─ web transports ─ cover ─ REST
//	        public listeners, admin socket
//
// Concrete transports and plugins arrive in [Options]: the program chooses what it
// links.
package server
