package ccp

import (
	"math"
	"slices"
	"strings"
)

// maxCallList bounds each list of a call payload.
const maxCallList = 256

// ParseCallOffer reads a CallOffer payload, strictly as ccp1.md 7.2 says.
func ParseCallOffer(b []byte) (CallOffer, error) {
	r, err := readObject(b, "", MaxControl, "call_id", "ephemeral_key", "expires_at", "from", "media", "metadata", "to", "transport")
	if err != nil {
		return CallOffer{}, err
	}
	o := CallOffer{
		CallID:       r.callID(),
		From:         r.text("from", required),
		To:           r.texts("to", required, maxCallList, nil),
		Media:        DefaultProfile(),
		Metadata:     r.raw("metadata"),
		Transport:    parsed(&r, "transport", optional, parseCallTransport),
		ExpiresAt:    optUint[uint64](&r, "expires_at"),
		EphemeralKey: r.optText("ephemeral_key"),
	}
	if p := parsed(&r, "media", defaulted, parseProfile); p != nil {
		o.Media = *p
	}
	if r.err != nil {
		return CallOffer{}, r.err
	}
	return o, nil
}

// ParseCallAnswer reads a CallAnswer payload.
func ParseCallAnswer(b []byte) (CallAnswer, error) {
	r, err := readObject(b, "", MaxControl, "accept", "audio_source", "call_id", "media", "metadata", "reason",
		"selected_audio_codec", "selected_video_codec", "transport", "video_hardware", "video_source")
	if err != nil {
		return CallAnswer{}, err
	}
	a := CallAnswer{
		CallID:             r.callID(),
		Accept:             r.bool("accept", required),
		Media:              parsed(&r, "media", optional, parseProfile),
		Transport:          parsed(&r, "transport", optional, parseCallTransport),
		Reason:             optEnum[RejectReason](&r, "reason", rejectTexts),
		Metadata:           r.raw("metadata"),
		SelectedAudioCodec: optEnum[AudioCodec](&r, "selected_audio_codec", audioCodecTexts),
		SelectedVideoCodec: optEnum[VideoCodec](&r, "selected_video_codec", videoCodecTexts),
		AudioSource:        optEnum[MediaSource](&r, "audio_source", sourceTexts),
		VideoSource:        optEnum[MediaSource](&r, "video_source", sourceTexts),
		VideoHardware:      optEnum[Hardware](&r, "video_hardware", hardwareTexts),
	}
	if r.err != nil {
		return CallAnswer{}, r.err
	}
	return a, nil
}

// ParseCallEnd reads a CallEnd payload.
func ParseCallEnd(b []byte) (CallEnd, error) {
	r, err := readObject(b, "", MaxControl, "call_id", "metadata", "reason")
	if err != nil {
		return CallEnd{}, err
	}
	e := CallEnd{CallID: r.callID(), Reason: enum(&r, "reason", required, endTexts, EndHangup), Metadata: r.raw("metadata")}
	if r.err != nil {
		return CallEnd{}, r.err
	}
	return e, nil
}

// ParseCallStats reads a CallStats payload.
func ParseCallStats(b []byte) (CallStats, error) {
	r, err := readObject(b, "", MaxControl, "audio", "call_id", "direction", "timestamp", "video")
	if err != nil {
		return CallStats{}, err
	}
	s := CallStats{
		CallID:    r.callID(),
		Direction: enum(&r, "direction", required, directionTexts, DirectionSend),
		Audio:     parsed(&r, "audio", optional, parseStream),
		Video:     parsed(&r, "video", optional, parseStream),
		Timestamp: optUint[uint64](&r, "timestamp"),
	}
	if r.err != nil {
		return CallStats{}, r.err
	}
	return s, nil
}

