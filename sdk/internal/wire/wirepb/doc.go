// Package wirepb is the protobuf form of the control messages between the relay and
// plugin processes, made by "make generate" from the files beside it. Additions are
// new optional fields; anything else is a new protocol number (see wire.Protocols).
package wirepb
