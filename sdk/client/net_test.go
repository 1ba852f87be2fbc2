package client

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/commucat/commucat/sdk/transport"
)

// fixed is a dialer of connections that a test makes.
type fixed struct {
	name string
	dial func() net.Conn
	with func(context.Context, transport.Endpoint, transport.Dial) (net.Conn, error)
}

func (f *fixed) Name() string { return f.name }

func (f *fixed) Dial(ctx context.Context, to transport.Endpoint, with transport.Dial) (net.Conn, error) {
	if f.with != nil {
		return f.with(ctx, to, with)
	}
	return f.dial(), nil
}

func chmod(t *testing.T, dir string, mode os.FileMode) {
	t.Helper()
	for _, name := range []string{profileFile, storeFile} {
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
}
