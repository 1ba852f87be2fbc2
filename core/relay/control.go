package relay

import (
	"errors"

	"github.com/commucat/commucat/core/call"
	"github.com/commucat/commucat/sdk/ccp"
)

// senderKeys are the keys of control frames that name who sends, in the order in
// which existing clients look at them; the first present one counts (ccp1.md
// 9.6). A frame without any gets the first.
func senderKeys(t ccp.Type) []string {
	switch t {
	case ccp.TypeTyping:
		return []string{"device", "device_id", "sender"}
	case ccp.TypeGroupEvent, ccp.TypeKeyUpdate:
		return []string{"sender", "from"}
	case ccp.TypeCallOffer:
		return []string{"from"}
	}
	return nil
}

// inspect checks a relayed frame that is not a message: sender fields are
// validated and filled in (W15), calls follow their state (section 7), media
// its call. It gives the body to relay.
func (l *Link) inspect(channel uint32, t ccp.Type, body []byte, rt *route) ([]byte, error) {
	if t.Media() {
		return body, callRefusal(l.h.calls.Media(l.device, channel, t, body))
	}
	if !t.Control() {
		return body, nil
	}
	if err := l.checkSender(t, body); err != nil {
		return nil, err
	}
	calls := l.h.calls
	var err error
	switch t {
	case ccp.TypeCallOffer:
		members := make([]string, 0, len(rt.to))
		for _, r := range rt.to {
			if !r.copy {
				members = append(members, r.device)
			}
		}
		err = calls.Offer(l.device, l.user, channel, members, body)
	case ccp.TypeCallAnswer:
		err = calls.Answer(l.device, channel, body)
	case ccp.TypeCallEnd:
		err = calls.End(l.device, channel, body)
	case ccp.TypeCallStats:
		err = calls.Stats(l.device, channel, body)
	case ccp.TypeTransportUpdate:
		err = calls.Transport(l.device, channel, body)
	case ccp.TypeTyping, ccp.TypeGroupEvent, ccp.TypeKeyUpdate:
		keys := senderKeys(t)
		return fillSender(body, keys, l.device), nil
	}
	if err != nil {
		return nil, callRefusal(err)
	}
	return canonical(body), nil
}

func callRefusal(err error) error {
	var e *call.Error
	if errors.As(err, &e) {
		return refuse(e.Code, e.Detail)
	}
	return err
}

// checkSender refuses a frame that names somebody else as its sender.
func (l *Link) checkSender(t ccp.Type, body []byte) error {
	raw, err := ccp.ParseRaw(body)
	if err != nil {
		return refuse(CodeBadRequest, err.Error())
	}
	if !raw.IsObject() {
		if t == ccp.TypeTyping {
			return refuse(CodeBadRequest, "not an object")
		}
		return nil
	}
	for _, key := range senderKeys(t) {
		v := raw.Get(key)
		if v == nil {
			continue
		}
		if name, ok := v.Text(); !ok || name != l.device && name != l.user {
			return refuse(CodeBadSender, key)
		}
	}
	return nil
}

// fillSender adds the sender's device where no key names one.
func fillSender(body []byte, keys []string, device string) []byte {
	raw, err := ccp.ParseRaw(body)
	if err != nil || !raw.IsObject() {
		return canonical(body)
	}
	for _, key := range keys {
		if raw.Get(key) != nil {
			return canonical(body)
		}
	}
	return fill(body, ccp.Text(keys[0], device))
}

// ackExtras are the keys that the reference adds to the Ack of a frame (ccp1.md
// 6.1).
func ackExtras(t ccp.Type, body []byte) []ccp.Member {
	var keys []string
	switch t {
	case ccp.TypeCallOffer:
		keys = []string{"call_id"}
	case ccp.TypeCallAnswer:
		keys = []string{"call_id", "accept", "reason"}
	case ccp.TypeCallEnd:
		keys = []string{"call_id", "reason"}
	case ccp.TypeCallStats:
		keys = []string{"call_id", "direction"}
	case ccp.TypeTransportUpdate:
		keys = []string{"call_id", "update"}
	default:
		return nil
	}
	raw, err := ccp.ParseRaw(body)
	if err != nil {
		return nil
	}
	out := make([]ccp.Member, 0, len(keys)+1)
	for _, k := range keys {
		if v := raw.Get(k); v != nil && !v.IsNull() {
			out = append(out, ccp.Member{Key: k, Value: append(ccp.Raw(nil), v...)})
		}
	}
	return out
}

