package ccp

import (
	"slices"
	"strconv"
	"strings"
)

// ProtocolVersion is the only version of CCP-1 there is.
const ProtocolVersion uint16 = 1

const maxVersion = 1<<16 - 1

// NegotiateVersion chooses the protocol version for a Hello (ccp1.md 3.3). The
// text of its error, an *Error of kind Version, is the reference's.
func NegotiateVersion(h Hello) (uint16, error) {
	if h.SupportedVersions != nil {
		return listedVersion(h.SupportedVersions)
	}
	if h.ProtocolVersion == nil {
		return ProtocolVersion, nil
	}
	v, ok := h.ProtocolVersion.Uint()
	switch {
	case !ok:
		return 0, badVersion("protocol_version must be an unsigned integer")
	case v > maxVersion:
		return 0, badVersion("protocol version " + strconv.FormatUint(v, 10) + " out of range")
	case v != uint64(ProtocolVersion):
		return 0, badVersion("unsupported protocol version " + strconv.FormatUint(v, 10) + "; supported=[1]")
	}
	return ProtocolVersion, nil
}

func listedVersion(list Raw) (uint16, error) {
	if !list.IsArray() {
		return 0, badVersion("supported_versions must be an array")
	}
	var peer []uint64
	for e := range list.Elements() {
		v, ok := e.Uint()
		switch {
		case !ok:
			return 0, badVersion("supported_versions entries must be unsigned integers")
		case v > maxVersion:
			return 0, badVersion("protocol version " + strconv.FormatUint(v, 10) + " out of range")
		}
		peer = append(peer, v)
	}
	switch {
	case len(peer) == 0:
		return 0, badVersion("supported_versions cannot be empty")
	case !slices.Contains(peer, uint64(ProtocolVersion)):
		return 0, badVersion("no common protocol version; peer=" + versionList(peer) + "; supported=[1]")
	}
	return ProtocolVersion, nil
}

// versionList writes at most 16 versions, so that a peer cannot choose the
// length of an error.
func versionList(peer []uint64) string {
	var b strings.Builder
	b.WriteByte('[')
	for i, v := range peer {
		if i > 0 {
			b.WriteString(", ")
		}
		if i == 16 {
			b.WriteString("…")
			break
		}
		b.WriteString(strconv.FormatUint(v, 10))
	}
	return b.String() + "]"
}

func badVersion(detail string) error { return &Error{Kind: Version, Detail: detail} }

// Versions makes the raw list of a Hello's SupportedVersions.
func Versions(list ...uint16) Raw {
	var w writer
	w.open('[')
	for _, v := range list {
		w.elem().uint(uint64(v))
	}
	return w.close(']')
}
