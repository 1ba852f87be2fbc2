package wire

import "google.golang.org/protobuf/proto"

// OutputCall is the call over which go-plugin carries what a plugin writes to
// os.Stdout and os.Stderr.
const OutputCall = "/plugin.GRPCStdio/StreamStdio"

// Size is how many bytes a message had on its way, 0 for what is none.
func Size(m any) int {
	if p, ok := m.(proto.Message); ok {
		return proto.Size(p)
	}
	return 0
}
