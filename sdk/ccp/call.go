package ccp

// The call signalling of ccp1.md 7. A pointer that is nil stands for a key that is
// missing or null; "may be missing" elsewhere is the zero value, except where a
// default is named. Unknown keys are ignored when read: a relay forwards the
// payload, not what it made of it.

// CallMode says whether both sides may speak at once.
type CallMode uint8

// The modes.
const (
	FullDuplex CallMode = iota
	HalfDuplex
)

// AudioCodec has the byte codes of media packets.
type AudioCodec uint8

// The audio codecs.
const (
	Opus AudioCodec = iota
	RawPCM
)

// VideoCodec has the byte codes of media packets.
type VideoCodec uint8

// The video codecs.
const (
	RawI420 VideoCodec = iota
	VP8
	VP9
	H264Baseline
	H264Main
	H265Main
	AV1Main
)

// MediaSource has the byte codes of media packets.
type MediaSource uint8

// The sources.
const (
	SourceEncoded MediaSource = iota
	SourceRaw
	SourceHybrid
)

// Hardware is what encodes video.
type Hardware uint8

// The kinds of hardware.
const (
	HardwareCPU Hardware = iota
	HardwareNvidia
	HardwareAMD
	HardwareIntel
	HardwareApple
)

// CandidateProtocol is a candidate's transport; UDP where it is not named.
type CandidateProtocol uint8

// The protocols.
const (
	CandidateTCP CandidateProtocol = iota
	CandidateUDP
)

// CandidateType is where a candidate's address comes from.
type CandidateType uint8

// The types.
const (
	CandidateHost CandidateType = iota
	CandidateServerReflexive
	CandidatePeerReflexive
	CandidateRelay
)

// TCPType is the role of a TCP candidate.
type TCPType uint8

// The roles.
const (
	TCPActive TCPType = iota
	TCPPassive
	TCPSimultaneous
)

// RejectReason is why a call was not taken.
type RejectReason uint8

// The reasons.
const (
	RejectBusy RejectReason = iota
	RejectDecline
	RejectUnsupported
	RejectTimeout
	RejectError
)

// EndReason is why a call ended.
type EndReason uint8

// The reasons.
const (
	EndHangup EndReason = iota
	EndCancel
	EndFailure
	EndTimeout
)

// Direction is seen from the device that reports.
type Direction uint8

// The directions.
const (
	DirectionSend Direction = iota
	DirectionReceive
)

var (
	callModeTexts      = []string{"full_duplex", "half_duplex"}
	audioCodecTexts    = []string{"opus", "raw_pcm"}
	videoCodecTexts    = []string{"raw_i420", "vp8", "vp9", "h264_baseline", "h264_main", "h265_main", "av1_main"}
	sourceTexts        = []string{"encoded", "raw", "hybrid"}
	hardwareTexts      = []string{"cpu", "nvidia", "amd", "intel", "apple"}
	protocolTexts      = []string{"tcp", "udp"}
	candidateTypeTexts = []string{"host", "srflx", "prflx", "relay"}
	tcpTypeTexts       = []string{"active", "passive", "so"}
	rejectTexts        = []string{"busy", "decline", "unsupported", "timeout", "error"}
	endTexts           = []string{"hangup", "cancel", "failure", "timeout"}
	directionTexts     = []string{"send", "receive"}
)

func enumText[E ~uint8](texts []string, e E) string {
	if int(e) < len(texts) {
		return texts[e]
	}
	return "unknown"
}

// String is the JSON text.
func (m CallMode) String() string { return enumText(callModeTexts, m) }

// String is the JSON text.
func (c AudioCodec) String() string { return enumText(audioCodecTexts, c) }

// String is the JSON text.
func (c VideoCodec) String() string { return enumText(videoCodecTexts, c) }

// String is the JSON text.
func (s MediaSource) String() string { return enumText(sourceTexts, s) }

