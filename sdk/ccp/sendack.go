package ccp

import "slices"

// Limits of a SendAck.
const (
	// MaxAckRanges is how many ranges a SendAck may have: the window's counters,
	// one by one.
	MaxAckRanges = SendWindow
	// MaxRefusals is how many refusals a SendAck may name; a relay with more
	// spreads them over several frames.
	MaxRefusals = 1024
)

// SendAck is the Ack that answers Sends:
//
//	{"done":[[from,to],…],"log":hex,"refused":[{"counter","device","error"}]}
//
// A done counter is stored for every recipient device or refused for good there,
// and the refusals are named.
type SendAck struct {
	Log [8]byte
	// Done: from and to, both included, in any order.
	Done    [][2]uint64
	Refused []Refusal
}

// Refusal says which recipient device will never have a message, and why.
type Refusal struct {
	Counter uint64
	// Device and Error alias the payload unless they hold escapes. Error is one of
	// the wire codes.
	Device []byte
	Error  []byte
}

// ParseSendAck is SendAck.Parse into a fresh SendAck.
func ParseSendAck(payload []byte) (SendAck, error) {
	var a SendAck
	err := a.Parse(payload)
	return a, err
}

// Parse reads a payload. The former backing arrays of the lists are used again;
// nothing else is allocated unless texts hold escapes. An Ack without the key
// log answers something else (see [ParseReply]) and is an *Error of kind Field.
func (a *SendAck) Parse(payload []byte) error {
	done, refused := a.Done[:0], a.Refused[:0]
	*a = SendAck{Done: done, Refused: refused}
	if err := ValidControl(payload); err != nil {
		return err
	}
	v := trim(payload)
	if !v.IsObject() {
		return badField("ack", "not an object")
	}
	var log, ranges, refusals Raw
	for it := v.list('{'); it.next(); {
		switch string(it.key) {
		case "log":
			log = it.val
		case "done":
			ranges = it.val
		case "refused":
			refusals = it.val
		}
	}
	if !log.Hex(a.Log[:]) {
		return badField("log", "not 16 hex digits")
	}
	var err error
	if ranges != nil {
		if done, err = parseRanges(done, ranges, MaxAckRanges); err != nil {
			return err
		}
	}
	if refusals != nil {
		if refused, err = parseRefusals(refused, refusals); err != nil {
			return err
		}
	}
	a.Done, a.Refused = done, refused
	return nil
}

// parseRanges reads [[from,to],…] with from at most to.
func parseRanges(dst [][2]uint64, v Raw, most int) ([][2]uint64, error) {
	if !v.IsArray() {
		return nil, badField("done", "not an array")
	}
	for it := v.list('['); it.next(); {
		var r [2]uint64
		n := 0
		for pair := Raw(it.val).list('['); pair.next(); n++ {
			u, ok := parseUint(pair.val)
			if !ok || n > 1 {
				return nil, badField("done", "not a pair of unsigned integers")
			}
			r[n] = u
		}
		switch {
		case n != 2 || r[0] > r[1]:
			return nil, badField("done", "not a range")
		case len(dst) == most:
			return nil, badField("done", "too many ranges")
		}
		dst = append(dst, r)
	}
	return dst, nil
}

func parseRefusals(dst []Refusal, v Raw) ([]Refusal, error) {
	if !v.IsArray() {
		return nil, badField("refused", "not an array")
	}
	for it := v.list('['); it.next(); {
		var r Refusal
		var counter, device, code bool
		for m := Raw(it.val).list('{'); m.next(); {
			switch val := Raw(m.val); string(m.key) {
			case "counter":
				r.Counter, counter = val.Uint()
			case "device":
				r.Device, device = val.Bytes()
			case "error":
				r.Error, code = val.Bytes()
			}
		}
		switch {
		case !counter || !device || !code:
			return nil, badField("refused", "counter, device or error missing")
		case len(dst) == MaxRefusals:
			return nil, badField("refused", "too many refusals")
		}
		dst = append(dst, r)
	}
	return dst, nil
}

// AppendSendAck appends the payload, keys sorted, without an empty list of
// refusals. Device and Error must be valid UTF-8. On error (too many ranges or
// refusals) dst is returned unchanged.
func AppendSendAck(dst []byte, a SendAck) ([]byte, error) {
	switch {
	case len(a.Done) > MaxAckRanges:
		return dst, badField("done", "too many ranges")
	case len(a.Refused) > MaxRefusals:
		return dst, badField("refused", "too many refusals")
	}
	for _, r := range a.Done {
		if r[0] > r[1] {
			return dst, badField("done", "not a range")
		}
	}
	w := writer{b: dst}
	w.open('{')
	w.key("done").ranges(a.Done)
	w.key("log").hex(a.Log[:])
	if len(a.Refused) != 0 {
		w.key("refused").open('[')
		for _, r := range a.Refused {
			w.elem().open('{')
			w.key("counter").uint(r.Counter)
			w.key("device")
			w.b = appendQuoted(w.b, r.Device)
			w.key("error")
			w.b = appendQuoted(w.b, r.Error)
			w.close('}')
		}
		w.close(']')
	}
	return w.close('}'), nil
}

// AppendReply appends the Ack of a single frame: {"ack":sequence} and the extra
// members that ccp1.md 6.1 names for its type.
func AppendReply(dst []byte, sequence uint32, extras ...Member) []byte {
	if len(extras) == 0 {
		w := writer{b: dst}
		w.open('{')
		w.key("ack").uint(uint64(sequence))
		return w.close('}')
	}
	return AppendObject(dst, append(slices.Clip(extras), Uint("ack", uint64(sequence)))...)
}

// ParseReply reads the sequence that an Ack of a single frame names. Its extra
// members can be had with [ParseRaw] and Raw.Get.
func ParseReply(payload []byte) (sequence uint32, err error) {
	r, err := readObject(payload, "", MaxControl, "ack")
	if err != nil {
		return 0, err
	}
	return uint32(r.uint("ack", required, MaxSequence)), r.err
}
