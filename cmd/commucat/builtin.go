package main

import (
	"strings"

	"github.com/commucat/commucat/sdk/transport"
	"github.com/commucat/commucat/transports/http2"
	"github.com/commucat/commucat/transports/longpoll"
	"github.com/commucat/commucat/transports/sse"
	"github.com/commucat/commucat/transports/websocket"
)

// dialers are the client halves of the built-in transports, in the order in
// which a client prefers them.
func dialers() []transport.Dialer {
	return []transport.Dialer{http2.NewDialer(), websocket.NewDialer(), sse.NewDialer(), longpoll.NewDialer()}
}

// chosen gives the dialers named in a comma-separated list, all for "".
func chosen(list string) ([]transport.Dialer, error) {
	return chosenOf(append(dialers(), pluginDialers()...), list)
}

func chosenOf(all []transport.Dialer, list string) ([]transport.Dialer, error) {
	if list == "" {
		return all, nil
	}
	var out []transport.Dialer
	for name := range strings.SplitSeq(list, ",") {
		d, err := namedDialer(all, name)
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

func names(ds []transport.Dialer) []string {
	var out []string
	for _, d := range ds {
		out = append(out, d.Name())
	}
	return out
}
