// Package interop builds the peer that others wrote, Xray, and runs the tests of package
// reality that need it. It is a module of its own: Xray's requirements would move the
// versions that the transport is built with, and its hellos are security parameters.
package interop
