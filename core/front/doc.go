// Package front is the relay's public HTTPS port: admission at accept, TLS 1.3,
// HTTP/2 and HTTP/1.1 of one http.Server, and the choice between the web
// transports, the REST interface and the cover site.
//
//	accept → admission → TLS → request → web transport (shape of an entry token)
//	                                   → REST (entry token or session)
//	                                   → cover site
//
// What is not ours is answered by the cover site with the body unread, so a
// stranger sees the same bytes, closes and timing as from the same program
// without a relay. The package knows no transport, session or site itself:
// all are given to it.
package front
