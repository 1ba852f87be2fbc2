package onion

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
)

// What stands before a stream: the PROXY line of tor (HiddenServiceExportCircuitID
// haproxy; version 1 of HAProxy's protocol), and the guest's token.
//
//	PROXY TCP6 fc00:dead:beef:4dad::HI:LO ::1 PORT 80 CR LF     HI:LO is the circuit
//	token (32)                                                  with authorisation
const (
	maxProxyLine = 107 // HAProxy's protocol, section 2.1
	tokenSize    = 32
)

// circuitPrefix is where tor puts the identifiers of circuits.
var circuitPrefix = netip.MustParsePrefix("fc00:dead:beef:4dad::/64")

// readCircuit reads the PROXY line byte by byte: what follows is not ours.
func readCircuit(r io.Reader) (uint64, error) {
	line := make([]byte, 0, maxProxyLine)
	for {
		if len(line) == maxProxyLine {
			return 0, errors.New("the PROXY line does not end")
		}
		if _, err := io.ReadFull(r, line[len(line):len(line)+1]); err != nil {
			return 0, err
		}
		line = line[:len(line)+1]
		if line[len(line)-1] == '\n' {
			return parseCircuit(string(line))
		}
	}
}

func parseCircuit(line string) (uint64, error) {
	line, ok := strings.CutSuffix(line, "\r\n")
	f := strings.Split(line, " ")
	if !ok || len(f) != 6 || f[0] != "PROXY" || f[1] != "TCP6" {
		return 0, errors.New("not tor's PROXY line")
	}
	at, err := netip.ParseAddr(f[2])
	if err != nil || !circuitPrefix.Contains(at) {
		return 0, fmt.Errorf("the PROXY line names no circuit")
	}
	b := at.As16()
	var id uint64
	for _, c := range b[8:] {
		id = id<<8 | uint64(c)
	}
	return id, nil
}