// ParseTransportUpdate reads a TransportUpdate payload.
func ParseTransportUpdate(b []byte) (TransportUpdate, error) {
	r, err := readObject(b, "", MaxControl, "call_id", "candidate", "interval_secs", "local", "remote", "rtt_ms", "update")
	if err != nil {
		return TransportUpdate{}, err
	}
	u := TransportUpdate{CallID: r.callID()}
	switch r.text("update", required) {
	case "candidate":
		u.Candidate = parsed(&r, "candidate", required, parseCandidate)
	case "selected_candidate_pair":
		u.Selected = &CandidatePair{RTTMS: optUint[uint32](&r, "rtt_ms")}
		if ref := parsed(&r, "local", required, parseRef); ref != nil {
			u.Selected.Local = *ref
		}
		if ref := parsed(&r, "remote", required, parseRef); ref != nil {
			u.Selected.Remote = *ref
		}
	case "consent_keepalive":
		u.Consent = &ConsentKeepalive{IntervalSecs: optUint[uint16](&r, "interval_secs")}
	default:
		r.fail("update", "unknown")
	}
	if r.err != nil {
		return TransportUpdate{}, r.err
	}
	return u, nil
}

// callID is required and, as the relay refuses calls without a name, not empty.
func (r *reader) callID() string {
	id := r.text("call_id", required)
	if id == "" {
		r.fail("call_id", "empty")
	}
	return id
}

// parsed reads a nested structure, nil where it is missing.
func parsed[T any](r *reader, name string, p presence, parse func(*reader) T) *T {
	v, ok := r.value(name, p)
	if !ok {
		return nil
	}
	n, err := pickFor(v, r.full(name), parse)
	r.note(err)
	return n
}

// pickFor gives a structure's parser a reader that knows the keys it asks for.
func pickFor[T any](v Raw, path string, parse func(*reader) T) (*T, error) {
	n := reader{path: path, whole: v}
	if !v.IsObject() {
		return nil, badField(path, "not an object")
	}
	t := parse(&n)
	return &t, n.err
}

// lists reads an array of structures, nil where it is missing or empty.
func lists[T any](r *reader, name string, parse func(*reader) T) []T {
	v, ok := r.value(name, defaulted)
	if !ok {
		return nil
	}
	if !v.IsArray() {
		r.fail(name, "not an array")
		return nil
	}
	var out []T
	for e := range v.Elements() {
		t, err := pickFor(e, r.full(name), parse)
		r.note(err)
		if len(out) == maxCallList {
			r.fail(name, "too long")
		}
		if r.err != nil {
			return nil
		}
		out = append(out, *t)
	}
	return out
}

func enum[E ~uint8](r *reader, name string, p presence, texts []string, missing E) E {
	v, ok := r.value(name, p)
	if !ok {
		return missing
	}
	e, ok := enumOf[E](v, texts)
	if !ok {
		r.fail(name, "none of "+strings.Join(texts, " "))
	}
	return e
}

func enumOf[E ~uint8](v Raw, texts []string) (E, bool) {
	s, ok := v.Text()
	i := slices.Index(texts, s)
	if !ok || i < 0 {
		return 0, false
	}
	return E(i), true
}

func optEnum[E ~uint8](r *reader, name string, texts []string) *E {
	if _, ok := r.value(name, optional); !ok {
		return nil
	}
	return new(enum[E](r, name, required, texts, 0))
}

func enums[E ~uint8](r *reader, name string, texts []string) []E {
	v, ok := r.value(name, defaulted)
	if !ok {
		return nil
	}
	if !v.IsArray() {
		r.fail(name, "not an array")
		return nil
	}
	var out []E
	for e := range v.Elements() {
		x, ok := enumOf[E](e, texts)
		if !ok || len(out) == maxCallList {
			r.fail(name, "has an element that is not allowed")
			return nil
		}
		out = append(out, x)
	}
	return out
}

func num[T uint8 | uint16 | uint32 | uint64](r *reader, name string, p presence) T {
	return T(r.uint(name, p, uint64(^T(0))))
}

func optUint[T uint8 | uint16 | uint32 | uint64](r *reader, name string) *T {
	if _, ok := r.value(name, optional); !ok {
		return nil
	}
	return new(num[T](r, name, required))
}

