package handoff

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// Type says what a message is about.
type Type uint8

// The messages.
const (
	// Accepted: plugin to host, on a listener's socket, with the stream.
	Accepted Type = iota + 1
	// Dialled: plugin to host, with the stream; Number is the dial's.
	Dialled
	// Bind: plugin to host; Number is the request's.
	Bind
	// Bound: host to plugin, with a listening or packet socket, or Error.
	Bound
	// CoverWanted: plugin to host; Number is the request's.
	CoverWanted
	// Cover: host to plugin, with a stream on which the host serves the cover site
	// by HTTP/2 without TLS, or Error.
	Cover
	// Listener: host to plugin, with the socket for Accepted; Number is the
	// listener's.
	Listener
	// Carrier: host to plugin, with a stream that was dialled for the plugin;
	// Number is the request's.
	Carrier
	lastType
)

// Kind says what a stream's descriptor is.
type Kind uint8

// The kinds.
const (
	// KindPump is one end of a socketpair; it ends with the sending process.
	KindPump Kind = iota + 1
	// KindSocket is the network socket itself; it outlives the sending process.
	KindSocket
)

// MaxMessage bounds a message.
const MaxMessage = 4096

// format is the first byte of each message.
const format = 1

// Message is what travels beside a descriptor.
//
//	format u8 = 1
//	type   u8
//	fields: tag u8 ‖ length u16 ‖ value; tags ascend, each at most once
//
// Integers are big endian. Tags that are not known are skipped, so that a field may
// be added without a new format. A text that is longer than its limit is cut by the
// writer and refused by the reader.
type Message struct {
	Type     Type
	Number   uint64
	Instance uint64
	// Network and Address are what Bind asks for.
	Network, Address string
	// Error is why there is no descriptor.
	Error     string
	ErrorKind sdk.ErrorKind
	// Kind, Local, Remote and Facts describe a stream. The context of the facts
	// does not travel.
	Kind          Kind
	Local, Remote transport.Addr
	Facts         transport.Facts
}

const (
	tagNumber = iota + 1
	tagInstance
	tagNetwork
	tagAddress
	tagError
	tagErrorKind
	tagKind
	tagLocalNetwork
	tagLocal
	tagRemoteNetwork
	tagRemote
	tagTransport
	tagSource
	tagCircuit
	tagFlags
	tagUserAgent
)

// limits of texts in bytes, by tag.
var limits = [...]int{
	tagNetwork: 32, tagAddress: 512, tagError: 1024,
	tagLocalNetwork: 64, tagLocal: 300, tagRemoteNetwork: 64, tagRemote: 300,
	tagTransport: 64, tagCircuit: 256, tagUserAgent: transport.MaxUserAgent,
}

const (
	flagHidden = 1 << iota
	flagCompat
	flagEntered
)

var errMalformed = errors.New("handoff: malformed message")

// Append appends the message to b.
func (m *Message) Append(b []byte) []byte {
	b = append(b, format, byte(m.Type))
	b = appendNumber(b, tagNumber, m.Number)
	b = appendNumber(b, tagInstance, m.Instance)
	b = appendText(b, tagNetwork, m.Network)
	b = appendText(b, tagAddress, m.Address)
	b = appendText(b, tagError, m.Error)
	b = appendByte(b, tagErrorKind, byte(m.ErrorKind))
	b = appendByte(b, tagKind, byte(m.Kind))
	b = appendText(b, tagLocalNetwork, m.Local.Net)
	b = appendText(b, tagLocal, m.Local.Text)
	b = appendText(b, tagRemoteNetwork, m.Remote.Net)
	b = appendText(b, tagRemote, m.Remote.Text)
	b = appendText(b, tagTransport, m.Facts.Transport)
	if r := m.Facts.Remote; r.IsValid() {
		ip := r.Addr().AsSlice()
		b = append(b, tagSource, 0, byte(len(ip)+2))
		b = binary.BigEndian.AppendUint16(append(b, ip...), r.Port())
	}
	b = appendText(b, tagCircuit, m.Facts.Circuit)
	var flags byte
	for _, f := range []struct {
		set bool
		bit byte
	}{{m.Facts.Hidden, flagHidden}, {m.Facts.Compat, flagCompat}, {m.Facts.Entered, flagEntered}} {
		if f.set {
			flags |= f.bit
		}
	}
	b = appendByte(b, tagFlags, flags)
	return appendText(b, tagUserAgent, m.Facts.UserAgent)
}

