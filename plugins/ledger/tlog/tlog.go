// Package tlog is the ledger that keeps the audit chain as a transparency log in the
// form of C2SP tlog-tiles: a folder that any tool or web server which knows the form
// can mirror, prove from and verify, under signed checkpoints that witnesses may
// cosign.
//
// A record of the chain is one entry of the log: its line of JSON, as in the file
// ledger. Record number 1 is entry 0.
package tlog

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ledger"
	"github.com/commucat/commucat/sdk/ledger/tiles"
)

// Config is the ledger's configuration, [ledger.tlog].
type Config struct {
	Path      string   `cfg:"path" default:"log" max:"4096" doc:"folder of the log; a relative one lies in the ledger's own data folder"`
	Origin    string   `cfg:"origin" max:"128" doc:"name of the log in its checkpoints, for example relay.example/audit; when empty one is drawn at the first start"`
	Witnesses []string `cfg:"witnesses" max:"16" doc:"keys of witnesses whose cosignatures count (NAME+ID+KEY)"`
}

// Check implements sdk.Checker.
func (c *Config) Check() error {
	if strings.ContainsAny(c.Origin, "+ \t\r\n") {
		return &sdk.ConfigError{Key: "origin", Text: "must not contain spaces and +"}
	}
	for i, w := range c.Witnesses {
		if err := tiles.CheckWitness(w); err != nil {
			return &sdk.ConfigError{Key: fmt.Sprintf("witnesses[%d]", i), Text: err.Error()}
		}
	}
	return nil
}

// Plugin is the transparency log.
var Plugin = ledger.Define(ledger.Descriptor{
	Name: "tlog", Version: "1.0.0", Summary: "a transparency log in tiles, with signed checkpoints and proofs",
}, open)

func open(_ context.Context, env sdk.Env, c Config) (ledger.Ledger, error) {
	dir := c.Path
	if env.State() == "" {
		return nil, &sdk.Error{Kind: sdk.Invalid, Text: "it needs a data folder for its key, and none is lent"}
	}
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(env.State(), dir)
	}
	k, err := openKey(env.State(), c.Origin)
	if err != nil {
		return nil, err
	}
	log, err := tiles.Open(tiles.Options{Dir: dir, Signer: k.signer, Key: k.public})
	if err != nil {
		return nil, err
	}
	l := &tlog{log: log}
	if l.head, err = l.last(); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	// What reads the log needs its public half beside it.
	if err := publishKey(filepath.Join(dir, "key.pub"), k.public+"\n"); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	return l, nil
}