func parseStream(r *reader) StreamStats {
	r.want("bitrate", "codec", "frames_per_second", "hardware", "jitter_ms", "key_frames", "packet_loss", "rtt_ms", "source")
	return StreamStats{
		Bitrate:         num[uint32](r, "bitrate", required),
		PacketLoss:      r.float32("packet_loss", defaulted),
		JitterMS:        num[uint32](r, "jitter_ms", defaulted),
		RTTMS:           optUint[uint32](r, "rtt_ms"),
		FramesPerSecond: optUint[uint8](r, "frames_per_second"),
		KeyFrames:       optUint[uint32](r, "key_frames"),
		Codec:           r.optText("codec"),
		Source:          optEnum[MediaSource](r, "source", sourceTexts),
		Hardware:        optEnum[Hardware](r, "hardware", hardwareTexts),
	}
}

func parseCallTransport(r *reader) CallTransport {
	r.want("candidates", "consent_interval_secs", "fingerprints", "ice_credentials", "prefer_relay", "trickle", "udp_candidates")
	t := CallTransport{
		PreferRelay:         r.bool("prefer_relay", defaulted),
		Fingerprints:        r.texts("fingerprints", defaulted, maxCallList, nil),
		ICE:                 parsed(r, "ice_credentials", optional, parseICE),
		Trickle:             r.bool("trickle", defaulted),
		ConsentIntervalSecs: optUint[uint16](r, "consent_interval_secs"),
	}
	name := "candidates"
	if r.raw("udp_candidates") != nil {
		if name = "udp_candidates"; r.raw("candidates") != nil {
			r.fail(name, "beside candidates")
		}
	}
	t.Candidates = lists(r, name, parseCandidate)
	return t
}

func parseICE(r *reader) ICECredentials {
	r.want("expires_at", "password", "username_fragment")
	return ICECredentials{
		UsernameFragment: r.text("username_fragment", required),
		Password:         r.text("password", required),
		ExpiresAt:        optUint[uint64](r, "expires_at"),
	}
}

func parseCandidate(r *reader) Candidate {
	r.want("address", "candidate_type", "component", "foundation", "port", "priority", "protocol", "related_address",
		"related_port", "sdp_mid", "sdp_mline_index", "tcp_type", "url")
	return Candidate{
		Address:        r.text("address", required),
		Port:           num[uint16](r, "port", required),
		Protocol:       enum(r, "protocol", defaulted, protocolTexts, CandidateUDP),
		Foundation:     r.optText("foundation"),
		Component:      optUint[uint8](r, "component"),
		Priority:       optUint[uint32](r, "priority"),
		Type:           optEnum[CandidateType](r, "candidate_type", candidateTypeTexts),
		RelatedAddress: r.optText("related_address"),
		RelatedPort:    optUint[uint16](r, "related_port"),
		TCPType:        optEnum[TCPType](r, "tcp_type", tcpTypeTexts),
		SDPMid:         r.optText("sdp_mid"),
		SDPMLineIndex:  optUint[uint16](r, "sdp_mline_index"),
		URL:            r.optText("url"),
	}
}

func parseRef(r *reader) CandidateRef {
	r.want("address", "candidate_type", "foundation", "port", "priority", "protocol")
	return CandidateRef{
		Address:    r.text("address", required),
		Port:       num[uint16](r, "port", required),
		Protocol:   enum(r, "protocol", defaulted, protocolTexts, CandidateUDP),
		Type:       optEnum[CandidateType](r, "candidate_type", candidateTypeTexts),
		Foundation: r.optText("foundation"),
		Priority:   optUint[uint32](r, "priority"),
	}
}

func parseProfile(r *reader) CallProfile {
	r.want("audio", "capabilities", "mode", "video")
	p := CallProfile{
		Video:        parsed(r, "video", optional, parseVideo),
		Mode:         enum(r, "mode", defaulted, callModeTexts, FullDuplex),
		Capabilities: parsed(r, "capabilities", optional, parseMediaCapabilities),
	}
	if a := parsed(r, "audio", required, parseAudio); a != nil {
		p.Audio = *a
	}
	return p
}

