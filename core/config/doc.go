// Package config is the relay's configuration: one set of Go structs from which
// come the defaults, the strict decoding of commucat.toml and of the environment,
// the reference page, the sample file and the JSON schema.
//
// Every mistake is reported at once as FILE:LINE:COLUMN: key: text, with the name
// that was probably meant. The package reads files and nothing else: it starts,
// stops and knows no subsystem.
package config
