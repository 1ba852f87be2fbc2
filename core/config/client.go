package config

import (
	"errors"
	"maps"
	"slices"

	"github.com/commucat/commucat/sdk"
)

// Client is the configuration of a client program.
type Client struct {
	// Transports are the [transport.NAME] tables: the keys of the client halves, and
	// the names of the client's own transports.
	Transports map[string]Transport
	// Files resolves what the tables refer to.
	Files sdk.Files

	raw map[string]any
}

// Locate is where a dotted key stands in the file, or the nearest table above it.
func (c *Client) Locate(key string) sdk.Position { return sdk.Locate(c.raw, key) }

// LoadClient reads the file of a client program, which has [transport.NAME] tables
// alone. They are checked as those of a relay, and no environment variable is put over
// them. Its errors are those of Load.
func LoadClient(path string, env Env) (*Client, error) {
	text, err := read(path)
	if err != nil {
		return nil, err
	}
	raw, err := parse(path, text)
	if err != nil {
		return nil, err
	}
	var mistakes sdk.ConfigErrors
	for _, key := range slices.Sorted(maps.Keys(raw)) {
		if key == "transport" {
			continue
		}
		e := fault(key, sdk.Locate(raw, key), "unknown key: a client's file has [transport.NAME] tables alone")
		if l, ok := raw[key].(sdk.Located); ok {
			e.Pos = l.Key
		}
		mistakes = append(mistakes, e)
		delete(raw, key)
	}
	c := &Config{File: path, raw: raw}
	files := c.files(env)
	var wrong sdk.ConfigErrors
	if err := sdk.Decode(raw, files, c); err != nil && !errors.As(err, &wrong) {
		return nil, err
	}
	ch := checker{c: c, env: env, files: files, bad: map[string]bool{}}
	for _, m := range wrong {
		ch.bad[m.Key] = true
	}
	ch.tableNames()
	ch.transports()
	mistakes = append(append(mistakes, wrong...), ch.out...)
	if len(mistakes) > 0 {
		mistakes.Sort()
		return nil, mistakes
	}
	return &Client{Transports: c.Transports, Files: files, raw: raw}, nil
}
