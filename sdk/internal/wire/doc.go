// Package wire carries the plugin contracts between processes: what sdk/plugin
// serves and sdk/host calls.
//
// gRPC (services in package wirepb) carries control alone: description, opening,
// listening, dialling, health, and the calls of storages and ledgers in batches on
// long-lived streams. Streams of clients travel as descriptors (package handoff).
//
// Everything that comes from the other process is bounded and checked here before
// the contracts' types are made of it.
package wire