func parseAudio(r *reader) AudioProfile {
	r.want("allow_passthrough", "available_codecs", "bitrate", "channels", "codec", "dtx", "fec", "preferred_codecs", "sample_rate", "source")
	return AudioProfile{
		Codec:            enum(r, "codec", required, audioCodecTexts, Opus),
		Bitrate:          num[uint32](r, "bitrate", required),
		SampleRate:       num[uint32](r, "sample_rate", required),
		Channels:         num[uint8](r, "channels", required),
		FEC:              r.bool("fec", defaulted),
		DTX:              r.bool("dtx", defaulted),
		Source:           enum(r, "source", defaulted, sourceTexts, SourceEncoded),
		PreferredCodecs:  enums[AudioCodec](r, "preferred_codecs", audioCodecTexts),
		AvailableCodecs:  lists(r, "available_codecs", parseAudioDescriptor),
		AllowPassthrough: r.bool("allow_passthrough", defaulted),
	}
}

func parseVideo(r *reader) VideoProfile {
	r.want("adaptive", "allow_passthrough", "available_codecs", "capabilities", "codec", "frame_rate", "hardware",
		"max_bitrate", "max_resolution", "preferred_codecs", "source")
	v := VideoProfile{
		Codec:            enum(r, "codec", required, videoCodecTexts, RawI420),
		MaxBitrate:       num[uint32](r, "max_bitrate", required),
		FrameRate:        num[uint8](r, "frame_rate", required),
		Adaptive:         r.bool("adaptive", defaulted),
		Source:           enum(r, "source", defaulted, sourceTexts, SourceEncoded),
		PreferredCodecs:  enums[VideoCodec](r, "preferred_codecs", videoCodecTexts),
		AvailableCodecs:  lists(r, "available_codecs", parseVideoDescriptor),
		Hardware:         enums[Hardware](r, "hardware", hardwareTexts),
		AllowPassthrough: r.bool("allow_passthrough", defaulted),
		Capabilities:     parsed(r, "capabilities", optional, parseMediaCapabilities),
	}
	if res := parsed(r, "max_resolution", required, parseResolution); res != nil {
		v.MaxResolution = *res
	}
	return v
}

func parseResolution(r *reader) Resolution {
	r.want("height", "width")
	return Resolution{Width: num[uint16](r, "width", required), Height: num[uint16](r, "height", required)}
}

func parseAudioDescriptor(r *reader) AudioDescriptor {
	r.want("bitrate", "channels", "codec", "priority", "sample_rate")
	return AudioDescriptor{
		Codec:      enum(r, "codec", required, audioCodecTexts, Opus),
		Bitrate:    optUint[uint32](r, "bitrate"),
		SampleRate: optUint[uint32](r, "sample_rate"),
		Channels:   optUint[uint8](r, "channels"),
		Priority:   num[uint8](r, "priority", defaulted),
	}
}

func parseVideoDescriptor(r *reader) VideoDescriptor {
	r.want("codec", "frame_rate", "hardware", "max_bitrate", "max_resolution", "priority", "supports_scalability")
	return VideoDescriptor{
		Codec:               enum(r, "codec", required, videoCodecTexts, RawI420),
		MaxBitrate:          optUint[uint32](r, "max_bitrate"),
		MaxResolution:       parsed(r, "max_resolution", optional, parseResolution),
		FrameRate:           optUint[uint8](r, "frame_rate"),
		Hardware:            enums[Hardware](r, "hardware", hardwareTexts),
		Priority:            num[uint8](r, "priority", defaulted),
		SupportsScalability: r.bool("supports_scalability", defaulted),
	}
}

func parseMediaCapabilities(r *reader) MediaCapabilities {
	r.want("allow_raw_audio", "allow_raw_video", "audio", "video")
	return MediaCapabilities{
		Audio:         lists(r, "audio", parseAudioDescriptor),
		Video:         lists(r, "video", parseVideoDescriptor),
		AllowRawAudio: r.bool("allow_raw_audio", defaulted),
		AllowRawVideo: r.bool("allow_raw_video", defaulted),
	}
}

// Transcodable says whether the reference's relay accepts the sound of an offer
// ("yields a transcoder", ccp1.md 7.3): opus needs one of five sample rates, one or
// two channels and a bitrate from 1 to 2^31-1.
func (a AudioProfile) Transcodable() bool {
	if a.Codec != Opus {
		return true
	}
	rate := slices.Contains([]uint32{8000, 12000, 16000, 24000, 48000}, a.SampleRate)
	return rate && (a.Channels == 1 || a.Channels == 2) && a.Bitrate >= 1 && a.Bitrate <= math.MaxInt32
}