// safeForPlain says whether the existing client survives a message, and brings
// it into the form that it expects (ccp1.md 9.6).
func safeForPlain(d *Delivery) bool {
	switch d.Kind {
	case ccp.TypeMsg, ccp.TypeKeyUpdate, ccp.TypeGroupEvent, ccp.TypeLeave, ccp.TypeError:
		return true
	case ccp.TypeTransportUpdate:
		return false
	case ccp.TypeVoiceFrame, ccp.TypeVideoFrame:
		// Its decoder takes the whole payload: without the packet's head.
		h, data, err := ccp.ParseMedia(d.Kind, d.Body)
		if err != nil || h.Source != ccp.SourceEncoded || !plainCodec(d.Kind, h.Codec) {
			return false
		}
		d.Body = data
		return true
	case ccp.TypeCallOffer, ccp.TypeCallAnswer, ccp.TypeCallEnd, ccp.TypeCallStats:
		return plainCall(d.Kind, d.Body)
	}
	raw, err := ccp.ParseRaw(d.Body)
	if err != nil || !raw.IsObject() {
		return false
	}
	switch d.Kind {
	case ccp.TypeTyping:
		return firstIsText(raw, "device", "device_id", "sender") && !tooLong(raw)
	case ccp.TypePresence:
		return firstIsText(raw, "entity")
	case ccp.TypeGroupInvite:
		return firstIsText(raw, "group_id") && firstIsText(raw, "device", "member") && cuttable(raw, "group_id")
	case ccp.TypeJoin, ccp.TypeGroupCreate:
		return cuttable(raw, "group_id")
	}
	return false
}

func firstIsText(raw ccp.Raw, keys ...string) bool {
	for _, k := range keys {
		if v := raw.Get(k); v != nil {
			_, ok := v.Text()
			return ok
		}
	}
	return false
}

// tooLong: an absurd life overflows the client's date arithmetic.
func tooLong(raw ccp.Raw) bool {
	const day = 24 * 60 * 60 * 1000
	for _, k := range []string{"ttl_ms", "expires_in"} {
		if v := raw.Get(k); v != nil {
			if n, ok := v.Uint(); ok && n > day {
				return true
			}
		}
	}
	return false
}

// cuttable: ids over 16 bytes are cut by bytes for display and must be ASCII.
func cuttable(raw ccp.Raw, key string) bool {
	s, _ := raw.Get(key).Text()
	return len(s) <= 16 || ascii(s)
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

func plainCodec(t ccp.Type, codec uint8) bool {
	if t == ccp.TypeVoiceFrame {
		return ccp.AudioCodec(codec) == ccp.Opus
	}
	return ccp.VideoCodec(codec) == ccp.VP8 || ccp.VideoCodec(codec) == ccp.VP9
}

// plainCall asks for the structures of the 1.0.41 client: its codecs only, and a
// call id of at least 8 bytes.
func plainCall(t ccp.Type, body []byte) bool {
	var id string
	var profile *ccp.CallProfile
	switch t {
	case ccp.TypeCallOffer:
		o, err := ccp.ParseCallOffer(body)
		if err != nil {
			return false
		}
		id, profile = o.CallID, &o.Media
	case ccp.TypeCallAnswer:
		a, err := ccp.ParseCallAnswer(body)
		if err != nil {
			return false
		}
		id, profile = a.CallID, a.Media
	case ccp.TypeCallEnd:
		e, err := ccp.ParseCallEnd(body)
		if err != nil {
			return false
		}
		id = e.CallID
	case ccp.TypeCallStats:
		s, err := ccp.ParseCallStats(body)
		if err != nil {
			return false
		}
		id = s.CallID
	}
	if len(id) < 8 || len(id) > 16 && !ascii(id) {
		return false
	}
	if profile == nil {
		return true
	}
	a := profile.Audio
	if a.Codec != ccp.Opus || a.Channels < 1 || a.Channels > 2 {
		return false
	}
	return profile.Video == nil || profile.Video.Codec == ccp.VP8 || profile.Video.Codec == ccp.VP9
}
