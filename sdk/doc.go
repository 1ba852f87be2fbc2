// Package sdk is the ground that every plugin kind stands on: what a plugin is,
// what the relay lends it, how its configuration is described and decoded, and
// the errors both sides understand.
//
// A plugin's configuration is an ordinary struct whose tags describe it:
//
//	type Config struct {
//		Path string        `cfg:"path" default:"relay.db" doc:"database file"`
//		Wait time.Duration `cfg:"busy_timeout" default:"5s" min:"100ms" doc:"how long a writer waits"`
//		Page sdk.Size      `cfg:"page" default:"4KiB" doc:"page size"`
//		Key  sdk.Secret    `cfg:"key" doc:"encryption key"`
//	}
//
// Fields turns it into a description (for reference pages and schemas), Defaults
// fills it, Decode reads a raw table into it and names every mistake at once with
// the key, the place in the file where known, and the name that was probably meant.
//
// The kinds themselves are the packages below: sdk/transport, sdk/storage and
// sdk/ledger.
package sdk
