// Package interop runs the transport against devices that others wrote: plain
// wireguard-go here, and each release of amneziawg-go in a folder below.
//
// One module can hold one version of amneziawg-go, and what that requires must not
// reach the project's own module, so all of them are modules of their own. They share
// the project's network stack, which is already compiled when they run.
package interop
