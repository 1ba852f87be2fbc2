package ccp

// Marshal writes the payload, keys sorted, what is nil left out.
func (o CallOffer) Marshal() []byte {
	w := writer{}
	w.open('{')
	w.key("call_id").text(o.CallID)
	putText(&w, "ephemeral_key", o.EphemeralKey)
	putUint(&w, "expires_at", o.ExpiresAt)
	w.key("from").text(o.From)
	w.key("media").profile(o.Media)
	w.optRaw("metadata", o.Metadata)
	w.key("to").texts(o.To)
	putValue(&w, "transport", o.Transport, (*writer).callTransport)
	return w.close('}')
}

// Marshal writes the payload, keys sorted, what is nil left out.
func (a CallAnswer) Marshal() []byte {
	w := writer{}
	w.open('{')
	w.key("accept").bool(a.Accept)
	putEnum(&w, "audio_source", a.AudioSource)
	w.key("call_id").text(a.CallID)
	putValue(&w, "media", a.Media, (*writer).profile)
	w.optRaw("metadata", a.Metadata)
	putEnum(&w, "reason", a.Reason)
	putEnum(&w, "selected_audio_codec", a.SelectedAudioCodec)
	putEnum(&w, "selected_video_codec", a.SelectedVideoCodec)
	putValue(&w, "transport", a.Transport, (*writer).callTransport)
	putEnum(&w, "video_hardware", a.VideoHardware)
	putEnum(&w, "video_source", a.VideoSource)
	return w.close('}')
}

// Marshal writes the payload, keys sorted.
func (e CallEnd) Marshal() []byte {
	w := writer{}
	w.open('{')
	w.key("call_id").text(e.CallID)
	w.optRaw("metadata", e.Metadata)
	w.key("reason").text(e.Reason.String())
	return w.close('}')
}

// Marshal writes the payload, keys sorted, what is nil left out.
func (s CallStats) Marshal() []byte {
	w := writer{}
	w.open('{')
	putValue(&w, "audio", s.Audio, (*writer).stream)
	w.key("call_id").text(s.CallID)
	w.key("direction").text(s.Direction.String())
	putUint(&w, "timestamp", s.Timestamp)
	putValue(&w, "video", s.Video, (*writer).stream)
	return w.close('}')
}

// Marshal writes the payload, keys sorted. Without any of the three it writes a
// consent keep-alive.
func (u TransportUpdate) Marshal() []byte {
	w := writer{}
	w.open('{')
	w.key("call_id").text(u.CallID)
	switch {
	case u.Candidate != nil:
		w.key("candidate").candidate(*u.Candidate)
		w.key("update").text("candidate")
	case u.Selected != nil:
		w.key("local").ref(u.Selected.Local)
		w.key("remote").ref(u.Selected.Remote)
		putUint(&w, "rtt_ms", u.Selected.RTTMS)
		w.key("update").text("selected_candidate_pair")
	default:
		if u.Consent != nil {
			putUint(&w, "interval_secs", u.Consent.IntervalSecs)
		}
		w.key("update").text("consent_keepalive")
	}
	return w.close('}')
}

func putText(w *writer, name string, v *string) {
	if v != nil {
		w.key(name).text(*v)
	}
}

func putUint[T uint8 | uint16 | uint32 | uint64](w *writer, name string, v *T) {
	if v != nil {
		w.key(name).uint(uint64(*v))
	}
}

type stringer interface {
	~uint8
	String() string
}

func putEnum[E stringer](w *writer, name string, v *E) {
	if v != nil {
		w.key(name).text((*v).String())
	}
}

func putValue[T any](w *writer, name string, v *T, put func(*writer, T)) {
	if v != nil {
		put(w.key(name), *v)
	}
}

func putEnums[E stringer](w *writer, name string, list []E) {
	if len(list) == 0 {
		return
	}
	w.key(name).open('[')
	for _, e := range list {
		w.elem().text(e.String())
	}
	w.close(']')
}

func putList[T any](w *writer, name string, list []T, put func(*writer, T)) {
	if len(list) == 0 {
		return
	}
	w.key(name).open('[')
	for _, v := range list {
		put(w.elem(), v)
	}
	w.close(']')
}

func putFlag(w *writer, name string, v bool) {
	if v {
		w.key(name).bool(true)
	}
}

func (w *writer) stream(s StreamStats) {
	w.open('{')
	w.key("bitrate").uint(uint64(s.Bitrate))
	putText(w, "codec", s.Codec)
	putUint(w, "frames_per_second", s.FramesPerSecond)
	putEnum(w, "hardware", s.Hardware)
	w.key("jitter_ms").uint(uint64(s.JitterMS))
	putUint(w, "key_frames", s.KeyFrames)
	w.key("packet_loss").float32(s.PacketLoss)
	putUint(w, "rtt_ms", s.RTTMS)
	putEnum(w, "source", s.Source)
	w.close('}')
}