func appendNumber(b []byte, tag byte, v uint64) []byte {
	if v == 0 {
		return b
	}
	return binary.BigEndian.AppendUint64(append(b, tag, 0, 8), v)
}

func appendByte(b []byte, tag, v byte) []byte {
	if v == 0 {
		return b
	}
	return append(b, tag, 0, 1, v)
}

func appendText(b []byte, tag int, s string) []byte {
	if s = transport.Shorten(s, limits[tag]); s == "" {
		return b
	}
	b = binary.BigEndian.AppendUint16(append(b, byte(tag)), uint16(len(s)))
	return append(b, s...)
}

// Parse reads a message. Nothing of b is kept.
func Parse(b []byte) (Message, error) {
	var m Message
	if len(b) < 2 || len(b) > MaxMessage || b[0] != format || b[1] == 0 || Type(b[1]) >= lastType {
		return m, errMalformed
	}
	m.Type = Type(b[1])
	b = b[2:]
	for last := byte(0); len(b) > 0; {
		if len(b) < 3 || b[0] <= last {
			return m, errMalformed
		}
		tag, n := b[0], int(binary.BigEndian.Uint16(b[1:]))
		if last = tag; len(b) < 3+n {
			return m, errMalformed
		}
		if !m.field(int(tag), b[3:3+n]) {
			return m, errMalformed
		}
		b = b[3+n:]
	}
	return m, nil
}

// field sets one field; false: its value is malformed. A zero value is never written.
func (m *Message) field(tag int, v []byte) bool {
	switch tag {
	case tagNumber:
		return number(v, &m.Number)
	case tagInstance:
		return number(v, &m.Instance)
	case tagErrorKind:
		return single(v, (*byte)(&m.ErrorKind), byte(sdk.Closed))
	case tagKind:
		return single(v, (*byte)(&m.Kind), byte(KindSocket))
	case tagSource:
		return m.source(v)
	case tagFlags:
		var flags byte
		ok := single(v, &flags, flagHidden|flagCompat|flagEntered)
		m.Facts.Hidden, m.Facts.Compat, m.Facts.Entered = flags&flagHidden != 0, flags&flagCompat != 0, flags&flagEntered != 0
		return ok
	}
	s := m.text(tag)
	if s == nil {
		return true // added later
	}
	if len(v) == 0 || len(v) > limits[tag] {
		return false
	}
	*s = string(v)
	return true
}

func (m *Message) text(tag int) *string {
	switch tag {
	case tagNetwork:
		return &m.Network
	case tagAddress:
		return &m.Address
	case tagError:
		return &m.Error
	case tagLocalNetwork:
		return &m.Local.Net
	case tagLocal:
		return &m.Local.Text
	case tagRemoteNetwork:
		return &m.Remote.Net
	case tagRemote:
		return &m.Remote.Text
	case tagTransport:
		return &m.Facts.Transport
	case tagCircuit:
		return &m.Facts.Circuit
	case tagUserAgent:
		return &m.Facts.UserAgent
	}
	return nil
}

func (m *Message) source(v []byte) bool {
	if len(v) != 6 && len(v) != 18 {
		return false
	}
	ip, _ := netip.AddrFromSlice(v[:len(v)-2])
	m.Facts.Remote = netip.AddrPortFrom(ip, binary.BigEndian.Uint16(v[len(v)-2:]))
	return true
}

func number(v []byte, to *uint64) bool {
	if len(v) != 8 {
		return false
	}
	*to = binary.BigEndian.Uint64(v)
	return *to != 0
}

func single(v []byte, to *byte, most byte) bool {
	if len(v) != 1 || v[0] == 0 || v[0] > most {
		return false
	}
	*to = v[0]
	return true
}
