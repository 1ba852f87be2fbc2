package ws

import (
	"encoding/binary"
	"errors"
)

// Frame layout, RFC 6455 section 5.2:
//
//	byte 0   FIN 0x80 | RSV 0x70 | opcode 0x0f
//	byte 1   MASK 0x80 | length 0..125, 126: u16 follows, 127: u64 follows
//	         big endian length, masking key (4) if MASK, payload
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xa

	bitFin  = 0x80
	bitRSV  = 0x70
	bitMask = 0x80

	maxHeader  = 14
	maxControl = 125
)

// ErrProtocol is a peer that breaks RFC 6455.
var ErrProtocol = errors.New("ws: protocol error")

// header is a frame's head.
type header struct {
	fin    bool
	opcode byte
	masked bool
	length uint64
	mask   [4]byte
}

// headerSize says how long the head is that begins with b, of which two bytes
// must be there.
func headerSize(b []byte) int {
	n := 2
	switch b[1] &^ bitMask {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if b[1]&bitMask != 0 {
		n += 4
	}
	return n
}

// parseHeader reads a whole head. It refuses reserved bits and opcodes, long
// or fragmented control frames, and lengths that are not in their shortest
// form or have the top bit.
func parseHeader(b []byte) (header, error) {
	if len(b) < 2 || len(b) < headerSize(b) {
		return header{}, ErrProtocol
	}
	h := header{
		fin:    b[0]&bitFin != 0,
		opcode: b[0] & 0x0f,
		masked: b[1]&bitMask != 0,
		length: uint64(b[1] &^ bitMask),
	}
	if b[0]&bitRSV != 0 {
		return header{}, ErrProtocol
	}
	rest := b[2:]
	switch h.length {
	case 126:
		if h.length = uint64(binary.BigEndian.Uint16(rest)); h.length < 126 {
			return header{}, ErrProtocol
		}
		rest = rest[2:]
	case 127:
		if h.length = binary.BigEndian.Uint64(rest); h.length < 1<<16 || h.length >= 1<<63 {
			return header{}, ErrProtocol
		}
		rest = rest[8:]
	}
	if h.masked {
		copy(h.mask[:], rest)
	}
	switch h.opcode {
	case opContinuation, opText, opBinary:
	case opClose, opPing, opPong:
		if !h.fin || h.length > maxControl {
			return header{}, ErrProtocol
		}
	default:
		return header{}, ErrProtocol
	}
	return h, nil
}

// appendHeader writes a head in its shortest form.
func appendHeader(dst []byte, h header) []byte {
	b0, b1 := h.opcode, byte(0)
	if h.fin {
		b0 |= bitFin
	}
	if h.masked {
		b1 = bitMask
	}
	switch {
	case h.length < 126:
		dst = append(dst, b0, b1|byte(h.length))
	case h.length < 1<<16:
		dst = binary.BigEndian.AppendUint16(append(dst, b0, b1|126), uint16(h.length))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, b0, b1|127), h.length)
	}
	if h.masked {
		dst = append(dst, h.mask[:]...)
	}
	return dst
}

// xor masks b, whose first byte is at position pos of the payload, and returns
// the position after it.
func xor(mask [4]byte, pos int, b []byte) int {
	next := (pos + len(b)) & 3
	for len(b) > 0 && pos&3 != 0 {
		b[0] ^= mask[pos&3]
		b, pos = b[1:], pos+1
	}
	m32 := uint64(binary.LittleEndian.Uint32(mask[:]))
	m64 := m32<<32 | m32
	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^m64)
		b = b[8:]
	}
	for i := range b {
		b[i] ^= mask[i&3]
	}
	return next
}
