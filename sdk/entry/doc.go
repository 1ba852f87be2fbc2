// Package entry makes and checks entry tokens: the short proof, shown in one
// cookie, that a request to the relay's connect path comes from somebody who
// was given a link. A request without a good token is answered by the cover
// site with its body unread, so that a stranger sees nothing but a web site.
//
// A [Credential] is an id and a key. The relay derives the key from a master
// and the id, so it stores nothing per credential and looks nothing up before
// it has checked one. [Credential.Token] makes a token for one request,
// [Verifier.Verify] checks it. The tokens of split streams carry a [Stream]:
// which stream the request belongs to and at which byte.
//
// Layouts and limits: protocol-extensions, section 7.
package entry