// String is the JSON text.
func (h Hardware) String() string { return enumText(hardwareTexts, h) }

// String is the JSON text.
func (p CandidateProtocol) String() string { return enumText(protocolTexts, p) }

// String is the JSON text.
func (t CandidateType) String() string { return enumText(candidateTypeTexts, t) }

// String is the JSON text.
func (t TCPType) String() string { return enumText(tcpTypeTexts, t) }

// String is the JSON text.
func (r RejectReason) String() string { return enumText(rejectTexts, r) }

// String is the JSON text.
func (r EndReason) String() string { return enumText(endTexts, r) }

// String is the JSON text.
func (d Direction) String() string { return enumText(directionTexts, d) }

// CallOffer starts a call.
type CallOffer struct {
	CallID string
	From   string
	To     []string
	// Media is DefaultProfile where the payload has none.
	Media CallProfile
	// Metadata is any JSON; nil when absent.
	Metadata     Raw
	Transport    *CallTransport
	ExpiresAt    *uint64
	EphemeralKey *string
}

// CallAnswer takes or rejects a call.
type CallAnswer struct {
	CallID             string
	Accept             bool
	Media              *CallProfile
	Transport          *CallTransport
	Reason             *RejectReason
	Metadata           Raw
	SelectedAudioCodec *AudioCodec
	SelectedVideoCodec *VideoCodec
	AudioSource        *MediaSource
	VideoSource        *MediaSource
	VideoHardware      *Hardware
}

// CallEnd ends a call.
type CallEnd struct {
	CallID   string
	Reason   EndReason
	Metadata Raw
}

// CallStats reports on a running call.
type CallStats struct {
	CallID    string
	Direction Direction
	Audio     *StreamStats
	Video     *StreamStats
	Timestamp *uint64
}

// StreamStats reports on one stream: bits per second, percent or share as the
// client measures loss, milliseconds.
type StreamStats struct {
	Bitrate         uint32
	PacketLoss      float32
	JitterMS        uint32
	RTTMS           *uint32
	FramesPerSecond *uint8
	KeyFrames       *uint32
	Codec           *string
	Source          *MediaSource
	Hardware        *Hardware
}

// TransportUpdate is news of the path between two devices: exactly one of the
// three is not nil.
type TransportUpdate struct {
	CallID    string
	Candidate *Candidate
	Selected  *CandidatePair
	Consent   *ConsentKeepalive
}

// CandidatePair is the pair of addresses that won.
type CandidatePair struct {
	Local  CandidateRef
	Remote CandidateRef
	RTTMS  *uint32
}

// ConsentKeepalive changes the interval of consent checks.
type ConsentKeepalive struct {
	IntervalSecs *uint16
}

// CallTransport says how to reach a device.
type CallTransport struct {
	PreferRelay bool
	// Candidates are read from udp_candidates too, never from both.
	Candidates          []Candidate
	Fingerprints        []string
	ICE                 *ICECredentials
	Trickle             bool
	ConsentIntervalSecs *uint16
}

// ICECredentials are those of RFC 8445; ExpiresAt is in unix seconds.
type ICECredentials struct {
	UsernameFragment string
	Password         string
	ExpiresAt        *uint64
}

// Candidate is an address of RFC 8445.
type Candidate struct {
	Address        string
	Port           uint16
	Protocol       CandidateProtocol
	Foundation     *string
	Component      *uint8
	Priority       *uint32
	Type           *CandidateType
	RelatedAddress *string
	RelatedPort    *uint16
	TCPType        *TCPType
	SDPMid         *string
	SDPMLineIndex  *uint16
	URL            *string
}

// CandidateRef names a candidate.
type CandidateRef struct {
	Address    string
	Port       uint16
	Protocol   CandidateProtocol
	Type       *CandidateType
	Foundation *string
	Priority   *uint32
}

// CallProfile is the media of a call.
type CallProfile struct {
	Audio        AudioProfile
	Video        *VideoProfile
	Mode         CallMode
	Capabilities *MediaCapabilities
}

