package ccp

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var callSamples = map[string]string{
	"offer":        `{"call_id":"call-0001","from":"dev-a","to":["dev-b"]}`,
	"offer-full":   callOfferFull,
	"answer":       `{"call_id":"call-0001","accept":true,"selected_audio_codec":"opus","selected_video_codec":"av1_main","audio_source":"hybrid","video_source":"raw","video_hardware":"apple"}`,
	"answer-no":    `{"call_id":"call-0001","accept":false,"reason":"busy","media":null,"transport":null,"metadata":null}`,
	"end":          `{"call_id":"call-0001","reason":"failure","metadata":{"cause":"disconnect","device":"dev-a","system":true}}`,
	"stats":        `{"call_id":"call-0001","direction":"receive","audio":{"bitrate":16000,"packet_loss":0.1,"jitter_ms":3,"rtt_ms":40,"codec":"opus"},"timestamp":1799990000,"video":{"bitrate":1,"frames_per_second":30,"key_frames":2,"source":"encoded","hardware":"cpu"}}`,
	"candidate":    `{"call_id":"call-0001","update":"candidate","candidate":{"address":"192.0.2.1","port":5000,"candidate_type":"srflx","related_address":"10.0.0.1","related_port":9,"tcp_type":"so","protocol":"tcp","sdp_mid":"0","sdp_mline_index":0,"component":1,"priority":7,"foundation":"1","url":"stun:x"}}`,
	"pair":         `{"call_id":"call-0001","update":"selected_candidate_pair","local":{"address":"192.0.2.1","port":1,"candidate_type":"relay"},"remote":{"address":"2001:db8::1","port":2,"foundation":"f","priority":3},"rtt_ms":12}`,
	"keepalive":    `{"call_id":"call-0001","update":"consent_keepalive","interval_secs":15}`,
	"keepalive-no": `{"call_id":"call-0001","update":"consent_keepalive"}`,
}

const callOfferFull = `{"call_id":"call-0001","from":"dev-a","to":["dev-b","dev-c"],"expires_at":1799990000,"ephemeral_key":"k",
"media":{"audio":{"codec":"raw_pcm","bitrate":64000,"sample_rate":48000,"channels":2,"fec":true,"source":"raw","preferred_codecs":["opus","raw_pcm"],
"available_codecs":[{"codec":"opus","bitrate":16000,"channels":1,"sample_rate":48000,"priority":9},{"codec":"raw_pcm"}],"allow_passthrough":true},
"video":{"codec":"vp9","max_bitrate":900000,"max_resolution":{"width":1280,"height":720},"frame_rate":30,"adaptive":true,"hardware":["nvidia","intel"],
"preferred_codecs":["vp8"],"available_codecs":[{"codec":"h264_main","frame_rate":25,"max_resolution":{"width":1,"height":2},"hardware":["amd"],"supports_scalability":true,"max_bitrate":5}],
"capabilities":{"audio":[{"codec":"opus"}],"video":[{"codec":"raw_i420"}],"allow_raw_audio":true,"allow_raw_video":true},"allow_passthrough":true},
"mode":"half_duplex","capabilities":{}},"metadata":[1,{"x":null}],
"transport":{"prefer_relay":true,"udp_candidates":[{"address":"192.0.2.1","port":1}],"fingerprints":["sha-256 x"],
"ice_credentials":{"username_fragment":"u","password":"p","expires_at":5},"trickle":true,"consent_interval_secs":15}}`

var callParsers = map[string]func([]byte) ([]byte, error){
	"offer":  func(b []byte) ([]byte, error) { o, err := ParseCallOffer(b); return o.Marshal(), err },
	"answer": func(b []byte) ([]byte, error) { a, err := ParseCallAnswer(b); return a.Marshal(), err },
	"end":    func(b []byte) ([]byte, error) { e, err := ParseCallEnd(b); return e.Marshal(), err },
	"stats":  func(b []byte) ([]byte, error) { s, err := ParseCallStats(b); return s.Marshal(), err },
	"update": func(b []byte) ([]byte, error) { u, err := ParseTransportUpdate(b); return u.Marshal(), err },
}

