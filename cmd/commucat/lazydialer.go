package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/commucat/commucat/core/pluginhost"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/host"
	"github.com/commucat/commucat/sdk/transport"
)

// processDialer dials through a plugin's process, started with the first dial, and again
// with the next one when it has ended.
type processDialer struct {
	name, plugin string
	table        map[string]any // the client half's configuration; nil as a rule
	files        sdk.Files      // what it refers to
	mu           sync.Mutex
	dialer       transport.Dialer
	process      *host.Process // the dialer's
	restarts     restarts
}

func (d *processDialer) Name() string { return d.name }

// Dial implements transport.Dialer.
func (d *processDialer) Dial(ctx context.Context, to transport.Endpoint, with transport.Dial) (net.Conn, error) {
	in, err := d.start(ctx)
	if err != nil {
		return nil, err
	}
	return in.Dial(ctx, to, with)
}

// NewKey implements transport.KeyMaker.
func (d *processDialer) NewKey() (private, public []byte, err error) {
	in, err := d.start(context.Background())
	if err != nil {
		return nil, nil, err
	}
	return in.(transport.KeyMaker).NewKey()
}

// start gives the dialer of a process that lives. Between starts that come to nothing it
// answers why the last one did.
func (d *processDialer) start(ctx context.Context) (transport.Dialer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.process != nil {
		err := d.process.Err()
		if err == nil {
			return d.dialer, nil
		}
		go d.process.Close() // what it leaves behind is in the log
		d.dialer, d.process = nil, nil
		d.restarts.ended(time.Now(), err)
	}
	if err := d.restarts.early(time.Now()); err != nil {
		return nil, err
	}
	// The client half keeps nothing; the process ends with this program.
	state, err := os.MkdirTemp("", "commucat-dial-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(state)
	if err := os.Chmod(state, 0o711); err != nil {
		return nil, err
	}
	d.dialer, d.process, err = pluginHost(state).Dialer(ctx, pluginhost.Spec{Name: d.name, Plugin: d.plugin, Raw: d.table, Files: d.files, Settings: pluginhost.Settings{Memory: 1 << 30}})
	switch {
	case err == nil:
		d.restarts.began = time.Now()
	case !errors.Is(ctx.Err(), context.Canceled): // else another way was faster
		d.restarts.ended(time.Now(), err)
	}
	return d.dialer, err
}

// pluginDialers are the listed transports, each under its own name, and those that pt
// carries under the names that operators give them.
func pluginDialers() []transport.Dialer {
	list, _ := catalog().List() // 'plugin verify' says what is wrong with one
	var out []transport.Dialer
	for _, f := range list {
		if f.PluginKind() != sdk.Transport {
			continue
		}
		names := []string{f.Name}
		if f.Name == "pt" {
			names = []string{"obfs4", "webtunnel", "snowflake", f.Name}
		}
		for _, name := range names {
			out = append(out, &processDialer{name: name, plugin: f.Name})
		}
	}
	return out
}

// named finds the dialer of one transport: NAME, or NAME=PLUGIN where the relay calls
// it otherwise than the plugin.
func namedDialer(all []transport.Dialer, text string) (transport.Dialer, error) {
	name, plugin, renamed := strings.Cut(strings.TrimSpace(text), "=")
	want := name
	if renamed {
		want = plugin
	}
	i := slices.IndexFunc(all, func(d transport.Dialer) bool { return d.Name() == want })
	if i < 0 {
		return nil, usageError{fmt.Errorf("this build has no transport %q: there are %s", want, strings.Join(names(all), ", "))}
	}
	if p, ok := all[i].(*processDialer); ok && renamed {
		return &processDialer{name: name, plugin: p.plugin, table: p.table, files: p.files}, nil
	}
	return all[i], nil
}
