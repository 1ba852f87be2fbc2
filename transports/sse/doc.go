// Package sse carries a session in discrete requests: an event stream down,
// renewed about once a minute, and short POSTs up. It passes proxies that
// break long uploads and upgrades but let events through.
//
// [New] is the server half, [NewDialer] the client half. The wire is
// protocol-extensions, section 7: a request that is cut is repeated and loses
// nothing, and 60 seconds without a request end the stream. Both ends have
// half-close, and deadlines that may be moved after they have passed.
package sse
