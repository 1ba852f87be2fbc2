// Package longpoll carries a session in discrete requests: GETs that wait up
// to half a minute for bytes, and short POSTs up. It passes proxies that hold
// answers back until they are whole.
//
// [New] is the server half, [NewDialer] the client half. The wire is
// protocol-extensions, section 7: a request that is cut is repeated and loses
// nothing, and 60 seconds without a request end the stream. Both ends have
// half-close, and deadlines that may be moved after they have passed.
package longpoll