func (w *writer) callTransport(t CallTransport) {
	w.open('{')
	putList(w, "candidates", t.Candidates, (*writer).candidate)
	putUint(w, "consent_interval_secs", t.ConsentIntervalSecs)
	if len(t.Fingerprints) != 0 {
		w.key("fingerprints").texts(t.Fingerprints)
	}
	if c := t.ICE; c != nil {
		w.key("ice_credentials").open('{')
		putUint(w, "expires_at", c.ExpiresAt)
		w.key("password").text(c.Password)
		w.key("username_fragment").text(c.UsernameFragment)
		w.close('}')
	}
	putFlag(w, "prefer_relay", t.PreferRelay)
	putFlag(w, "trickle", t.Trickle)
	w.close('}')
}

func (w *writer) candidate(c Candidate) {
	w.open('{')
	w.key("address").text(c.Address)
	putEnum(w, "candidate_type", c.Type)
	putUint(w, "component", c.Component)
	putText(w, "foundation", c.Foundation)
	w.key("port").uint(uint64(c.Port))
	putUint(w, "priority", c.Priority)
	w.key("protocol").text(c.Protocol.String())
	putText(w, "related_address", c.RelatedAddress)
	putUint(w, "related_port", c.RelatedPort)
	putText(w, "sdp_mid", c.SDPMid)
	putUint(w, "sdp_mline_index", c.SDPMLineIndex)
	putEnum(w, "tcp_type", c.TCPType)
	putText(w, "url", c.URL)
	w.close('}')
}

func (w *writer) ref(c CandidateRef) {
	w.open('{')
	w.key("address").text(c.Address)
	putEnum(w, "candidate_type", c.Type)
	putText(w, "foundation", c.Foundation)
	w.key("port").uint(uint64(c.Port))
	putUint(w, "priority", c.Priority)
	w.key("protocol").text(c.Protocol.String())
	w.close('}')
}

func (w *writer) profile(p CallProfile) {
	w.open('{')
	w.key("audio").audio(p.Audio)
	putValue(w, "capabilities", p.Capabilities, (*writer).mediaCapabilities)
	w.key("mode").text(p.Mode.String())
	putValue(w, "video", p.Video, (*writer).video)
	w.close('}')
}

func (w *writer) audio(a AudioProfile) {
	w.open('{')
	putFlag(w, "allow_passthrough", a.AllowPassthrough)
	putList(w, "available_codecs", a.AvailableCodecs, (*writer).audioDescriptor)
	w.key("bitrate").uint(uint64(a.Bitrate))
	w.key("channels").uint(uint64(a.Channels))
	w.key("codec").text(a.Codec.String())
	w.key("dtx").bool(a.DTX)
	w.key("fec").bool(a.FEC)
	putEnums(w, "preferred_codecs", a.PreferredCodecs)
	w.key("sample_rate").uint(uint64(a.SampleRate))
	w.key("source").text(a.Source.String())
	w.close('}')
}

func (w *writer) video(v VideoProfile) {
	w.open('{')
	w.key("adaptive").bool(v.Adaptive)
	putFlag(w, "allow_passthrough", v.AllowPassthrough)
	putList(w, "available_codecs", v.AvailableCodecs, (*writer).videoDescriptor)
	putValue(w, "capabilities", v.Capabilities, (*writer).mediaCapabilities)
	w.key("codec").text(v.Codec.String())
	w.key("frame_rate").uint(uint64(v.FrameRate))
	putEnums(w, "hardware", v.Hardware)
	w.key("max_bitrate").uint(uint64(v.MaxBitrate))
	w.key("max_resolution").resolution(v.MaxResolution)
	putEnums(w, "preferred_codecs", v.PreferredCodecs)
	w.key("source").text(v.Source.String())
	w.close('}')
}

func (w *writer) resolution(r Resolution) {
	w.open('{')
	w.key("height").uint(uint64(r.Height))
	w.key("width").uint(uint64(r.Width))
	w.close('}')
}

func (w *writer) audioDescriptor(d AudioDescriptor) {
	w.open('{')
	putUint(w, "bitrate", d.Bitrate)
	putUint(w, "channels", d.Channels)
	w.key("codec").text(d.Codec.String())
	w.key("priority").uint(uint64(d.Priority))
	putUint(w, "sample_rate", d.SampleRate)
	w.close('}')
}

func (w *writer) videoDescriptor(d VideoDescriptor) {
	w.open('{')
	w.key("codec").text(d.Codec.String())
	putUint(w, "frame_rate", d.FrameRate)
	putEnums(w, "hardware", d.Hardware)
	putUint(w, "max_bitrate", d.MaxBitrate)
	putValue(w, "max_resolution", d.MaxResolution, (*writer).resolution)
	w.key("priority").uint(uint64(d.Priority))
	putFlag(w, "supports_scalability", d.SupportsScalability)
	w.close('}')
}

func (w *writer) mediaCapabilities(c MediaCapabilities) {
	w.open('{')
	putFlag(w, "allow_raw_audio", c.AllowRawAudio)
	putFlag(w, "allow_raw_video", c.AllowRawVideo)
	putList(w, "audio", c.Audio, (*writer).audioDescriptor)
	putList(w, "video", c.Video, (*writer).videoDescriptor)
	w.close('}')
}