// AudioProfile describes sound: bits per second, hertz.
type AudioProfile struct {
	Codec            AudioCodec
	Bitrate          uint32
	SampleRate       uint32
	Channels         uint8
	FEC              bool
	DTX              bool
	Source           MediaSource
	PreferredCodecs  []AudioCodec
	AvailableCodecs  []AudioDescriptor
	AllowPassthrough bool
}

// VideoProfile describes pictures: bits per second, pixels, frames per second.
type VideoProfile struct {
	Codec            VideoCodec
	MaxBitrate       uint32
	MaxResolution    Resolution
	FrameRate        uint8
	Adaptive         bool
	Source           MediaSource
	PreferredCodecs  []VideoCodec
	AvailableCodecs  []VideoDescriptor
	Hardware         []Hardware
	AllowPassthrough bool
	Capabilities     *MediaCapabilities
}

// Resolution is in pixels.
type Resolution struct {
	Width  uint16
	Height uint16
}

// AudioDescriptor is one way to encode sound.
type AudioDescriptor struct {
	Codec      AudioCodec
	Bitrate    *uint32
	SampleRate *uint32
	Channels   *uint8
	Priority   uint8
}

// VideoDescriptor is one way to encode pictures.
type VideoDescriptor struct {
	Codec               VideoCodec
	MaxBitrate          *uint32
	MaxResolution       *Resolution
	FrameRate           *uint8
	Hardware            []Hardware
	Priority            uint8
	SupportsScalability bool
}

// MediaCapabilities is what a device could do.
type MediaCapabilities struct {
	Audio         []AudioDescriptor
	Video         []VideoDescriptor
	AllowRawAudio bool
	AllowRawVideo bool
}

// DefaultProfile is the media of an offer that names none.
func DefaultProfile() CallProfile {
	return CallProfile{Audio: AudioProfile{
		Codec: Opus, Bitrate: 16000, SampleRate: 48000, Channels: 1, FEC: true, DTX: true, Source: SourceRaw,
		PreferredCodecs: []AudioCodec{Opus},
		AvailableCodecs: []AudioDescriptor{{
			Codec: Opus, Bitrate: new(uint32(16000)), SampleRate: new(uint32(48000)), Channels: new(uint8(1)), Priority: 100,
		}},
	}}
}

// MediaVersion is the first byte of a media packet.
const MediaVersion = 1

// MediaHeader is the head of a Voice or Video payload during a call (ccp1.md 7.4):
//
//	version u8 = 1 | source u8 | codec u8 | data
type MediaHeader struct {
	Source MediaSource
	// Codec is an AudioCodec or a VideoCodec, by the type of the frame.
	Codec uint8
}

// ParseMedia reads a Voice or Video payload; data aliases it. It allocates only if
// it fails, with an *Error of kind Field or Truncated.
func ParseMedia(t Type, payload []byte) (h MediaHeader, data []byte, err error) {
	if len(payload) < 3 {
		return MediaHeader{}, nil, &Error{Kind: Truncated, Field: "media"}
	}
	codecs := len(audioCodecTexts)
	if t == TypeVideoFrame {
		codecs = len(videoCodecTexts)
	}
	h = MediaHeader{Source: MediaSource(payload[1]), Codec: payload[2]}
	switch {
	case payload[0] != MediaVersion:
		return MediaHeader{}, nil, badField("version", "not 1")
	case int(h.Source) >= len(sourceTexts):
		return MediaHeader{}, nil, badField("source", "unknown")
	case int(h.Codec) >= codecs:
		return MediaHeader{}, nil, badField("codec", "unknown")
	}
	return h, payload[3:], nil
}

// Append appends the three bytes.
func (h MediaHeader) Append(dst []byte) []byte {
	return append(dst, MediaVersion, byte(h.Source), h.Codec)
}
