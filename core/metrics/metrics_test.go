package metrics

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// inherited are the names and true types of api-and-operations 10.1.
var inherited = map[string]string{
	"commucat_connections_active": "gauge", "commucat_frames_ingress": "counter", "commucat_frames_egress": "counter",
	"commucat_relay_enqueued": "counter", "commucat_security_noise": "counter", "commucat_security_pq": "counter",
	"commucat_security_fec_packets": "counter", "commucat_multipath_sessions": "counter", "commucat_multipath_paths": "gauge",
	"commucat_ice_binding_requests": "counter", "commucat_ice_binding_failures": "counter",
	"commucat_censorship_deflections": "counter", "commucat_calls_active": "gauge", "commucat_calls_total": "counter",
	"commucat_call_voice_frames": "counter", "commucat_call_video_frames": "counter", "commucat_transport_candidates": "counter",
	"commucat_transport_pairs": "counter", "commucat_transport_keepalive": "counter",
	"commucat_federation_outbox_enqueued": "counter", "commucat_federation_outbox_delivered": "counter",
	"commucat_federation_inbound_processed": "counter", "commucat_federation_inbound_rejected": "counter",
	"commucat_rate_limit_http": "counter", "commucat_rate_limit_connect": "counter",
	"commucat_secret_rotations_noise": "counter", "commucat_secret_rotations_admin": "counter", "commucat_device_rotations": "counter",
}

func scrape(t *testing.T, s *Set) string {
	t.Helper()
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "/metrics", nil)
	r.Header.Set("Accept", "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5")
	s.Handler().ServeHTTP(w, r)
	if w.Code != 200 {
		t.Fatalf("status %d", w.Code)
	}
	return w.Body.String()
}

// TestW38InheritedNames: the 28 names exist, with the right TYPE, a HELP line
// and no label, and move only with the thing that they name.
func TestW38InheritedNames(t *testing.T) {
	s := New(Options{Version: "1.2.3", Process: true})
	body := scrape(t, s)
	if len(inherited) != 28 {
		t.Fatalf("table has %d names", len(inherited))
	}
	for name, kind := range inherited {
		for _, line := range []string{"# TYPE " + name + " " + kind + "\n", "# HELP " + name + " ", "\n" + name + " 0\n"} {
			if !strings.Contains(body, line) {
				t.Errorf("missing %q", line)
			}
		}
	}
	s.Inc(FramesIngress)
	s.Move(ConnectionsActive, 1)
	s.Move(ConnectionsActive, -2)
	body = scrape(t, s)
	for _, want := range []string{"\ncommucat_frames_ingress 1\n", "\ncommucat_connections_active -1\n", "\ncommucat_frames_egress 0\n", `commucat_build_info{version="1.2.3"} 1`} {
		if !strings.Contains(body, want) {
			t.Errorf("missing %q", want)
		}
	}
}

func TestEveryInstrumentIsDescribed(t *testing.T) {
	seen := map[string]bool{}
	check := func(name, help string) {
		if name == "" || help == "" || seen[name] {
			t.Errorf("bad definition %q %q", name, help)
		}
		seen[name] = true
	}
	for _, d := range counterDefs {
		check(d.name, d.help)
	}
	for _, d := range gaugeDefs {
		check(d.name, d.help)
	}
	for _, d := range histogramDefs {
		check(d.name, d.help)
	}
	for _, d := range vecDefs {
		check(d.name, d.help)
	}
	for _, d := range labelledDefs {
		check(d.name, d.help)
	}
}

func TestNilSet(t *testing.T) {
	var s *Set
	s.Inc(FramesIngress)
	s.Add(FramesEgress, 3)
	s.Set(CommitPending, 1)
	s.Move(CallsActive, 1)
	s.Observe(AckSeconds, 1)
	s.Since(AckSeconds, time.Now())
	s.Count(Handshakes, "refused")
	s.Label(PluginUp, "pt", 1)
	s.MoveLabel(Sessions, "http2", 1)
	if s.Registry() != nil {
		t.Error("registry of a nil set")
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if w.Code != 404 {
		t.Errorf("status %d", w.Code)
	}
}

func TestLabelsAreBounded(t *testing.T) {
	s := New(Options{})
	for i := range 10 * MaxLabels {
		s.Count(Errors, fmt.Sprintf("code_%d", i))
	}
	s.Count(Errors, "203.0.113.9:443")
	body := scrape(t, s)
	if n := strings.Count(body, "\ncommucat_errors_total{"); n != MaxLabels+1 {
		t.Errorf("%d series, want %d", n, MaxLabels+1)
	}
	if strings.Contains(body, "203.0.113.9") {
		t.Error("an address became a label")
	}
	if !strings.Contains(body, fmt.Sprintf("commucat_errors_total{code=\"other\"} %d\n", 9*MaxLabels+1)) {
		t.Error("overflow is not counted under other")
	}
}

func TestKnownLabelDoesNotAllocate(t *testing.T) {
	s := New(Options{})
	s.Count(Handshakes, "refused")
	if n := testing.AllocsPerRun(100, func() { s.Count(Handshakes, "refused"); s.Inc(FramesIngress); s.Observe(AckSeconds, .1) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