func parserOf(sample string) string {
	switch name, _, _ := strings.Cut(sample, "-"); name {
	case "candidate", "pair", "keepalive":
		return "update"
	default:
		return name
	}
}

func TestCallSamples(t *testing.T) {
	for name, in := range callSamples {
		t.Run(name, func(t *testing.T) {
			again := callParsers[parserOf(name)]
			out, err := again([]byte(in))
			if err != nil {
				t.Fatal(err)
			}
			if second, err := again(out); err != nil || !bytes.Equal(out, second) {
				t.Errorf("%s becomes %s, %v", out, second, err)
			}
			if c, err := CanonicalJSON(out); err != nil || !bytes.Equal(c, out) {
				t.Errorf("not sorted: %s", out)
			}
			golden(t, "call-"+name+".golden", out)
		})
	}
}

func TestCallOfferDefaults(t *testing.T) {
	o, err := ParseCallOffer([]byte(callSamples["offer"]))
	if err != nil {
		t.Fatal(err)
	}
	want := CallOffer{CallID: "call-0001", From: "dev-a", To: []string{"dev-b"}, Media: DefaultProfile()}
	if diff := cmp.Diff(want, o); diff != "" {
		t.Error(diff)
	}
	if !o.Media.Audio.Transcodable() || o.Media.Audio.Source != SourceRaw {
		t.Error(o.Media.Audio)
	}
	o.Media.Audio.SampleRate = 44100
	if o.Media.Audio.Transcodable() {
		t.Error("opus at 44.1 kHz")
	}
}

