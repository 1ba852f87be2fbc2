package front

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/commucat/commucat/core/admission"
	"github.com/commucat/commucat/core/metrics"
	"github.com/commucat/commucat/core/probe"
	"github.com/commucat/commucat/sdk/transport"
)

// endless writes until it fails.
func endless(ended chan<- error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		b := make([]byte, 64<<10)
		for {
			if _, err := w.Write(b); err != nil {
				ended <- err
				return
			}
		}
	})
}

// TestW04NothingTellsARelay (W-04, W-05, T-30): the battery finds no difference
// between a front with transports and REST and the same front with neither, so
// neither counters, health, info, assist nor relay paths exist for a stranger.
func TestW04NothingTellsARelay(t *testing.T) {
	api := fakeAPI{http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(200) })}
	certificate := static(t)
	// One address, hundreds of inputs: the budget is not what is compared here.
	gate := func() *admission.Gate { return admission.New(admission.Options{Local: 1e4, Rate: 1e6, Burst: 1e6}) }
	target := start(t, Options{
		Certificates: certificate, Admission: gate(), API: api, Metrics: metrics.New(metrics.Options{}),
		Webs:   []transport.Web{fakeWeb{cover: Site(page)}},
		Accept: func(c net.Conn) { _, _ = io.Copy(c, c) },
	})
	reference := start(t, Options{Certificates: certificate, Admission: gate()})
	opt := probe.Options{ServerName: "relay.example", Wait: 400 * time.Millisecond, Parallel: 48, Paths: []string{"/assets/9f3c61d2"}}
	if kinds := len(probe.Kinds(opt)); kinds < 60 {
		t.Fatalf("%d kinds", kinds)
	}
	report, err := probe.Run(context.Background(), target.addr, reference.addr, opt)
	if err != nil {
		t.Fatal(err)
	}
	if !report.Equal() {
		t.Error(report)
	}
	t.Logf("%d inputs of %d kinds", len(report.Results), report.Kinds)
}

// TestProbeFindsTheLoud: the battery sees a server that answers on its own.
func TestProbeFindsTheLoud(t *testing.T) {
	loud := http.NewServeMux()
	loud.Handle("/", page)
	loud.HandleFunc("/api/server-info", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") })
	certificate := static(t)
	target := start(t, Options{Certificates: certificate, Cover: loud})
	reference := start(t, Options{Certificates: certificate})
	report, err := probe.Run(context.Background(), target.addr, reference.addr,
		probe.Options{Wait: 200 * time.Millisecond, Parallel: 16, Only: []string{"GET /"}})
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, d := range report.Differences() {
		found[d.Name] = true
	}
	for _, name := range []string{"http1 GET /api/server-info", "http2 GET /api/server-info"} {
		if !found[name] {
			t.Errorf("%s was not found: %v", name, found)
		}
	}
}
