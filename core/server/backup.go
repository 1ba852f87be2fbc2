package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/commucat/commucat/sdk"
)

// HoldData takes the data folder of a stopped relay, so that none starts, until release
// is called.
func HoldData(opt Options) (release func() error, err error) {
	if err := opt.complete(); err != nil {
		return nil, err
	}
	// Nothing is made here: an empty folder has nothing to keep.
	if _, err := os.Stat(filepath.Join(opt.Data, stateFile)); err != nil {
		return nil, fmt.Errorf("there is no relay in %s: %w", opt.Data, reason(err))
	}
	s := &Server{opt: opt, cfg: opt.Config, log: opt.Log}
	if err := s.openData(context.Background()); err != nil {
		return nil, errors.Join(err, s.close(context.Background()))
	}
	return func() error { return s.close(context.Background()) }, nil
}

// DataHolds says whether accounts and messages lie in the data folder.
func DataHolds(opt Options) bool {
	const embedded = "sqlite"
	name := opt.Config.Storage.Backend
	return name == embedded && !filepath.IsAbs(text(opt.Config.Keys(sdk.Storage, name)["path"]))
}