func TestCallMalformed(t *testing.T) {
	audio := `"audio":{"codec":"opus","bitrate":1,"sample_rate":8000,"channels":1}`
	offer := `"call_id":"c","from":"a","to":[]`
	for _, c := range []struct{ parser, in, field string }{
		{"offer", `{"from":"a","to":[]}`, "call_id"},
		{"offer", `{"call_id":"","from":"a","to":[]}`, "call_id"},
		{"offer", `{"call_id":"c","to":[]}`, "from"},
		{"offer", `{"call_id":"c","from":"a","to":"b"}`, "to"},
		{"offer", `{"call_id":"c","from":"a","to":[1]}`, "to"},
		{"offer", `{` + offer + `,"media":null}`, "media"},
		{"offer", `{` + offer + `,"media":{}}`, "media.audio"},
		{"offer", `{` + offer + `,"media":{"audio":{"codec":"OPUS","bitrate":1,"sample_rate":8000,"channels":1}}}`, "media.audio.codec"},
		{"offer", `{` + offer + `,"media":{"audio":{"codec":"opus","bitrate":1.0,"sample_rate":8000,"channels":1}}}`, "media.audio.bitrate"},
		{"offer", `{` + offer + `,"media":{"audio":{"codec":"opus","bitrate":4294967296,"sample_rate":8000,"channels":1}}}`, "media.audio.bitrate"},
		{"offer", `{` + offer + `,"media":{"audio":{"codec":"opus","bitrate":1,"sample_rate":8000,"channels":256}}}`, "media.audio.channels"},
		{"offer", `{` + offer + `,"media":{"audio":{"codec":"opus","bitrate":1,"sample_rate":8000,"channels":1,"fec":null}}}`, "media.audio.fec"},
		{"offer", `{` + offer + `,"media":{` + audio + `,"mode":"simplex"}}`, "media.mode"},
		{"offer", `{` + offer + `,"media":{` + audio + `,"video":{}}}`, "media.video.codec"},
		{"offer", `{` + offer + `,"transport":{"candidates":null}}`, "transport.candidates"},
		{"offer", `{` + offer + `,"transport":{"candidates":[],"udp_candidates":[]}}`, "transport.udp_candidates"},
		{"offer", `{` + offer + `,"transport":{"candidates":[{"address":"x"}]}}`, "transport.candidates.port"},
		{"offer", `{` + offer + `,"transport":{"candidates":[{"address":"x","port":65536}]}}`, "transport.candidates.port"},
		{"offer", `{` + offer + `,"transport":{"candidates":[{"address":"x","port":1,"protocol":null}]}}`, "transport.candidates.protocol"},
		{"offer", `{` + offer + `,"expires_at":-1}`, "expires_at"},
		{"answer", `{"call_id":"c"}`, "accept"},
		{"answer", `{"call_id":"c","accept":1}`, "accept"},
		{"answer", `{"call_id":"c","accept":false,"reason":"bored"}`, "reason"},
		{"end", `{"call_id":"c"}`, "reason"},
		{"end", `{"call_id":"c","reason":null}`, "reason"},
		{"stats", `{"call_id":"c","direction":"sideways"}`, "direction"},
		{"stats", `{"call_id":"c","direction":"send","audio":{}}`, "audio.bitrate"},
		{"stats", `{"call_id":"c","direction":"send","audio":{"bitrate":1,"packet_loss":"0"}}`, "audio.packet_loss"},
		{"stats", `{"call_id":"c","direction":"send","audio":{"bitrate":1,"packet_loss":1e300}}`, "audio.packet_loss"},
		{"update", `{"call_id":"c"}`, "update"},
		{"update", `{"call_id":"c","update":"x"}`, "update"},
		{"update", `{"call_id":"c","update":"candidate"}`, "candidate"},
		{"update", `{"call_id":"c","update":"selected_candidate_pair","local":{"address":"x","port":1}}`, "remote"},
		{"update", `{"call_id":"c","update":"consent_keepalive","interval_secs":70000}`, "interval_secs"},
	} {
		_, err := callParsers[c.parser]([]byte(c.in))
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Kind != Field || e.Field != c.field {
			t.Errorf("%s %s: %v, want field %s", c.parser, c.in, err, c.field)
		}
	}
	long := `{"call_id":"c","from":"a","to":[` + strings.Repeat(`"x",`, 256) + `"x"]}`
	if _, err := ParseCallOffer([]byte(long)); KindOf(err) != Field {
		t.Error(err)
	}
}

func TestEnumTexts(t *testing.T) {
	if got := CallMode(9).String(); got != "unknown" {
		t.Error(got)
	}
	codes := []string{RawI420.String(), VP8.String(), VP9.String(), H264Baseline.String(), H264Main.String(), H265Main.String(), AV1Main.String()}
	if diff := cmp.Diff(videoCodecTexts, codes); diff != "" {
		t.Error(diff)
	}
}

func TestParseMedia(t *testing.T) {
	h, data, err := ParseMedia(TypeVoiceFrame, []byte{1, 2, 1, 7, 8})
	if h != (MediaHeader{SourceHybrid, uint8(RawPCM)}) || !bytes.Equal(data, []byte{7, 8}) || err != nil {
		t.Error(h, data, err)
	}
	if got := h.Append(nil); !bytes.Equal(got, []byte{1, 2, 1}) {
		t.Error(got)
	}
	if _, _, err := ParseMedia(TypeVideoFrame, []byte{1, 0, 6}); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		t    Type
		in   []byte
		want ErrorKind
	}{
		{TypeVoiceFrame, []byte{1, 0}, Truncated}, {TypeVoiceFrame, []byte{2, 0, 0}, Field}, {TypeVoiceFrame, []byte{1, 3, 0}, Field},
		{TypeVoiceFrame, []byte{1, 0, 2}, Field}, {TypeVideoFrame, []byte{1, 0, 7}, Field},
	} {
		if _, _, err := ParseMedia(c.t, c.in); KindOf(err) != c.want {
			t.Errorf("%v %x: %v", c.t, c.in, err)
		}
	}
}
